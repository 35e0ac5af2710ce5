// Package healthcheck asks instances whether they work, and takes failing ones out of the routes.
//
// A Checker is a nginxsync.Source that passes on the snapshots of another one without the instances
// that fail their check. It runs once in the process of the agents, for all of their Nginx and
// workers.
//
//	checker, err := healthcheck.New(healthcheck.Config{Source: source,
//		Checks: []healthcheck.Check{{Probe: healthcheck.TCP()}}})
//	...
//	go checker.Run(ctx)
//	agent, err := nginxsync.OpenAgent(ctx, nginxsync.Config{Source: checker, ...})
//
// Steps for the embedder:
//
//   - choose probes: HTTP and TCP of this package, that of package grpcprobe, or a function;
//   - give every agent of the process the same Checker as its source, and run it;
//   - show Checker.Status: agenthttp does.
//
// A share of the instances of each cluster, Config.Quorum, stays in the routes even when all of
// them fail: a check that is wrong, or a network that is away between the agent and the instances,
// must not empty a cluster. An instance is in the routes until its check has failed: its
// registration says that it works.
//
// The package does not restart or deregister anything, and it does not replace the passive checks
// of Nginx (max_fails), which see each request.
package healthcheck
