package transform_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// Sockets of production that become one mean the same there, or the tree is refused with both
// places.
func TestListensThatBecomeOne(t *testing.T) {
	t.Parallel()
	const at1, at2 = "server { listen 10.1.1.1:80; server_name a.x; }\n",
		"server { listen 10.1.1.2:80; server_name A.x b.x; }\n"
	for _, c := range []struct {
		name, http string
		rules      transform.Rules
		want       []string // in the tree, or in the error if it begins with "!"
	}{
		{"one name on two addresses", at1 + at2, transform.Rules{}, []string{
			"!nginx.conf:2:10: listen 10.1.1.2:80: it and 10.1.1.1:80 both become 8080, and a.x " +
				"is another server there (nginx.conf:1",
		}},
		{"one name on two addresses, a port for one", at1 + at2,
			transform.Rules{ListenAt: map[string]int{"10.1.1.2:80": 8081}},
			[]string{"listen 8080;", "listen 8081;"}},
		{"a port for all addresses", "server { listen 80; server_name a.x; }\n" + at2,
			transform.Rules{ListenAt: map[string]int{"*:80": 8081}},
			[]string{"listen 8081;", "listen 8080;"}},
		{"defaults by order", at1 + "server { listen 10.1.1.2:80; server_name b.x; }",
			transform.Rules{}, []string{
				"!nginx.conf:2:10: listen 10.1.1.2:80: it and 10.1.1.1:80 both become 8080, and " +
					"unknown hosts go to another server there (nginx.conf:1",
			}},
		{"a default that the rules name", at1 + "server { listen 10.1.1.2:80 default_server; " +
			"server_name b.x; }", transform.Rules{DefaultServer: map[string]string{"8080": "a.x"}},
			[]string{
				"listen 8080 default_server; server_name a.x;", "listen 8080; server_name b.x;",
			}},
		{"a default that no server is", at1,
			transform.Rules{DefaultServer: map[string]string{"8080": "c.x"}},
			[]string{`!the rules name "c.x" under defaultServer for 8080`}},
		{"two defaults", "server { listen 10.1.1.1:80 default_server; }\nserver { listen " +
			"10.1.1.2:80 default_server; server_name b.x; }", transform.Rules{},
			[]string{"!a second default server for 8080 after nginx.conf:1"}},
		{"wildcard and address", "server { listen 80; server_name a.x; }\nserver { listen " +
			"10.1.1.1:80; server_name b.x; }", transform.Rules{},
			[]string{"!unknown hosts go to another server"}},
		{"all servers on both", "server { listen 80; listen 10.1.1.1:80; server_name a.x; " +
			"}\nserver { listen 80; listen 10.1.1.1:80; server_name b.x; }", transform.Rules{},
			[]string{"listen 8080;  server_name b.x;"}},
		{"a server on both, another on one", "server { listen 80; listen 10.1.1.1:80; " +
			"server_name a.x; }\nserver { listen 80; server_name b.x; }", transform.Rules{},
			[]string{"listen 8080; server_name b.x;"}},
		{"IPv4 beside IPv6", "server { listen [::]:80 default_server; server_name six.x; " +
			"}\nserver { listen 80 default_server; server_name four.x; }", transform.Rules{},
			[]string{
				"listen [::]:8080 default_server;", "listen 8080 default_server;",
			}},
		{"QUIC beside TLS", "server { listen 443 quic reuseport; listen 443 ssl; add_header " +
			"Alt-Svc 'h3=\":443\"; ma=86400'; }", transform.Rules{}, []string{
			"listen 8443 quic reuseport;", "listen 8443 ssl;", `h3=\":8443\"`,
		}},
		{"QUIC of two servers", "server { listen 443 quic reuseport; listen 443 ssl; server_name " +
			"a.x; }\nserver { listen 443 quic; listen 443 ssl; server_name b.x; }",
			transform.Rules{}, []string{
				"listen 8443 quic; listen 8443 ssl; server_name b.x;",
			}},
		{"TLS on one address only", "server { listen 10.1.1.1:443 ssl; }\nserver { listen " +
			"10.1.1.2:443; }", transform.Rules{}, []string{"!both become 8443, and one of them " +
			"is TLS"}},
		{"a range of ports", "server { listen 10.1.1.1:81-83 default_server; }", transform.Rules{},
			[]string{"listen 9081-9083 default_server;"}},
		{"a range that is none", "server { listen 83-84; }", transform.Rules{},
			[]string{"!listen 83-84: the rules map port 83 to 9083 and port 84 to 9184: want a " +
				"range"}},
		{"a port of a range on another address", "server { listen 10.1.1.1:81-83; server_name " +
			"a.x; }\nserver { listen 10.1.1.2:82; server_name a.x; }", transform.Rules{},
			[]string{"!listen 10.1.1.2:82: it and 10.1.1.1:82 both become 9082, and a.x is another " +
				"server there (nginx.conf:1", "!unknown hosts go to another server"}},
		{"two ranges on two addresses", "server { listen 10.1.1.1:81-82 default_server; }\n" +
			"server { listen 10.1.1.2:82-83 default_server; server_name b.x; }", transform.Rules{},
			[]string{"!listen 10.1.1.2:82: it and 10.1.1.1:82 both become 9082, and unknown hosts"}},
		{"a port of a range on the same address", "server { listen 81-83; server_name a.x; }\n" +
			"server { listen 82; server_name b.x; }", transform.Rules{},
			[]string{"listen 9081-9083; server_name a.x; }", "listen 9082; server_name b.x;"}},
		{"a port beside a range", "server { listen 10.1.1.1:81-82; server_name a.x; }\n" +
			"server { listen 10.1.1.2:83; listen 10.1.1.2:82 quic; server_name b.x; }",
			transform.Rules{}, []string{"listen 9083; listen 9082 quic;"}},
		{"Alt-Svc of another host", "server { listen 443; add_header Alt-Svc 'h2=\"b.x:443\", " +
			"h3-29=\":443\", h3=\":444\"'; }", transform.Rules{},
			[]string{`h2=\"b.x:443\", h3-29=\":8443\", h3=\":444\"`}},
		{"Alt-Svc in a map, in a set, by more_set_headers", "map $a $b { default 'h3=\":443\"'; " +
			"}\nserver { listen 443; set $c 'h3=\":443\"; ma=1'; more_set_headers " +
			"'Alt-Svc: h3=\":443\"' 'X-Y: h3=\":443\"'; add_header X-Z 'h3=\":443\"'; }",
			transform.Rules{}, []string{`default h3=":8443";`, `set $c "h3=\":8443\"; ma=1";`,
				`"Alt-Svc: h3=\":8443\"" 'X-Y: h3=":443"';`, `X-Z 'h3=":443"';`}},
		{"proxy_protocol", "server { listen 80 proxy_protocol; }", transform.Rules{},
			[]string{"listen 8080;"}},
		{"proxy_protocol that stays", "server { listen 80 proxy_protocol; }",
			transform.Rules{KeepProxyProtocol: true}, []string{"listen 8080 proxy_protocol;"}},
		{"a unix socket", "server { listen unix:/run/a.sock; }",
			transform.Rules{Paths: map[string]string{"unix:/run/": "unix:/srv/"}},
			[]string{"listen unix:/srv/a.sock;"}},
		{"a unix socket that is left out", "server { listen unix:/run/a.sock; listen 80; }",
			transform.Rules{Paths: map[string]string{"unix:/run/": "off"}},
			[]string{"listen 8080;"}},
		{"only a unix socket that is left out", "server { listen unix:/run/a.sock; }",
			transform.Rules{Paths: map[string]string{"unix:/run/": "off"}},
			[]string{"!without any listen Nginx would take port 80"}},
		{"VIPs for one address", at1 + at2, vipsFor("10.1.1.2", "10.9.2.4/31"), []string{
			"listen 8080; server_name a.x;",
			"listen 10.9.2.4:8080;\nlisten 10.9.2.5:8080; server_name A.x b.x;"}},
		{"VIPs for a range of ports and TLS", "server { listen 10.1.1.2:81-83 default_server; " +
			"listen " +
			"10.1.1.2:443 ssl reuseport; }", vipsFor("10.1.1.2", "10.9.2.4/32"), []string{
			"listen 10.9.2.4:9081-9083 default_server; listen 10.9.2.4:8443 ssl;"}},
		{"VIPs for IPv6 over QUIC", "server { listen [fd00::2]:443 quic; listen [fd00::2]:443 " +
			"ssl; }",
			vipsFor("[fd00::2]", "fd00:9::4/128"), []string{
				"listen [fd00:9::4]:8443 quic; listen [fd00:9::4]:8443 ssl;"}},
		{"VIPs of both addresses in common", at1 + at2,
			transform.Rules{VIPsAt: map[string]netip.Prefix{
				"10.1.1.1": netip.MustParsePrefix("10.9.2.4/32"),
				"10.1.1.2": netip.MustParsePrefix("10.9.2.4/32")}}, []string{
				"!it and 10.1.1.1:80 both become 10.9.2.4/32:8080, and a.x is another server"}},
		{"two defaults for one address",
			"server { listen 10.1.1.1:80 default_server; }\nserver { " +
				"listen 10.1.1.2:80 default_server; server_name b.x; }",
			vipsFor("10.1.1.1", "10.9.2.4/32"), []string{"listen 10.9.2.4:8080 default_server;",
				"listen 8080 default_server; server_name b.x;"}},
		{"socket options of two addresses", "server { listen 10.1.1.1:80 multipath; listen 10.1.1.2:80; " +
			"server_name a.x; }\nserver { listen 10.1.1.1:80; listen 10.1.1.2:80 multipath; " +
			"server_name b.x; }", transform.Rules{}, []string{"listen 8080 multipath;",
			"listen 8080;  server_name b.x;"}},
		{"a server without listen is another default", "server { server_name a.x; }\nserver { " +
			"listen 10.0.0.1:80; server_name b.x; }", transform.Rules{},
			[]string{"!unknown hosts go to another server"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.rules.Listen = map[int]int{80: 8080, 443: 8443, 81: 9081, 82: 9082, 83: 9083,
				84: 9184}
			result, err := transform.Transform(parse(t, oneFile("http { "+c.http+" }")), c.rules)
			for _, want := range c.want {
				if want[0] == '!' {
					require.ErrorContains(t, err, want[1:])
					continue
				}
				require.NoError(t, err)
				require.Contains(t, result.Files["nginx.conf"], want)
			}
		})
	}
}

