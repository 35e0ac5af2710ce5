package transform_test

import (
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"github.com/sluice-deploy/sluice/internal/names/namestest"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

var update = flag.Bool("update", false, "write the golden files")

// short is a driver whose text is short enough to be read in a golden file.
var short = transform.Snippets{
	Modules:  []string{"/modules/driver.so"},
	Defaults: []string{"driver_path /lib;"},
	Once:     []transform.Block{{Name: "init_by_lua_block", Body: "start()"}},
	HTTP:     "driver_zone routes 1m;\n",
	Methods:  []string{"least_conn", "hash"},
	Ended:    transform.Block{Name: "log_by_lua_block", Body: "done()"},
	Upstream: func(u transform.Upstream) string {
		text := fmt.Sprintf("server 0.0.0.1;\nbalance %s; # %q %s %s %s", u.Cluster, u.Method,
			u.MaxFails, u.FailTimeout, u.SlowStart)
		if u.Zone {
			text += "zone"
		}
		return text
	},
}

func parse(t testing.TB, fsys fs.FS) *conf.Tree {
	t.Helper()
	tree, err := conf.Parse(fsys, "nginx.conf")
	require.NoError(t, err)
	return tree
}

// one is a tree of a single file.
func oneFile(text string) fs.FS { return fstest.MapFS{"nginx.conf": {Data: []byte(text)}} }

// Each golden file holds the production tree, the rules, and the messages and results of the
// transform.
func TestTransformGolden(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/golden/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(name)
			require.NoError(t, err)
			fsys := fstest.MapFS{}
			var rules transform.Rules
			kept := archive.Files[:0]
			for _, f := range archive.Files {
				switch {
				case f.Name == "rules.json":
					rules, err = transform.ReadRules(strings.NewReader(string(f.Data)))
					require.NoError(t, err)
				case strings.HasPrefix(f.Name, "in/"):
					fsys[strings.TrimPrefix(f.Name, "in/")] = &fstest.MapFile{Data: f.Data}
				default:
					continue
				}
				kept = append(kept, f)
			}
			rules.Snippets = short
			result, err := transform.Transform(parse(t, fsys), rules)
			got := &txtar.Archive{Comment: archive.Comment, Files: kept}
			if err != nil {
				got.Files = append(got.Files, txtar.File{Name: "error",
					Data: []byte(err.Error() + "\n")})
			} else {
				got.Files = append(got.Files, txtar.File{Name: "summary",
					Data: []byte(result.Summary())},
					txtar.File{Name: "diff", Data: []byte(stripDigests(result.Diff()))})
				again, err := transform.Transform(parse(t, result.FS()), rules)
				require.NoError(t, err)
				require.Equal(t, result.Files, again.Files, "a second transform changes the tree")
				require.Empty(t, again.Diff())
			}
			if *update {
				require.NoError(t, os.WriteFile(name, txtar.Format(got), 0o644))
				return
			}
			want, err := os.ReadFile(name)
			require.NoError(t, err)
			require.Equal(t, string(want), string(txtar.Format(got)))
		})
	}
}

