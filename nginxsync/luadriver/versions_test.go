//go:build linux

package luadriver_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// refusedBy returns the message of nginx -t about a configuration.
func refusedBy(t *testing.T, text string) string {
	t.Helper()
	dir := nginxtest.Dir(t)
	main := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(main, []byte(text), 0o600))
	out, err := exec.Command(testbed.NeedProgram(t, "nginx", "nginx"), "-t", "-p", dir, "-c", main,
		"-e", "stderr").CombinedOutput()
	require.Error(t, err, text)
	return string(out)
}

// HTTP/3 and HTTP/2 lead to the version of the VIP as HTTP/1.1 does, for the servers of one socket.
// A Nginx before 1.25 knows no QUIC and says so.
func TestQUICServesTheVersionOfTheVIP(t *testing.T) {
	t.Parallel()
	dir := nginxtest.Dir(t)
	certificate := nginxtest.Pair(t, dir)
	text := strings.ReplaceAll(`
events { }
http {
    upstream a { server 10.9.9.1:80; }
    upstream b { server 10.9.9.2:80; }
    ssl_certificate PAIR;
    ssl_certificate_key PAIR;
    http2 on;
    server {
        listen 443 quic reuseport;
        listen 443 ssl;
        listen 80;
        server_name a.x;
        add_header Alt-Svc 'h3=":443"; ma=86400' always;
        location / { proxy_pass http://a; }
    }
    server {
        listen 443 quic;
        listen 443 ssl;
        server_name b.x;
        http3 on;
        quic_gso off;
        ssl_early_data on;
        location / { proxy_pass http://b; }
    }
}
`, "PAIR", certificate)
	if !nginx.Since(t, 1, 25, 1) {
		require.Contains(t, refusedBy(t, text), `unknown directive "http2"`)
		require.Contains(t, refusedBy(t, strings.ReplaceAll(text, "http2 on;", "")),
			`invalid parameter "quic"`)
		return
	}
	tls := nginxtest.Port(t)
	b := startTree(t, text, transform.Rules{Listen: map[int]int{443: tls},
		Paths: map[string]string{dir: dir}})
	baseline := map[string][]nginxsync.Instance{}
	overlays := map[netip.Addr]map[string][]nginxsync.Instance{vipA: {}, vipB: {}}
	for _, cluster := range []string{"a", "b"} {
		baseline[cluster] = one("0"+cluster, "v0", nginxtest.Backend(t, cluster+"0"))
		overlays[vipA][cluster] = one("1"+cluster, "v1", nginxtest.Backend(t, cluster+"1"))
		overlays[vipB][cluster] = one("2"+cluster, "v2", nginxtest.Backend(t, cluster+"2"))
	}
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1,
		nginxsync.Snapshot{Baseline: baseline, Overlays: overlays}).All()))
	curl := nginx.Curl(t)
	for flag, want := range map[string]string{"--http1.1": "1.1", "--http2": "2",
		"--http3-only": "3"} {
		for version, vip := range map[string]netip.Addr{"v0": plain, "v1": vipA, "v2": vipB} {
			for _, host := range []string{"a", "b"} {
				var out []byte
				// A busy machine may lose datagrams until curl gives up.
				nginxtest.Poll(t, fmt.Sprint("curl ", flag, " ", vip), func() (err error) {
					out, err = exec.CommandContext(t.Context(), curl, "--silent",
						"--show-error", "--insecure", "--max-time", "15", "--noproxy", "*", flag,
						"--connect-to", fmt.Sprintf("::%s:%d", vip, tls), "--write-out",
						"\n%{http_version}\n%header{x-sluice-version}\n%header{x-sluice-vip}\n"+
							"%header{alt-svc}", "https://"+host+".x/p").CombinedOutput()
					if err != nil {
						err = fmt.Errorf("%w: %s", err, out)
					}
					return err
				})
				lines := strings.Split(string(out), "\n")
				require.Len(t, lines, 5, string(out))
				require.True(t, strings.HasPrefix(lines[0], host+version[1:]+" /p "), string(out))
				require.Equal(t, []string{want, version, vip.String()}, lines[1:4], flag)
				if host == "a" {
					require.Equal(t, fmt.Sprintf(`h3=":%d"; ma=86400`, tls), lines[4])
				}
			}
		}
	}
}

// Blocks that say how they inherit headers answer with each added header once.
func TestAddedHeadersAreInherited(t *testing.T) {
	t.Parallel()
	const tree = `
events { }
http {
    upstream a { server 10.9.9.1:80; }
    add_header X-Top top always;
    server {
        listen 80;
        location / { proxy_pass http://a; }
        location /own/ { add_header X-Own own; proxy_pass http://a; }
        location /merge/ { INHERIT merge; add_header X-Own own; proxy_pass http://a; }
        location /off/ { INHERIT off; proxy_pass http://a; }
        location /in/ { INHERIT merge; add_header X-Own own; location /in/in/ { add_header X-Own own; proxy_pass http://a; } }
        location /cut/ { INHERIT off; location /cut/in/ { proxy_pass http://a; } }
    }
}
`
	text := strings.ReplaceAll(tree, "INHERIT", "add_header_inherit")
	if !nginx.Since(t, 1, 29, 3) {
		require.Contains(t, refusedBy(t, text), `unknown directive "add_header_inherit"`)
		for _, word := range []string{" INHERIT merge;", " INHERIT off;"} {
			text = strings.ReplaceAll(text, strings.ReplaceAll(word, "INHERIT",
				"add_header_inherit"), "")
		}
	}
	b := startTree(t, text, transform.Rules{})
	b.push(t, 1, one("i1", "v1", nginxtest.Backend(t, "one")), nil)
	for _, path := range []string{"/", "/own/", "/merge/", "/off/", "/in/in/", "/cut/in/"} {
		_, header, _, err := nginxtest.Get(t.Context(), netip.AddrPortFrom(vipA, uint16(b.port)),
			"x", path)
		require.NoError(t, err)
		require.Equal(t, []string{vipA.String()}, header.Values("X-Sluice-Vip"), path)
		require.Equal(t, []string{"v1"}, header.Values("X-Sluice-Version"), path)
	}
	require.Equal(t, http.StatusOK, b.ask(t, vipA, "/").Status)
}
