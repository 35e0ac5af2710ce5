//go:build linux

package luadriver_test

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// contents are the names and texts of all files below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		found[path] = string(text)
		return err
	}))
	return found
}

// Uploads, deletes, logs, temporary files and stored answers of the transformed tree come to the
// mapped places, and nothing in production's directories changes.
func TestNothingIsWrittenInProduction(t *testing.T) {
	t.Parallel()
	dir := nginxtest.Dir(t)
	production, mine := filepath.Join(dir, "production"), filepath.Join(dir, "mine")
	for _, d := range []string{production, mine} {
		for _, sub := range []string{"share", "logs", "bodies", "temp", "store"} {
			require.NoError(t, os.MkdirAll(filepath.Join(d, sub), 0o777))
			require.NoError(t, os.Chmod(filepath.Join(d, sub), 0o777)) // whatever the umask is
		}
		file := filepath.Join(d, "share", "page.html")
		require.NoError(t, os.WriteFile(file, []byte("page"), 0o666))
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	certificate := nginxtest.Pair(t, dir)
	text := strings.NewReplacer("PRODUCTION", production, "PAIR",
		certificate).Replace(`
error_log logs/relative-error.log info;
events { }
http {
    access_log logs/relative.log;
    upstream a { server 10.9.9.1:80; }
    proxy_temp_path PRODUCTION/temp;
    client_body_temp_path PRODUCTION/bodies;
    server {
        listen 80;
        listen 443 ssl;
        ssl_certificate PAIR;
        ssl_certificate_key PAIR;
        root PRODUCTION/share;
        access_log PRODUCTION/logs/access.log;
        error_log PRODUCTION/logs/error.log debug;
        location /upload/ { alias PRODUCTION/share/; dav_methods PUT DELETE MKCOL COPY MOVE; create_full_put_path on; dav_access user:rw group:rw all:r; }
        location /bodies/ { client_body_in_file_only on; proxy_pass http://a; }
        location /store/ { proxy_store PRODUCTION/store$uri; proxy_pass http://a; }
        location / { try_files $uri @a; }
        location @a { proxy_pass http://a; }
    }
}
`)
	require.NoError(t, os.Mkdir(filepath.Join(production, "logs", "logs"), 0o777))
	before := contents(t, production)
	tls := nginxtest.Port(t)
	b := startTree(t, text, transform.Rules{Listen: map[int]int{443: tls}, Paths: map[string]string{
		production: mine, certificate: certificate, "logs/": mine + "/logs/"}})
	b.push(t, 1, one("i1", "v1", nginxtest.Backend(t, "one")), nil)
	do := func(method, path, body string, header ...string) int {
		req, err := http.NewRequestWithContext(t.Context(), method,
			fmt.Sprintf("http://%s:%d%s", vipA, b.port, path), strings.NewReader(body))
		require.NoError(t, err)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		req.Close = true
		resp, err := http.DefaultTransport.RoundTrip(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		return resp.StatusCode
	}
	require.Equal(t, 201, do("PUT", "/upload/new/file.txt", "uploaded"))
	require.Equal(t, 204, do("COPY", "/upload/page.html", "", "Destination",
		"/upload/copy.html"))
	require.Equal(t, 204, do("DELETE", "/upload/page.html", ""))
	require.Equal(t, 200, do("POST", "/bodies/x", strings.Repeat("body ", 4000)))
	require.Equal(t, 200, do("GET", "/store/page", ""))
	require.Equal(t, 200, do("GET", "/copy.html", ""))
	conn, err := net.Dial("tcp", netip.AddrPortFrom(vipA, uint16(tls)).String())
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.Equal(t, before, contents(t, production))
	after := contents(t, mine)
	require.Equal(t, "uploaded", after[mine+"/share/new/file.txt"])
	require.Equal(t, "page", after[mine+"/share/copy.html"])
	require.NotContains(t, after, mine+"/share/page.html")
	require.Contains(t, after[mine+"/logs/access.log"], "PUT /upload/new/file.txt")
	require.Contains(t, after, mine+"/logs/relative-error.log")
}

// Routing by names that look like secrets is the same in production and in the transformed tree.
func TestNamesOfSecretsRouteAsInProduction(t *testing.T) {
	t.Parallel()
	addr := echo(t, "web")
	tokens := echo(t, "tokens")
	sample := nginxtest.Sample{Servers: `
map $host $token_upstream { default web; auth.x web_token_pool; }
map $http_x_kind $secret_kind { default 0; long-lived-kind 1; }
server {
    listen 80;
    location / { proxy_pass http://$token_upstream; }
    location /set/ { set $access_token_pool "web_token_pool"; proxy_pass http://$access_token_pool; }
    location = /reset { rewrite ^/reset$ /p?token_type=recovery_link last; }
    location /moved/ { return 302 /login?next_token_page=account_tokens; }
    location /if/ { if ($http_x_kind = "long-lived-kind") { return 418; } proxy_pass http://web; }
    location /mapped/ { if ($secret_kind) { return 403; } proxy_pass http://web; }
    location /docs/ { add_header X-Api-Key-Docs "https://docs.example/keys"; proxy_set_header X-Token-Issuer "https://sso.example/realms/a"; proxy_pass http://web; }
    location ~ ^/token/(?<api_key>[0-9]+)$ { proxy_pass http://web/k/$api_key?secret_path=$uri; }
}
`}
	upstreams := fmt.Sprintf("upstream web { server %s; }\nupstream web_token_pool { server %s; }\n",
		addr, tokens)
	baseline := map[string][]nginxsync.Instance{"web": {{ID: "1", Addr: addr}},
		"web_token_pool": {{ID: "2", Addr: tokens}}}
	production := faithfulStart(t, sample, upstreams, transform.Snippets{}, baseline)
	transformed := faithfulStart(t, sample, upstreams,
		luadriver.Snippets(luadriver.SnippetConfig{Socket: "/replaced"}), baseline)
	for path, want := range map[string]string{"/": "200", "/set/x": "tokens", "/reset": "200",
		"/moved/": "account_tokens", "/if/": "200", "/mapped/": "200", "/docs/": "https://docs",
		"/token/17": "/k/17"} {
		for _, host := range []string{"auth.x", "other.x"} {
			for _, kind := range []string{"", "long-lived-kind"} {
				r := nginxtest.Request{Host: host, Path: path, Kind: kind}
				answer := production(r)
				require.Equal(t, answer, transformed(r), "%+v", r)
				if kind == "" {
					require.Contains(t, answer, want, "%+v", r)
				}
			}
		}
	}
}

// greet is a TCP server that writes a line to each client and ends.
func greet(t *testing.T, line string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, line)
			c.Close()
		}
	}()
	return l.Addr().String()
}