// stripDigests makes the marker of the generated file independent of the rules' own digest.
func stripDigests(diff string) string {
	var b strings.Builder
	for line := range strings.Lines(diff) {
		if strings.HasPrefix(line, "+# rules ") || strings.HasPrefix(line, "+# tree ") ||
			strings.HasPrefix(line, "+# files ") {
			line = line[:strings.LastIndexByte(line, ' ')] + " …\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// Directives that no rule covers are refused, with file and line and what to do.
func TestTransformFailsClosed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"http { server { listen 81; } }", "nginx.conf:1:17: listen 81: port 81 is not in the " +
			"rules under listen"},
		{"http { server { listen 10.0.0.1; listen [::1]:81; } }", "listen [::1]:81: port 81"},
		{"http { server { listen unix:/run/x.sock; } }", "listen unix:/run/x.sock: map the socket"},
		{"http { server { listen localhost:http; } }", "listen localhost:http: not an address " +
			"with a port"},
		{"http { server { listen 80-82; } }", "listen 80-82: port 81 is not in the rules under " +
			"listen"},
		{"http { server { listen 127.0.0.1:80-82; } }", "listen 127.0.0.1:80-82: port 81 is not"},
		{"http { server { listen ::1; } }", "listen ::1: not an address"},
		{"http { server { listen 80; location / { proxy_pass http://10.0.0.1; } } }",
			`proxy_pass http://10.0.0.1: "10.0.0.1" is not an upstream of the tree`},
		{"http { server { listen 80; location / { proxy_pass http://example.com/x; } } }",
			`"example.com" is not an upstream`},
		{"http { server { listen 80; location / { proxy_pass http://$x; } } }",
			`the target is known only at run time; map "$x"`},
		{"http { server { listen 80; location / { proxy_pass $x; } } }",
			`the target is known only at run time; map "$x"`},
		{"http { server { listen 80; location / { proxy_pass http://a$x/u; } } upstream a { " +
			"server b; } }", `map "a$x"`},
		{"http { server { listen 80; location / { proxy_pass $p://a/u; } } upstream a { server " +
			"b; } }", `known only at run time; map "$p://a"`},
		{"http { server { listen 80; location / { proxy_pass http://unix:/run/a:/u; } } }",
			`"unix:/run/a" is not an upstream`},
		{"http { server { listen 80; location / { fastcgi_pass 127.0.0.1:9000; } } }",
			`"127.0.0.1:9000" is not an upstream`},
		{"http { server { listen 80; location / { fastcgi_pass unix:/run/php.sock; } } }",
			`"unix:/run/php.sock" is not`},
		{"http { server { listen 80; location / { grpc_pass grpcs://h:1; } } }",
			`"h:1" is not an upstream`},
		{"http { server { listen 80; location / { uwsgi_pass h:1; } } }",
			`"h:1" is not an upstream`},
		{"http { server { listen 80; location / { scgi_pass h:1; } } }",
			`"h:1" is not an upstream`},
		{"http { server { listen 80; location / { memcached_pass h:1; } } }",
			`"h:1" is not an upstream`},
		{"http { server { listen 80; location / { if ($a) { proxy_pass http://h:1; } } } }",
			`"h:1" is not an upstream`},
		{"http { server { listen 80; location / { limit_except GET { proxy_pass http://h:1; } } } }", `"h:1" is not an upstream`},
		{"http { } stream { server { listen 3306; proxy_pass db; } }", "stream block: nothing " +
			"maps its upstreams"},
		{"http { } mail { }", "mail block"},
		{"http { access_log /var/log/x.log; }", "nothing maps this path"},
		{"http { server { ssl_key_log /var/log/keys.log; } }", "nothing maps this path"},
		{"http { server { location / { proxy_ssl_key_log /var/log/keys.log; } } }",
			"nothing maps this path"},
		{"http { lua_ssl_key_log /var/log/keys.log; }", "nothing maps this path"},
		{"http { acme_client_path /var/lib/acme; }", "nothing maps this path"},
		{"http { vhost_traffic_status_dump /var/db/vts.db; }", "nothing maps this path"},
		{"http { server { location / { upload_store /var/upload; } } }", "nothing maps this path"},
		{"http { server { error_log logs/e.log; } }",
			"error_log logs/e.log: nothing maps this path"},
		{"http { access_log logs/a.log; }", "access_log logs/a.log: nothing maps this path"},
		{"http { access_log pipe:/bin/x; }", "access_log pipe:/bin/x: nothing maps this path"},
		{"http { proxy_temp_path temp; }", "proxy_temp_path temp: nothing maps this path"},
		{"http { keyval_zone zone=k:32k state=/var/lib/k; }", "keyval_zone state=/var/lib/k: " +
			"nothing maps this path"},
		{"http { js_shared_dict_zone zone=s:1m state=s.json; }", "js_shared_dict_zone " +
			"state=s.json: nothing maps this path"},
		{"http { upstream a..b { state /var/lib/web.state; } }", "state /var/lib/web.state: " +
			"nothing maps this path"},
		{"http { acme_issuer le { state_path /var/lib/acme; } }", "state_path /var/lib/acme: " +
			"nothing maps this path"},
		{"http { server { root /srv/files; location / { dav_methods PUT DELETE; } } }",
			"dav_methods: it writes below root /srv/files of nginx.conf:1"},
		{"http { server { location /f/ { alias /srv/f/; dav_methods PUT; } } }",
			"dav_methods: it writes below alias /srv/f/"},
		{"http { dav_methods PUT; server { location /f/ { root /srv/f; } } }",
			"dav_methods: it writes below root /srv/f"},
		{"http { server { location / { dav_methods PUT; } } }", "dav_methods: it writes below " +
			"the root, and the tree states none"},
		{"http { client_body_in_file_only on; }", "client_body_in_file_only on: it keeps the " +
			"bodies in the directory"},
		{"http { docker_endpoint unix:/var/run/docker.sock; }", "docker_endpoint: it opens " +
			"connections that nothing maps"},
		{"http { server { location / { upstream_probe p uri=/h interval=1s; } } }",
			"upstream_probe: it opens connections"},
		{"http { brokerlist kafka1:9092,kafka2:9092; }", "brokerlist: it opens connections"},
		{"http { server { location / { gridfs db field=a; } } }", "gridfs: it opens connections"},
		{"http { server { location / { mongo mongodb.internal; } } }",
			"mongo: it opens connections"},
		{"http { tfs_upstream { server 10.0.0.1:8100; } }", "tfs_upstream: it opens connections"},
		{"http { server { location / { rdns on; } } }", "rdns: it opens connections"},
		{"http { server { location / { set_host_from_dns $x $y; } } }", "set_host_from_dns: it " +
			"opens connections"},
		{"http { server { location / { rest2dns x; } } }", "rest2dns: it opens connections"},
		{"http { server { location / { limit_req_redis x; } } }", "limit_req_redis: it opens " +
			"connections"},
		{"http { server { location / { ldap_auth on; } } }", "ldap_auth: it opens connections"},
		{"http { consul $x /v1/kv/a; }", "consul: it opens connections"},
		{"http { server { location / { python_content x(); } } }", "python_content: code"},
		{"http { server { location / { wasm_call rewrite m f; } } }", "wasm_call: code"},
		{"http { access_log syslog:server=10.0.0.1 main; }",
			"syslog:server=10.0.0.1: nothing maps"},
		{"error_log syslog:server=10.0.0.1; http { }", "syslog:server=10.0.0.1: nothing maps"},
		{"pid /run/nginx.pid; http { }", "pid /run/nginx.pid: nothing maps"},
		{"http { proxy_cache_path /var/cache/x keys_zone=a:1m; }",
			"proxy_cache_path /var/cache/x: nothing maps"},
		{"http { access_log logs/$host.log; server { access_log $log; listen 80; } }",
			"access_log $log: nothing maps"},
		{"http { server { listen 80; location / { content_by_lua_block { x() } } } }",
			"content_by_lua_block: code can open connections"},
		{"http { js_import x.js; }", "js_import: code"},
		{"http { perl_modules x; }", "perl_modules: code"},
		{"http { } rtmp { server { } }", "rtmp block: nothing maps its upstreams"},
		{"http { } mgmt { usage_report endpoint=x; }", "mgmt block"},
		{"http { server { listen 80; location / { soap_pass h:1; } } }",
			`"h:1" is not an upstream`},
		{"http { server { listen 80; location / { mirror /m; } location = /m { internal; " +
			"proxy_pass http://10.0.0.2; } } }", `"10.0.0.2" is not an upstream`},
		{"http { server { listen 80; location / { auth_request /a; } location = /a { proxy_pass " +
			"http://10.0.0.3/x; } } }", `"10.0.0.3" is not an upstream`},
		{"http { server { listen 80; error_log syslog:server=10.0.0.1 warn; } }",
			"syslog:server=10.0.0.1: nothing maps"},
		{"http { server { listen 80; location / { proxy_connect; } } }",
			"proxy_connect: it opens connections that nothing maps"},
		{"http { otel_exporter { endpoint 10.0.0.1:4317; } }",
			"otel_exporter: it opens connections"},
		{"http { anything 10.0.0.1; }", "anything 10.0.0.1: nothing says what this address is for"},
		{"http { anything on target=10.0.0.1:80; }", "target=10.0.0.1:80: nothing says"},
		{"http { anything brokers=10.0.0.1:9092,10.0.0.2:9092; }", "nothing says what this " +
			"address is for"},
		{"http { anything [2001:db8::1]:80; }", "nothing says what this address is for"},
		{"http { anything tcp://x; }", "anything tcp://x: nothing says"},
		{"http { anything consul.example:8500/v1; }", "nothing says"},
		{"http { server { listen 80; location / { set_by_lua_file $a x.lua; } } }",
			"set_by_lua_file: code can open connections"},
		{"http { init_worker_by_lua_file x.lua; }", "init_worker_by_lua_file: code"},
		{"http { server { listen 80; location / { perl Handler::f; } } }", "perl: code"},
		{"http { server { listen 80; location / { js_content f; } } }", "js_content: code"},
		{"http { include /opt/elsewhere.conf; }", "/opt/elsewhere.conf"},
		{"events { }", "0 http blocks, want one"},
		{"http { server { listen 10.0.0.1:80 default_server; } server { listen 10.0.0.2:80 " +
			"default_server; } }", "a second default server for 8080 after nginx.conf:1"},
		{"http { include *.conf; }", "include cycle"},
		{"http { include [s]*.conf; }", "include [s]*.conf: it would bring in sluice.conf a " +
			"second time"},
		{"http { include /etc/nginx/sluice.con?; }", "it would bring in sluice.conf a second time"},
		{"http { upstream \"a b\" { server x; } }",
			`server x: upstream "a b" keeps its servers (cluster "a b": byte 2 is ' '`},
		{"http { upstream a..b { balancer_by_lua_block { x() } } }", "balancer_by_lua_block: " +
			"code can open connections"},
		{"http { upstream a..b { zookeeper h:1; } }", "zookeeper: it opens connections"},
	} {
		tree, err := conf.Parse(oneFile(c.text), "nginx.conf")
		if err == nil {
			_, err = transform.Transform(tree, transform.Rules{Listen: map[int]int{80: 8080},
				Snippets: short})
		}
		var e *conf.Error
		require.ErrorAs(t, err, &e, c.text)
		require.ErrorContains(t, err, c.want, c.text)
	}
}