func vipsFor(address, network string) transform.Rules {
	return transform.Rules{VIPsAt: map[string]netip.Prefix{address: netip.MustParsePrefix(network)}}
}

// The directives for ports on which only some VIPs are answered, so that Nginx opens one socket.
func TestSocketOfAllVIPs(t *testing.T) {
	t.Parallel()
	for http, want := range map[string]string{
		"listen 10.1.1.2:80;":                        "    listen 8080;\n    default_type",
		"listen 10.1.1.2:80; listen 80;":             "",
		"listen 10.1.1.2:80; listen 10.7.7.7:80-81;": "",
		"listen 10.1.1.2:80-82; listen 81;": "    listen 8080;\n    listen " +
			"8082;\n    default",
		"listen 10.1.1.2:80; listen [::]:80;": "    listen 8080;\n    default",
		"listen 10.1.1.2:81 quic; listen 81;": "    listen 8081 quic;\n    " +
			"ssl_reject_handshake on;",
		"listen 10.1.1.2:81 quic; listen 10.1.1.2:81 ssl;": "    listen 8081 quic;\n    " +
			"listen 8081;\n    ssl_reject",
		"listen 10.1.1.2:80; } server { listen 10.1.1.2:80; ": "    listen 8080;\n    default_type",
	} {
		rules := vipsFor("10.1.1.2", "10.9.2.4/31")
		rules.Listen = map[int]int{80: 8080, 81: 8081, 82: 8082}
		result, err := transform.Transform(parse(t, oneFile("http { server { "+http+" } }")), rules)
		require.NoError(t, err)
		if want == "" {
			require.NotContains(t, result.Files[transform.Generated], "server {", http)
		} else {
			require.Contains(t, result.Files[transform.Generated], want, http)
		}
	}
}
