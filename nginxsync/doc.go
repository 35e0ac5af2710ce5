// Package nginxsync defines the instances that serve each cluster, and keeps the routes of a
// running Nginx in step with them, without a reload: every virtual address (VIP) can answer with
// another version.
//
// On VIP v, a cluster is served by the instances that the overlay of v names; a cluster that the
// overlay does not name by those of the first branch of v that names it, else by the baseline. An
// address of a pool that no lease has answers 410. Snapshot.Resolve says who answers, and why.
//
// The embedder's steps, in this order:
//
//   - start an Nginx on a tree that package transform has made with the snippets of a driver;
//   - keep a Source up to date: a StaticSource, or one that watches a registry;
//   - run an Agent, which pushes each change to Nginx by way of a Driver and checks that every
//     worker answers with it;
//   - start Nginx again when it ends: it reads the agent's state file and serves without the agent.
//
// For example:
//
//	source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
//	driver, err := luadriver.New(luadriver.Config{Socket: "/run/sluice/admin.sock"})
//	agent, err := nginxsync.OpenAgent(ctx, nginxsync.Config{
//		Source: source, Driver: driver, StateFile: "/var/lib/sluice/routes",
//	})
//	go agent.Run(ctx)
//	err = agent.WaitVerified(ctx, source.Set(snapshot))
//
// The configuration tree is the business of the packages below: conf reads it, transform rewrites
// it, bundle fetches it from production, mirror keeps a running Nginx on it, route explains it. The
// package does not start Nginx, does not lease addresses (package vip does), and does not check the
// health of instances actively.
package nginxsync
