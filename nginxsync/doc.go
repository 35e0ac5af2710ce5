// Package nginxsync carries a production Nginx configuration over to a test Nginx and changes the upstreams of the
// running Nginx without a reload, so that every virtual address (VIP) can answer with another version.
//
// On VIP v, a cluster is served by the instances that the overlay of v names; every cluster that the overlay does not name
// is served by the baseline. The production routing stays as it is: Transform touches only the bodies of upstream blocks and
// what would reach production or mix versions, and says why for each change.
//
// What the embedder does, in this order:
//
//   - read the production tree (package conf), Transform it with the snippets of a driver, write it out, start Nginx on it;
//   - keep a Source up to date: a StaticSource, or one that watches a registry;
//   - run an Agent, which pushes each change to Nginx by way of a Driver and checks that every worker answers with it;
//   - start Nginx again when it ends: it reads the agent's state file and serves without the agent;
//   - run a Syncer, which carries each later change of the production tree over, and goes back when Nginx will not have it.
//
// For example:
//
//	tree, err := conf.Parse(os.DirFS("/etc/nginx"), "nginx.conf")
//	rules := nginxsync.Rules{
//		Listen:   map[int]int{80: 8080},
//		Snippets: luadriver.Snippets(luadriver.SnippetConfig{Socket: "/run/sluice/admin.sock", StateFile: "/var/lib/sluice/routes"}),
//	}
//	result, err := nginxsync.Transform(tree, rules)
//	err = result.WriteTo("/var/lib/sluice/nginx")
//	source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
//	driver, err := luadriver.New(luadriver.Config{Socket: "/run/sluice/admin.sock"})
//	agent, err := nginxsync.NewAgent(nginxsync.Config{Source: source, Driver: driver, StateFile: "/var/lib/sluice/routes"})
//	go agent.Run(ctx)
//	err = agent.WaitVerified(ctx, source.Set(snapshot))
//
// The package does not start Nginx, does not lease addresses (package vip does), and does not check the health of
// instances actively.
package nginxsync
