//go:build linux

package luadriver_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// echo is a backend that answers with all that it saw.
func echo(t testing.TB, name string) netip.AddrPort {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lines := []string{name, r.Method, r.RequestURI, r.Proto, "host: " + r.Host}
		for key, values := range r.Header {
			if key != "X-Env-Vip" {
				lines = append(lines, fmt.Sprint(key, values))
			}
		}
		slices.Sort(lines[5:])
		w.Header().Set("Location", "http://"+r.Host+"/in/redirected")
		fmt.Fprint(w, strings.Join(lines, "\n"))
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// Every request reaches the same upstream with the same URI and the same headers through the
// transformed tree as through the production tree, and the answer comes back the same, the added
// headers aside.
func TestTransformIsFaithful(t *testing.T) {
	t.Parallel()
	for seed := range uint64(45) { // 66 requests each
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			sample := nginxtest.Generate(rand.New(rand.NewPCG(seed, 1)))
			baseline := map[string][]nginxsync.Instance{}
			var upstreams strings.Builder
			for _, name := range sample.Upstreams {
				addr := echo(t, name)
				baseline[name] = []nginxsync.Instance{{ID: name, Addr: addr}}
				fmt.Fprintf(&upstreams, "upstream %s { server %s; }\n", name, addr)
			}
			production := faithfulStart(t, sample, upstreams.String(), transform.Snippets{},
				baseline)
			transformed := faithfulStart(t, sample, upstreams.String(),
				luadriver.Snippets(luadriver.SnippetConfig{Socket: "/replaced"}), baseline)
			for _, r := range sample.Requests {
				require.Equal(t, production(r), transformed(r), "%+v\n%s", r, sample.Servers)
			}
		})
	}
}

// A target that is a variable, which another location sets again within the same request, is held
// to upstreams again as well.
func TestTargetSetAnewIsFaithful(t *testing.T) {
	t.Parallel()
	request := nginxtest.Request{Host: "bj.city.example", Path: "/a"}
	sample := nginxtest.Sample{Servers: `server {
    listen 80;
    location / { set $pool dead; error_page 502 = @anew; proxy_pass http://$pool; }
    location @anew { set $pool one; proxy_pass http://$pool; }
}
`}
	dead, one := netip.MustParseAddrPort("127.0.0.1:1"), echo(t, "one")
	baseline := map[string][]nginxsync.Instance{"dead": {{ID: "dead", Addr: dead}},
		"one": {{ID: "one", Addr: one}}}
	upstreams := fmt.Sprintf("upstream dead { server %s; }\nupstream one { server %s; }\n", dead,
		one)
	production := faithfulStart(t, sample, upstreams, transform.Snippets{}, baseline)
	transformed := faithfulStart(t, sample, upstreams,
		luadriver.Snippets(luadriver.SnippetConfig{Socket: "/replaced"}), baseline)
	require.Contains(t, production(request), "200")
	require.Equal(t, production(request), transformed(request))
}

// Numbered captures are there where production has them: those of a server's name in its locations,
// those of a location behind an internal redirect.
func TestCapturesAreFaithful(t *testing.T) {
	t.Parallel()
	names := nginxtest.Request{Host: "bj.city.example", Path: "/a"}
	pages := nginxtest.Request{Host: "else", Path: "/p/q"}
	sample := nginxtest.Sample{Servers: `server {
    listen 80;
    server_name ~^(\w+)\.(city)\.;
    location / { proxy_pass http://one/$2/$1; }
}
server {
    listen 80 default_server;
    error_page 404 /page;
    location ~ ^/(.)/(.)$ { return 404; }
    location /page { proxy_pass http://one/$2/$1; }
}
`}
	one := echo(t, "one")
	baseline := map[string][]nginxsync.Instance{"one": {{ID: "one", Addr: one}}}
	upstreams := fmt.Sprintf("upstream one { server %s; }\n", one)
	production := faithfulStart(t, sample, upstreams, transform.Snippets{}, baseline)
	transformed := faithfulStart(t, sample, upstreams,
		luadriver.Snippets(luadriver.SnippetConfig{Socket: "/replaced"}), baseline)
	require.Contains(t, production(names), "/city/bj")
	require.Equal(t, production(names), transformed(names))
	require.Contains(t, production(pages), "/q/p")
	require.Equal(t, production(pages), transformed(pages))
}

// faithfulStart runs the production tree, on another port only, or its transform when snippets has
// a driver.
func faithfulStart(t *testing.T, sample nginxtest.Sample, upstreams string,
	snippets transform.Snippets,
	baseline map[string][]nginxsync.Instance) func(nginxtest.Request) string {
	return faithfulRules(t, sample, upstreams,
		transform.Rules{Pass: map[string]string{"$pool": "$pool"}, Snippets: snippets}, baseline)
}

// faithfulRules is faithfulStart with rules.
func faithfulRules(t *testing.T, sample nginxtest.Sample, upstreams string, rules transform.Rules,
	baseline map[string][]nginxsync.Instance) func(nginxtest.Request) string {
	dir, port := nginxtest.Dir(t), nginxtest.Port(t)
	main := fmt.Sprintf("pid %[1]s/pid;\ndaemon off;\nworker_processes 1;\nevents {}\nhttp {\n"+
		"access_log off;\nclient_body_temp_path %[1]s/1;\nproxy_temp_path "+
		"%[1]s/2;\nfastcgi_temp_path %[1]s/3;\nuwsgi_temp_path %[1]s/4;\nscgi_temp_path "+
		"%[1]s/5;\n%s%s}\n",
		dir, upstreams, sample.Servers)
	tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(main)}}, "nginx.conf")
	require.NoError(t, err)
	rules.Listen, rules.Paths = map[int]int{80: port}, map[string]string{dir: dir}
	if rules.Snippets.Upstream == nil {
		files, err := listenOn(tree, port)
		require.NoError(t, err)
		require.NoError(t, (&transform.Result{Main: "nginx.conf", Files: files}).WriteTo(
			filepath.Join(dir, "conf")))
		nginxtest.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))
	} else {
		cfg := luadriver.SnippetConfig{Socket: filepath.Join(dir, "admin.sock")}
		rules.Snippets = luadriver.Snippets(cfg)
		result, err := transform.Transform(tree, rules)
		require.NoError(t, err)
		require.NoError(t, result.WriteTo(filepath.Join(dir, "conf")))
		nginxtest.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))
		driver, err := luadriver.New(luadriver.Config{Socket: cfg.Socket})
		require.NoError(t, err)
		require.NoError(t, driver.Apply(t.Context(),
			nginxsync.NewRoutes(1, nginxsync.Snapshot{Baseline: baseline}).All()))
	}
	return func(r nginxtest.Request) string {
		status, header, body, err := nginxtest.GetKind(context.Background(),
			netip.AddrPortFrom(plain, uint16(port)), r)
		require.NoError(t, err)
		for _, name := range []string{"Date", "X-Sluice-Vip", "X-Sluice-Version"} {
			header.Del(name)
		}
		// A redirect of Nginx's own has the port that the client came to.
		return strings.ReplaceAll(fmt.Sprint(status, header, body), fmt.Sprint(port), "80")
	}
}

func listenOn(tree *conf.Tree, port int) (map[string]string, error) {
	edit := tree.Edit()
	for n := range tree.Find("http", "server", "listen") {
		edit.ReplaceArg(n.Directive, 0, fmt.Sprint(port))
	}
	return edit.Files()
}
