//go:build linux

package transform_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// Two addresses of production with servers of the same name are told apart by the VIP, on one port,
// whether or not a server listens on all addresses. Any other VIP stands for neither.
func TestVIPsStandForAddresses(t *testing.T) {
	t.Parallel()
	const both = `server { listen 10.1.1.1:80 backlog=9; server_name www.x; return 200 "one $server_addr"; }
server { listen 10.1.1.2:80 default_server; listen 10.1.1.2:82; server_name www.x;
    return 200 two; }
server { listen 10.1.1.2:80; server_name b.x; return 200 b; }
server { listen [fd00::1]:80; server_name www.x; return 200 six; }
`
	for name, c := range map[string]struct{ more, other string }{
		"addresses only": {"", "Production listens on no address"},
		"beside a server of any": {"server { listen 80; server_name www.x; return 200 any; }",
			"any"},
		"beside another port": {"server { listen 83; return 200 any; }",
			"Production listens on"},
		"beside all of IPv6 though": {"server { listen [::]:80; return 200 any; }",
			"Production listens"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := nginxtest.Dir(t)
			rules := transform.Rules{Paths: map[string]string{dir: dir}, Listen: map[int]int{},
				Main: map[string]string{"user": "", "pid": filepath.Join(dir, "pid"),
					"daemon": "off"},
				VIPsAt: map[string]netip.Prefix{
					"10.1.1.1":  netip.MustParsePrefix("127.61.1.0/28"),
					"10.1.1.2":  netip.MustParsePrefix("127.61.2.0/30"),
					"[fd00::1]": netip.MustParsePrefix("::1/128"),
				}}
			for i := range 4 {
				rules.Listen[80+i] = nginxtest.Port(t)
			}
			text := fmt.Sprintf("worker_processes 1;\nevents {}\nhttp {\naccess_log off;\n"+
				"client_body_temp_path %[1]s/1;\nproxy_temp_path %[1]s/2;\n"+
				"fastcgi_temp_path %[1]s/3;\nuwsgi_temp_path %[1]s/4;\n"+
				"scgi_temp_path %[1]s/5;\n%[2]s%[3]s\n}\n", dir, both, c.more)
			result, err := transform.Transform(parse(t, oneFile(text)), rules)
			require.NoError(t, err)
			require.NoError(t, result.WriteTo(filepath.Join(dir, "conf")))
			nginxtest.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))
			for _, ask := range []struct {
				vip  string
				port int
				host string
				want string
			}{
				{"127.61.1.0", 80, "www.x", "one 127.61.1.0"},
				{"127.61.1.15", 80, "b.x", "one 127.61.1.15"},
				{"127.61.2.1", 80, "www.x", "two"}, {"127.61.2.3", 80, "b.x", "b"},
				{"127.61.2.1", 80, "other.x", "two"}, {"127.61.2.2", 82, "b.x", "two"},
				{"127.61.2.4", 80, "www.x", c.other}, {"127.61.1.16", 80, "b.x", c.other},
				{"::1", 80, "www.x", "six"},
			} {
				addr := netip.AddrPortFrom(netip.MustParseAddr(ask.vip),
					uint16(rules.Listen[ask.port]))
				status, header, body, err := nginxtest.Get(t.Context(), addr, ask.host, "/")
				require.NoError(t, err)
				require.Contains(t, body, ask.want, "%v", ask)
				if ask.want[0] == 'P' {
					require.Equal(t, http.StatusNotFound, status)
					require.Equal(t, "no-address", header.Get("X-Sluice-Reason"))
				}
			}
		})
	}
}
