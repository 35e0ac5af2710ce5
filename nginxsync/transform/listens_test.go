//go:build linux

package transform_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// webServer is a generated server, which answers with its number.
type webServer struct {
	listens []webListen
	names   []string
}

// webListen is a listen of a server: host is empty for the wildcard.
type webListen struct {
	host, flags string
	port        int
}

func (l webListen) value() string {
	if l.host == "" {
		return fmt.Sprint(l.port)
	}
	return fmt.Sprintf("%s:%d", l.host, l.port)
}

// webServers makes servers whose listens touch each other.
func webServers(r *rand.Rand, ports []int) (servers []webServer) {
	hosts := []string{"", "", "127.41.0.1", "127.41.0.2", "[::]", "[::1]"}
	for range 2 + r.IntN(3) {
		var s webServer
		for range 1 + r.IntN(3) {
			l := webListen{host: hosts[r.IntN(len(hosts))], port: ports[r.IntN(len(ports))]}
			if slices.ContainsFunc(s.listens, func(o webListen) bool {
				return o.value() == l.value()
			}) {
				continue
			}
			if r.IntN(4) == 0 {
				l.flags += " default_server"
			}
			if l.port == ports[len(ports)-1] && r.IntN(5) > 0 {
				l.flags += " ssl"
			}
			s.listens = append(s.listens, l)
		}
		for range r.IntN(3) {
			s.names = append(s.names, []string{"a.x", "B.x", ".a.x", "*.b.x", `""`,
				`~^c\d`}[r.IntN(6)])
		}
		servers = append(servers, s)
	}
	return servers
}

func webText(dir string, servers []webServer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "daemon off;\npid %[1]s/pid;\nworker_processes 1;\nevents {}\nhttp {\n"+
		"access_log off;\nclient_body_temp_path %[1]s/1;\nproxy_temp_path %[1]s/2;\n"+
		"fastcgi_temp_path %[1]s/3;\nuwsgi_temp_path %[1]s/4;\nscgi_temp_path %[1]s/5;\n"+
		"ssl_certificate %[1]s/pair.pem;\nssl_certificate_key %[1]s/pair.pem;\n", dir)
	for i, s := range servers {
		b.WriteString("server {\n")
		for _, l := range s.listens {
			fmt.Fprintf(&b, "listen %s%s;\n", l.value(), l.flags)
		}
		if len(s.names) > 0 {
			fmt.Fprintf(&b, "server_name %s;\n", strings.Join(s.names, " "))
		}
		fmt.Fprintf(&b, "location / { return 200 \"server %d over $scheme\"; }\n}\n", i)
	}
	b.WriteString("}\n")
	return b.String()
}

// webGet asks an address for a host, by TLS or not, and returns the answer in one line.
func webGet(ctx context.Context, addr, host string, overTLS bool) string {
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig: &tls.Config{ServerName: host, InsecureSkipVerify: true}}
	scheme := "http"
	if overTLS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/", nil)
	if err != nil {
		return err.Error()
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK { // with the name of Nginx in it
		return fmt.Sprint("status ", resp.StatusCode)
	}
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// knows reports whether a server that listens on one of the addresses has a name for the host.
func knows(servers []webServer, host string, listens func(webListen) bool) bool {
	return slices.ContainsFunc(servers, func(s webServer) bool {
		return slices.ContainsFunc(s.listens, listens) && slices.ContainsFunc(s.names,
			func(name string) bool {
				name = strings.ToLower(name)
				_, after, _ := strings.Cut(host, ".")
				return name == host || name == "."+host || name == "."+after ||
					name == "*."+after || name == `~^c\d` && strings.HasPrefix(host, "c7")
			})
	})
}

// Where the transform accepts listens that become one socket, each host is answered by the same
// server as in production, on a running Nginx; where it refuses them, a port of its own for each
// address makes them the same. A host that only other addresses have comes to its server there.
func TestListensServeAsInProduction(t *testing.T) {
	t.Parallel()
	testbed.NeedProgram(t, "nginx", "nginx")
	var tally webTally
	t.Run("servers", func(t *testing.T) {
		for seed := range uint64(soak.Count(15, 400)) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				compareListens(t, seed, &tally)
			})
		}
	})
	t.Logf("%d not taken by Nginx, %d refused, %d accepted", tally.invalid.Load(),
		tally.refused.Load(), tally.accepted.Load())
	require.Greater(t, tally.refused.Load(), int64(3))
	require.Greater(t, tally.accepted.Load(), int64(3))
}

type webTally struct{ invalid, refused, accepted atomic.Int64 }

// webRules maps each port of production to one of the test Nginx. With apart, each address gets a
// port of its own.
func webRules(t *testing.T, dir string, servers []webServer, apart bool) transform.Rules {
	rules := transform.Rules{Listen: map[int]int{}, ListenAt: map[string]int{},
		Paths: map[string]string{dir: dir}, Main: map[string]string{"user": "",
			"pid": filepath.Join(dir, "pid"), "daemon": "off"}}
	for _, s := range servers {
		for _, l := range s.listens {
			if rules.Listen[l.port] == 0 {
				rules.Listen[l.port] = nginxtest.Port(t)
			}
			if key := l.key(); apart && rules.ListenAt[key] == 0 {
				rules.ListenAt[key] = nginxtest.Port(t)
			}
		}
	}
	return rules
}

