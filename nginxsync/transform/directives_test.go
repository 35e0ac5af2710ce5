package transform_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// mappedPaths covers the files that the trees of these tests write.
var mappedPaths = map[string]string{"/srv/": "/test/", "logs/": "/test/logs/", "off": "off"}

func TestWrites(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"relative log is mapped", "error_log logs/e.log warn;",
			"error_log /test/logs/e.log warn;"},
		{"a log in the file off is left out", "gzip on; error_log off;", "{ gzip on;"},
		{"access log goes off", "access_log logs/a.log;", "access_log /test/logs/a.log " +
			"sluice_combined;"},
		{"no log stays", "access_log off;", "access_log off;"},
		{"messages in memory stay", "error_log memory:32m debug;", "error_log memory:32m debug;"},
		{"state of a zone is mapped", "keyval_zone zone=k:32k state=/srv/k;",
			"keyval_zone zone=k:32k state=/test/k;"},
		{"zone without state stays", "keyval_zone zone=k:32k timeout=1h;",
			"keyval_zone zone=k:32k timeout=1h;"},
		{"key log is mapped", "ssl_key_log /srv/keys.log;", "ssl_key_log /test/keys.log;"},
		{"uploads below a mapped root stay", "root /srv/f; dav_methods PUT;",
			"root /test/f; dav_methods PUT;"},
		{"no uploads, no root", "dav_methods off;", "dav_methods off;"},
		{"bodies in a stated directory stay", "client_body_temp_path /srv/b; " +
			"client_body_in_file_only on;",
			"client_body_temp_path /test/b; client_body_in_file_only on;"},
		{"bodies that are removed stay", "client_body_in_file_only clean;",
			"client_body_in_file_only clean;"},
		{"a module that is off opens nothing", "auth_ldap off; rdns off;", "auth_ldap off; rdns " +
			"off;"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			result, err := transform.Transform(parse(t, oneFile("http { server { listen 80; "+
				c.text+" } }")),
				transform.Rules{Listen: map[int]int{80: 8080}, Paths: mappedPaths, Snippets: short})
			require.NoError(t, err)
			require.Contains(t, result.Files["nginx.conf"], strings.TrimPrefix(c.want, "{ "))
			if strings.HasPrefix(c.want, "{ ") {
				require.NotContains(t, result.Files["nginx.conf"], "error_log")
			}
			require.NotContains(t, result.Summary(), "unknown:")
		})
	}
}

func TestLogInTheFileOff(t *testing.T) {
	t.Parallel()
	result, err := transform.Transform(parse(t, oneFile("http { error_log off; }")),
		transform.Rules{Snippets: short})
	require.NoError(t, err)
	require.Contains(t, result.Files["nginx.conf"], "error_log /dev/null crit;")
	require.Contains(t, result.Summary(), "off names a file; the log goes to /dev/null")
}

func TestModulesOfTheBuiltInPrefix(t *testing.T) {
	t.Parallel()
	text := "load_module modules/ngx_http_geoip2_module.so; load_module /opt/x.so; " +
		"load_module modules/driver.so; http { }"
	result, err := transform.Transform(parse(t, oneFile(text)), transform.Rules{Snippets: short})
	require.NoError(t, err)
	require.Contains(t, result.Files["nginx.conf"], "load_module /modules/ngx_http_geoip2_module.so; "+
		"load_module /opt/x.so; load_module /modules/driver.so; http")
	require.Equal(t, 1, strings.Count(result.Files["nginx.conf"], "driver.so"))

	result, err = transform.Transform(parse(t, oneFile("load_module modules/a.so; http { }")),
		transform.Rules{Snippets: short, Paths: map[string]string{"modules/": "/own/"}})
	require.NoError(t, err)
	require.Contains(t, result.Files["nginx.conf"], "load_module /own/a.so;")
}