func TestUpstreamNames(t *testing.T) {
	t.Parallel()
	rules := transform.Rules{
		Listen:   map[int]int{80: 8080},
		Pass:     map[string]string{"10.0.0.1:80": "127.0.0.1:81"},
		Clusters: map[string]string{"legacy..name": "mapped", "Web": "hello_web"},
		Snippets: short,
	}
	for _, c := range []struct{ name, upstream, want, summary string }{
		{"capitals are lower case", "Hello_Web", "balance hello_web;", "cluster hello_web: 1 " +
			"servers give way"},
		{"the rules name the cluster", "legacy..name", "balance mapped;",
			"cluster mapped: 1 servers give way"},
		{"the rules name the cluster in other case", "wEB", "balance hello_web;",
			"cluster hello_web: 1 servers give way"},
		{"no cluster's name keeps mapped servers", "a..b", "server 127.0.0.1:81;",
			`keeps its own servers: cluster "a..b": byte 3 is '.'`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := "http {\n upstream " + c.upstream + " { server 10.0.0.1:80; }\n server { " +
				"listen 80; location / { proxy_pass http://" + c.upstream + "; } }\n}\n"
			result, err := transform.Transform(parse(t, oneFile(text)), rules)
			require.NoError(t, err)
			require.Contains(t, result.Files["nginx.conf"], "upstream "+c.upstream+" {")
			require.Contains(t, result.Files["nginx.conf"], c.want)
			require.Contains(t, result.Summary(), c.summary)
		})
	}
	_, err := transform.Transform(parse(t, oneFile("http { server { listen 80; location / { "+
		"proxy_pass http://10.0.0.2; } } }")),
		transform.Rules{Listen: rules.Listen, Pass: map[string]string{"10.0.0.2": "a..b"},
			Snippets: short})
	require.ErrorContains(t, err,
		`upstream "a..b" is added by the rules under pass: cluster "a..b": byte 3`)
	namestest.Run(t, namestest.Cluster, func(s string) error {
		return transform.Rules{Clusters: map[string]string{"a": s}}.Validate()
	})
}

func TestTransformReportsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	_, err := transform.Transform(parse(t, oneFile("pid /x;\nhttp {\n  server {\n    listen "+
		"81;\n    location / { proxy_pass http://h; }\n  }\n}\n")), transform.Rules{})
	for _, want := range []string{"nginx.conf:1:1", "nginx.conf:4:5", "nginx.conf:5:18"} {
		require.ErrorContains(t, err, want)
	}
}

func TestTransformRefusesATreeThatWasEdited(t *testing.T) {
	t.Parallel()
	rules := transform.Rules{Listen: map[int]int{80: 8080}, Snippets: short}
	result, err := transform.Transform(parse(t, oneFile("http { server { listen 80; } }")), rules)
	require.NoError(t, err)
	result.Files["nginx.conf"] += "# by hand\n"
	_, err = transform.Transform(parse(t, result.FS()), rules)
	require.ErrorContains(t, err, "sluice.conf:1:1: the tree was transformed already, by other "+
		"rules or edited since")
	rules.TempDir = "/tmp"
	_, err = transform.Transform(parse(t, result.FS()), rules)
	require.ErrorContains(t, err, "by other rules")
}

func TestRulesAreChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rules transform.Rules
		want  string
	}{
		{transform.Rules{Listen: map[int]int{80: 8080, 81: 8080}}, "listen 80 and 81 both become " +
			"8080"},
		{transform.Rules{Listen: map[int]int{80: 0}}, "want ports 1 to 65535"},
		{transform.Rules{ListenAt: map[string]int{"10.0.0.1:80-82": 81}},
			`listenAt "10.0.0.1:80-82"`},
		{transform.Rules{ListenAt: map[string]int{"10.0.0.1:80": 0}}, `listenAt "10.0.0.1:80": 0`},
		{transform.Rules{KeepaliveTimes: -1}, "keepaliveTimes: -1, want 1 to 1024"},
		{transform.Rules{KeepaliveTimes: 2000}, "keepaliveTimes: 2000"},
		{vipsFor("10.0.0.1:80", "10.9.0.0/30"), `vipsAt "10.0.0.1:80": want an IP address`},
		{vipsFor("*", "10.9.0.0/30"), `vipsAt "*": want an IP address`},
		{vipsFor("www.x", "10.9.0.0/30"), `vipsAt "www.x": want an IP address`},
		{vipsFor("[::]", "fd00::/126"), `vipsAt "[::]": want an IP address`},
		{vipsFor("10.0.0.1", "10.9.0.1/30"), `10.9.0.1/30, want a network`},
		{vipsFor("10.0.0.1", "10.9.0.0/23"), `want a network of at most 256 addresses`},
		{vipsFor("10.0.0.1", "fd00::/126"), `fd00::/126 is of the other family`},
		{transform.Rules{VIPsAt: map[string]netip.Prefix{"10.0.0.1": {}}}, `want a network`},
		{transform.Rules{VIPsAt: map[string]netip.Prefix{
			"10.0.0.1": netip.MustParsePrefix("10.9.0.0/30"),
			"10.0.0.2": netip.MustParsePrefix("10.9.0.0/31")}}, `have addresses in common`},
		{transform.Rules{PassAt: []transform.PassRule{{Target: "$x"}}}, "passAt 0"},
		{transform.Rules{Main: map[string]string{"pid": "x; user root"}}, `main "pid"`},
		{transform.Rules{Paths: map[string]string{"/a": "b}"}}, `paths "/a"`},
		{transform.Rules{Clusters: map[string]string{"a": "b c"}}, `clusters "a"`},
		{transform.Rules{Clusters: map[string]string{"Web": "a", "web": "b"}},
			`clusters "Web" and "web": Nginx takes them for the same upstream`},
		{transform.Rules{Resolver: "1.1.1.1;"}, "resolver"},
		{transform.Rules{Drop: []string{"stream", "http"}}, `drop "http"`},
		{transform.Rules{TempDir: "/tmp; user root"}, "tempDir"},
		{transform.Rules{Secrets: map[string]string{"authorization": "a;b"}},
			`secrets "authorization"`},
		{transform.Rules{Pass: map[string]string{"10.0.0.1": ""}}, `pass "10.0.0.1"`},
		{transform.Rules{AllowClients: []netip.Prefix{{}}}, "allowClients"},
		{transform.Rules{TrustVIPHeader: []netip.Prefix{{}}}, "trustVIPHeader"},
	} {
		_, err := transform.Transform(parse(t, oneFile("http {}")), c.rules)
		require.ErrorContains(t, err, c.want)
		require.ErrorIs(t, err, transform.ErrInvalid)
	}
}