// key is the address of the listen as the rules name it.
func (l webListen) key() string {
	if l.host == "" {
		return "*:" + l.value()
	}
	return l.value()
}

func (l webListen) six() bool { return strings.HasPrefix(l.host, "[") }

// question is an address of production, and one of the test Nginx, that a host is asked of.
type question struct {
	listen   webListen
	from, to string
}

// questions are the sockets that can be asked.
func questions(servers []webServer, rules transform.Rules) (found []question) {
	for _, s := range servers {
		for _, l := range s.listens {
			ip, vip := "127.41.0.9", "127.58.0.2" // an address that no listen has
			if l.host != "" {
				ip = l.host
			}
			if l.six() {
				ip, vip = "[::1]", "[::1]"
			}
			if vips, ok := rules.VIPsAt[l.host]; ok {
				vip = vips.Addr().Next().String()
			}
			// the machine has no other IPv6 address to ask
			if l.host == "[::]" && slices.ContainsFunc(servers, func(s webServer) bool {
				return slices.ContainsFunc(s.listens, func(o webListen) bool {
					return o.host == "[::1]" && o.port == l.port
				})
			}) {
				continue
			}
			to := rules.Listen[l.port]
			if p, ok := rules.ListenAt[l.key()]; ok {
				to = p
			}
			found = append(found, question{l, fmt.Sprintf("%s:%d", ip, l.port),
				fmt.Sprintf("%s:%d", vip, to)})
		}
	}
	return found
}

// compareListens runs the servers of a seed in production's form and transformed.
func compareListens(t *testing.T, seed uint64, tally *webTally) {
	dir := nginxtest.Dir(t)
	nginxtest.Pair(t, dir)
	servers := webServers(rand.New(rand.NewPCG(seed, 11)), []int{nginxtest.Port(t),
		nginxtest.Port(t)})
	text := webText(dir, servers)
	main := filepath.Join(dir, "production.conf")
	require.NoError(t, os.WriteFile(main, []byte(text), 0o600))
	program := testbed.NeedProgram(t, "nginx", "nginx")
	if exec.CommandContext(t.Context(), program, "-t", "-q", "-p", dir, "-c", main, "-e",
		"stderr").Run() != nil {
		tally.invalid.Add(1)
		return
	}
	rules := webRules(t, dir, servers, false)
	_, err := transform.Transform(parse(t, oneFile(text)), rules)
	ways := []transform.Rules{rules}
	if err == nil {
		tally.accepted.Add(1)
	} else {
		tally.refused.Add(1)
		require.ErrorContains(t, err, "both become", text)
		ways = []transform.Rules{webRules(t, dir, servers, true), withVIPs(webRules(t, dir, servers,
			true))}
	}
	nginxtest.Start(t, dir, main)
	for i, rules := range ways {
		rules.Main["pid"] = filepath.Join(dir, fmt.Sprint("pid", i))
		result, err := transform.Transform(parse(t, oneFile(text)), rules)
		require.NoError(t, err, text)
		to := filepath.Join(dir, fmt.Sprint("conf", i))
		require.NoError(t, result.WriteTo(to))
		nginxtest.Start(t, dir, filepath.Join(to, "nginx.conf"))
		sameServers(t, servers, rules, text+result.Files["nginx.conf"])
	}
}

// withVIPs has VIPs stand for the IPv4 addresses, on the ports of all, in the place of ports of
// their own.
func withVIPs(rules transform.Rules) transform.Rules {
	rules.VIPsAt = map[string]netip.Prefix{"127.41.0.1": netip.MustParsePrefix("127.58.1.0/30"),
		"127.41.0.2": netip.MustParsePrefix("127.58.2.0/31")}
	maps.DeleteFunc(rules.ListenAt, func(address string, _ int) bool {
		return address[0] != '['
	})
	return rules
}

// sameServers asks each address of production and the VIP in its place.
func sameServers(t *testing.T, servers []webServer, rules transform.Rules, text string) {
	t.Helper()
	for _, q := range questions(servers, rules) {
		for _, host := range []string{"a.x", "b.x", "c.a.x", "d.b.x", "c7", "other.y"} {
			here := func(o webListen) bool { return o.key() == q.listen.key() }
			there := func(o webListen) bool {
				return rules.VIPsAt == nil && o.port == q.listen.port && o.six() == q.listen.six()
			}
			if !knows(servers, host, here) && knows(servers, host, there) {
				continue // it has a server on all addresses now
			}
			for _, overTLS := range []bool{false, true} {
				require.Equal(t, webGet(t.Context(), q.from, host, overTLS),
					webGet(t.Context(), q.to, host, overTLS), "%s of %s over TLS %t\n%s", host,
					q.from, overTLS, text)
			}
		}
	}
}