// stream and mail blocks are refused with their places, run as they are where the rules accept
// them, and open no port where the rules drop them.
func TestStreamAndMailByRule(t *testing.T) {
	t.Parallel()
	testbed.NeedFile(t, nginx.Modules+"/ngx_stream_module.so", "libnginx-mod-stream")
	testbed.NeedFile(t, nginx.Modules+"/ngx_mail_module.so", "libnginx-mod-mail")
	database := greet(t, "the database")
	for _, rule := range []string{"", "accept", "drop"} {
		streamPort, mailPort := nginxtest.Port(t), nginxtest.Port(t)
		text := fmt.Sprintf(`load_module modules/ngx_stream_module.so;
load_module %[1]s/ngx_mail_module.so;
events { }
stream {
    upstream database { server %[2]s; }
    server { listen %[3]d; proxy_pass database; }
}
mail {
    server_name mail.example;
    auth_http 127.0.0.1:1/auth;
    server { listen %[4]d; protocol smtp; smtp_auth none; }
}
http {
    upstream a { server 10.9.9.1:80; }
    server { listen 80; location / { proxy_pass http://a; } }
}
`, nginx.Modules, database, streamPort, mailPort)
		var rules transform.Rules
		switch rule {
		case "":
			tree, err := conf.Parse(fstest.MapFS{"nginx.conf": {Data: []byte(text)}}, "nginx.conf")
			require.NoError(t, err)
			_, err = transform.Transform(tree, transform.Rules{Listen: map[int]int{80: 80},
				Snippets: luadriver.Snippets(luadriver.SnippetConfig{Socket: "/s"})})
			require.ErrorContains(t, err, "nginx.conf:4:1: stream block")
			require.ErrorContains(t, err, "nginx.conf:8:1: mail block")
			continue
		case "accept":
			rules.Accept = []string{"stream", "mail"}
		case "drop":
			rules.Drop = []string{"stream", "mail"}
		}
		b := startTree(t, text, rules)
		b.push(t, 1, one("i1", "v1", nginxtest.Backend(t, "one")), nil)
		require.Equal(t, served{Status: 200, Body: "one /p", Version: "v1"},
			b.ask(t, vipA, "/p"))
		for port, want := range map[int]string{streamPort: "the database\n",
			mailPort: "220 mail.example ESMTP ready\r\n"} {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if rule == "drop" {
				require.Error(t, err)
				continue
			}
			require.NoError(t, err)
			require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
			line := make([]byte, len(want))
			_, err = io.ReadFull(c, line)
			require.NoError(t, err)
			require.Equal(t, want, string(line))
			require.NoError(t, c.Close())
		}
	}
}
