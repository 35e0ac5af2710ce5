//go:build linux

// Package proxy runs a TCP proxy for tests that delays, stalls, limits and cuts connections. It is
// a module of its own, so that Toxiproxy's client stays out of the requirements of the library.
package proxy

import (
	"fmt"
	"net"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2/client"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Proxy hands connections on to a server, until a method makes it worse. Each order holds for
// existing connections and for new ones, and adds up until Heal. Its methods end the test when they
// do not succeed.
type Proxy struct {
	Addr    string // host:port to connect to
	Process *testbed.Process

	t     testing.TB
	proxy *toxiproxy.Proxy
}

// Start runs Toxiproxy on a free port of 127.0.0.1 before a server, given as host:port.
func Start(t testing.TB, to string) *Proxy {
	t.Helper()
	path := testbed.NeedTool(t, "toxiproxy-server")
	dir, api := testbed.Endpoint(t, "proxy", nil)
	p := &Proxy{Addr: fmt.Sprintf("127.0.0.1:%d", testbed.Port(t)), t: t,
		proxy: toxiproxy.NewClient(api).NewProxy()}
	p.proxy.Name, p.proxy.Listen, p.proxy.Upstream, p.proxy.Enabled = "proxy", p.Addr, to, true
	host, port, err := net.SplitHostPort(api)
	p.must("split", err)
	p.Process = testbed.Start(t, dir, testbed.Command{Name: "toxiproxy", Path: path,
		Args: []string{"-host", host, "-port", port}, Ready: testbed.Listens(api)})
	p.must("make the proxy", p.proxy.Save())
	return p
}

// Delay delays all data, in each direction, by d.
func (p *Proxy) Delay(by time.Duration) {
	p.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		p.toxic("latency", stream, toxiproxy.Attributes{"latency": by.Milliseconds()})
	}
}

// Stall lets nothing pass any more. Connections stay, new ones are taken, and after Heal everything
// arrives.
func (p *Proxy) Stall() { p.t.Helper(); p.Delay(1000 * time.Hour) }

// Limit lets so many bytes pass to the client in a second, on each connection; a multiple of 1000.
func (p *Proxy) Limit(bytes int) {
	p.t.Helper()
	p.toxic("bandwidth", "downstream", toxiproxy.Attributes{"rate": bytes / 1000})
}

// CutAfter closes each connection when so many bytes have passed to the client.
func (p *Proxy) CutAfter(bytes int) {
	p.t.Helper()
	p.toxic("limit_data", "downstream", toxiproxy.Attributes{"bytes": bytes})
}

// Cut closes all connections and refuses new ones.
func (p *Proxy) Cut() { p.t.Helper(); p.must("cut", p.proxy.Disable()) }

// Heal undoes all orders to the proxy. Closed connections stay closed.
func (p *Proxy) Heal() {
	p.t.Helper()
	toxics, err := p.proxy.Toxics()
	p.must("heal", err)
	for _, toxic := range toxics {
		p.must("heal", p.proxy.RemoveToxic(toxic.Name))
	}
	p.must("heal", p.proxy.Enable())
}

// toxic adds one of a kind, or gives new values to the one that is there.
func (p *Proxy) toxic(kind, stream string, values toxiproxy.Attributes) {
	p.t.Helper()
	name := kind + "_" + stream
	_, err := p.proxy.AddToxic(name, kind, stream, 1, values)
	if err != nil { // it is there
		_, err = p.proxy.UpdateToxic(name, 1, values)
	}
	p.must(kind, err)
}

func (p *Proxy) must(what string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("proxy %s: %s: %v", p.Addr, what, err)
	}
}