func TestWriteTo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "out")
	rules := transform.Rules{Listen: map[int]int{80: 8080}, Snippets: short}
	write := func(files fstest.MapFS) error {
		result, err := transform.Transform(parse(t, files), rules)
		require.NoError(t, err)
		return result.WriteTo(dir)
	}
	first := fstest.MapFS{"nginx.conf": {Data: []byte("http { include d/*.conf; }")},
		"d/a.conf": {Data: []byte("gzip on;")}, "d/b.conf": {Data: []byte("sendfile on;")}}
	require.NoError(t, write(first))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600))
	delete(first, "d/a.conf")
	require.NoError(t, write(first))
	require.NoFileExists(t, filepath.Join(dir, "d/a.conf"))
	require.FileExists(t, filepath.Join(dir, "d/b.conf"))
	require.FileExists(t, filepath.Join(dir, "notes"))

	other := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(other, "precious"), nil, 0o600))
	dir = other
	require.ErrorContains(t, write(first), "not empty and holds no earlier transform")
	require.NoError(t, os.WriteFile(filepath.Join(other, "sluice.conf"), []byte("mine"), 0o600))
	require.ErrorContains(t, write(first),
		"sluice.conf is there and is not of an earlier transform")
}

func ExampleTransform() {
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(`http {
    upstream hello_web {
        server 10.0.0.1:80;
        keepalive 16;
    }
    server {
        listen 80;
        location / {
            proxy_pass http://hello_web/v/;
        }
    }
}
`)}}, "nginx.conf")
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := transform.Transform(tree, transform.Rules{
		Listen:       map[int]int{80: 8080},
		AllowClients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Snippets: transform.Snippets{Upstream: func(u transform.Upstream) string {
			return "server 0.0.0.1;\nbalancer_by_lua_block { balance(\"" + u.Cluster + "\") }"
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(result.Summary())
	fmt.Println(result.Files["nginx.conf"])
	// Output:
	// nginx.conf:1: log-format: the built-in access log is stated
	// nginx.conf:1: generated: includes sluice.conf, which holds what the driver and the rules add
	// nginx.conf:2: upstream: cluster hello_web: 1 servers give way to the driver
	// nginx.conf:4: keepalive: the versions on all VIPs share 256 connections, production's 16 times 16
	// nginx.conf:6: clients: answers 403 to clients outside of allowClients
	// nginx.conf:7: listen: the test Nginx listens on 8080, on all addresses: the VIP of a request is the address it came to
	// http {
	//     upstream hello_web {
	//         server 0.0.0.1;
	//         balancer_by_lua_block { balance("hello_web") }
	//         keepalive 256;
	//     }
	//     server {
	//         if ($sluice_client = 0) {
	//             return 403;
	//         }
	//         listen 8080;
	//         location / {
	//             proxy_pass http://hello_web/v/;
	//         }
	//     }
	//     include sluice.conf;
	// }
}

// A directory that the rules put into that of a cache is refused, unless it is there in production.
func TestDirectoriesOfCaches(t *testing.T) {
	t.Parallel()
	const cache = "proxy_cache_path /c/a keys_zone=a:1m;\n"
	for _, c := range []struct{ http, tempDir, want string }{
		{cache + "client_body_temp_path /d/a;", "", "nginx.conf:2:1: client_body_temp_path /d/a " +
			"becomes /t/a, " +
			"which the cache of nginx.conf:1 (proxy_cache_path /c/a) has"},
		{cache + "fastcgi_temp_path /d/a/b/;", "", "becomes /t/a/b/, which the cache of"},
		{cache + "uwsgi_cache_path /d/a/ keys_zone=b:1m;", "", "uwsgi_cache_path /d/a/ becomes " +
			"/t/a/"},
		{cache, "/t/a/", "tempDir becomes /t/a/client_body"},
		{cache + "proxy_temp_path /d/ab;", "/t/b", ""},
		{cache + "proxy_temp_path /c/a/temp;", "", ""},
	} {
		_, err := transform.Transform(parse(t, oneFile("http { "+c.http+" }")), transform.Rules{
			Paths: map[string]string{"/c/": "/t/", "/d/": "/t/"}, TempDir: c.tempDir})
		if c.want == "" {
			require.NoError(t, err, c.http)
			continue
		}
		require.ErrorContains(t, err, c.want, c.http)
	}
}
