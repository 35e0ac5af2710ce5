//go:build linux

package bench

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
)

// BenchmarkHandshakes counts the TLS handshakes of an upstream in a thousand requests of eight
// clients that come at once, on plain Nginx and with the driver, where production has the same
// keepalive. Full handshakes cost the processor; plain Nginx makes most of its own short, since it
// resumes sessions, which a balancer in Lua cannot. The first thousand begins without connections,
// the later ones reuse kept connections.
func BenchmarkHandshakes(b *testing.B) {
	for _, keepalive := range []int{2, 8, 32} {
		b.Run(fmt.Sprint("keepalive_", keepalive), func(b *testing.B) {
			for range b.N {
				handshakes(b, keepalive)
			}
		})
	}
}

const thousands = 10 // rounds of a thousand requests

func handshakes(b *testing.B, keepalive int) {
	var full, resumed atomic.Int64
	backend := httptest.NewUnstartedServer(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	backend.TLS = &tls.Config{VerifyConnection: func(c tls.ConnectionState) error {
		if c.DidResume {
			resumed.Add(1)
		} else {
			full.Add(1)
		}
		return nil
	}}
	backend.StartTLS()
	defer backend.Close()
	addr := netip.MustParseAddrPort(backend.Listener.Addr().String())
	tree := fmt.Sprintf("events { }\nhttp {\naccess_log off;\nkeepalive_requests 1000000;\n"+
		"upstream c0 { server %s; keepalive %d; }\nserver { listen PORT;\n"+
		"proxy_http_version 1.1; proxy_set_header Connection \"\";\n"+
		"location / { proxy_pass https://c0; }\n}\n}\n", addr, keepalive)
	plain, driven := testbed.Port(b), testbed.Port(b)
	start(b, strings.ReplaceAll(tree, "PORT", fmt.Sprint(plain)), plain, nil)
	var driver *luadriver.Driver
	start(b, strings.ReplaceAll(tree, "PORT", "80"), driven, &driver)
	apply(b, driver, nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
		"c0": {{ID: "1", Addr: addr, Version: "v1"}}}})
	for _, server := range []struct {
		name string
		port int
	}{{"plain", plain}, {"driven", driven}} {
		var first, all, short float64
		for round := range thousands {
			full.Store(0)
			resumed.Store(0)
			n := ask(b, fmt.Sprintf("127.0.0.1:%d", server.port), 1,
				func(i int) bool { return i < 1000/clients }, func(int, time.Duration) {})
			each := float64(full.Load()) * 1000 / float64(n)
			if round == 0 {
				first = each
			}
			all += each / thousands
			short += float64(resumed.Load()) * 1000 / float64(n) / thousands
		}
		b.ReportMetric(first, server.name+"-full-in-first-1000")
		b.ReportMetric(all, server.name+"-full/1000")
		b.ReportMetric(short, server.name+"-resumed/1000")
	}
}