func TestUploadsAreAccepted(t *testing.T) {
	t.Parallel()
	result, err := transform.Transform(parse(t, oneFile("http { server { listen 80; root /other; "+
		"dav_methods PUT; } }")),
		transform.Rules{Listen: map[int]int{80: 8080}, Accept: []string{"dav_methods"},
			Snippets: short})
	require.NoError(t, err)
	require.Contains(t, result.Summary(), "accept: dav_methods is kept as it is")
}

func TestStateOfAZoneIsLeftOut(t *testing.T) {
	t.Parallel()
	result, err := transform.Transform(parse(t, oneFile("http { keyval_zone zone=k:32k "+
		"state=/srv/k timeout=1h; }")),
		transform.Rules{Paths: map[string]string{"/srv/k": "off"}, Snippets: short})
	require.NoError(t, err)
	require.Contains(t, result.Files["nginx.conf"], "keyval_zone zone=k:32k timeout=1h;")
	require.Contains(t, result.Summary(), "shared: what keyval_zone keeps is one for all VIPs "+
		"and versions")
}

// A block of another module that the rules accept is held to the rules of paths and code.
func TestAcceptedBlockOfAModule(t *testing.T) {
	t.Parallel()
	rules := transform.Rules{Accept: []string{"rtmp"}, Paths: mappedPaths, Snippets: short}
	const block = "rtmp { server { listen 1935; application live { record_path %s; %s } } }\n" +
		"http { }"
	result, err := transform.Transform(parse(t, oneFile(fmt.Sprintf(block, "/srv/r", "live on;"))),
		rules)
	require.NoError(t, err)
	require.Contains(t, result.Files["nginx.conf"], "record_path /test/r;")
	_, err = transform.Transform(parse(t, oneFile(fmt.Sprintf(block, "/var/r",
		"exec_push ffmpeg;"))), rules)
	require.ErrorContains(t, err, "record_path /var/r: nothing maps this path")
	require.ErrorContains(t, err, "exec_push: code can open connections")
}

// Pages that show the state of the Nginx give way to 404.
func TestStatusPages(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"prometheus all", "reqstat_show", "req_status_show", "slab_stat",
		"debug_pool", "push_stream_publisher admin",
		"push_stream_channels_statistics", "nchan_stub_status", "stub_status", "api /status/"} {
		text := "http { server { listen 80; location /s { " + page + "; } } }"
		result, err := transform.Transform(parse(t, oneFile(text)),
			transform.Rules{Listen: map[int]int{80: 8080}, Snippets: short})
		require.NoError(t, err, page)
		require.Contains(t, result.Files["nginx.conf"], "location /s { return 404; }", page)
	}
}

func TestUnknownDirectives(t *testing.T) {
	t.Parallel()
	unknown := func(text string, rules transform.Rules) (lines []string) {
		rules.Snippets, rules.Listen = short, map[int]int{80: 8080}
		result, err := transform.Transform(parse(t, oneFile(text)), rules)
		require.NoError(t, err)
		for _, c := range result.Changes {
			if c.Rule == "unknown" {
				lines = append(lines, c.At.String()+" "+c.Reason[:strings.Index(c.Reason, " ")])
			}
		}
		return lines
	}
	const text = "http {\nmap $a $b { surprise 1; }\ngeoip2 /x.mmdb { $country iso_code; " +
		"}\ntypes { text/x x; }\n" +
		"surprise on;\nserver { listen 80; surprise off;\nbox { inside 1; }\nlocation / { " +
		"soap_pass web; } }\nupstream web { odd 1; server 10.0.0.1; }\n}"
	require.Equal(t, []string{"nginx.conf:5 surprise", "nginx.conf:7 box"},
		unknown(text, transform.Rules{}))
	require.Equal(t, []string{"nginx.conf:7 box"},
		unknown(text, transform.Rules{Accept: []string{"surprise"}}))
	require.Empty(t, unknown(text, transform.Rules{Drop: []string{"surprise", "box"}}))
}
