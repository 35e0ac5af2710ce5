// Package transform makes the configuration tree of a test Nginx out of a production tree.
//
// The steps of a caller, in this order:
//
//   - read the production tree with package conf;
//   - write the Rules: ports, paths, literal addresses, everything that would reach production
//     otherwise;
//   - take the Snippets of a driver (luadriver.Snippets), which put the routing into the upstream
//     blocks;
//   - call Transform, and read its errors: each is something in the tree that no rule covers;
//   - write the Result out and start Nginx on it.
//
// For example:
//
//	tree, err := conf.Parse(os.DirFS("/etc/nginx"), "nginx.conf")
//	result, err := transform.Transform(tree, transform.Rules{
//		Listen:   map[int]int{80: 8080},
//		Snippets: luadriver.Snippets(luadriver.SnippetConfig{Socket: "/run/sluice/admin.sock"}),
//	})
//	err = result.WriteTo("/var/lib/sluice/nginx")
//
// Transform touches only the bodies of upstream blocks and directives that would reach production
// or mix versions, and gives a reason for each change; everything else stays byte for byte as it
// is. A directive that no rule covers and that would reach production is an error, never a default.
// The package does not run Nginx: package mirror does.
package transform
