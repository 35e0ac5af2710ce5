// Package mirror carries each change of a production Nginx tree over to a running test Nginx.
//
// A Mirror takes bundles from a bundle.Source. For each it runs these steps in order:
//
//   - stage: transform the tree and write it to a directory of its own;
//   - test: nginx -t on that directory;
//   - switch: point the link Dir/current at it;
//   - reload: signal Nginx;
//   - verify: wait until every worker reports that it runs on the tree, then watch the error log.
//
// When a step fails, the mirror goes back to the tree that was verified last, and verifies it
// again.
//
// The embedder's steps, in this order: stage a first bundle with Stage and Switch, start Nginx on
// Dir/current, call Run, show Status to operators. For example:
//
//	m, err := mirror.New(mirror.Config{
//		Source: source, Driver: driver, Rules: rules, Dir: "/var/lib/sluice/trees",
//		Nginx:  &mirror.ExecNginx{PIDFile: "/run/test-nginx.pid", ErrorLog: "/var/log/test-nginx/error.log"},
//	})
//	go m.Run(ctx)
//
// The package does not start Nginx, and does not change routes: nginxsync.Agent does that.
package mirror
