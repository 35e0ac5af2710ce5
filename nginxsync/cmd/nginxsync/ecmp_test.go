//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/hosts"
)

// spread has a machine send each VIP to one of the hosts: a route with a resilient group of next
// hops, of which a change moves the flows of the hosts that go, and no others
// (https://docs.kernel.org/networking/nexthop-group-resilient.html).
func spread(t *testing.T, router *hosts.Host, list []*site) {
	t.Helper()
	for i, s := range list {
		require.NoError(t, router.Command("ip", "nexthop", "add", "id", fmt.Sprint(i+1), "via",
			s.IP, "dev", "eth0").Run())
	}
	require.NoError(t, group(router, "add", list, list))
	require.NoError(t, router.Command("ip", "route", "add", "10.58.0.0/24", "nhid", "100").Run())
}

// group makes or replaces the group with the hosts of in.
func group(router *hosts.Host, verb string, list, in []*site) error {
	var ids []string
	for i, s := range list {
		if slices.Contains(in, s) {
			ids = append(ids, fmt.Sprint(i+1))
		}
	}
	out, err := router.Command("ip", "nexthop", verb, "id", "100", "group",
		strings.Join(ids, "/"), "type", "resilient", "buckets", "64", "idle_timer",
		"60").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// watch takes hosts out of the route that fail their check twice, 100 ms apart, and puts those back
// that pass it, as a load balancer does. The returned function stops it and says which hosts it
// ever took out, and when: on a busy machine a host that works may answer late.
func watch(t *testing.T, router *hosts.Host, list []*site) (stop func() map[string]time.Time) {
	out := map[string]time.Time{}
	ctx, cancel := context.WithCancel(t.Context())
	client := &http.Client{Timeout: 300 * time.Millisecond,
		Transport: &http.Transport{DisableKeepAlives: true}}
	var wg sync.WaitGroup
	stop = func() map[string]time.Time { cancel(); wg.Wait(); return out }
	t.Cleanup(func() { stop() })
	wg.Go(func() {
		misses := make([]int, len(list))
		in := list
		for ctx.Err() == nil {
			var next []*site
			for i, s := range list {
				resp, err := client.Get("http://" + s.IP + ":9181/healthz")
				if err == nil {
					resp.Body.Close()
				}
				if err == nil && resp.StatusCode == http.StatusOK {
					misses[i] = 0
				} else {
					misses[i]++
				}
				if misses[i] < 2 {
					next = append(next, s)
				}
			}
			if len(next) > 0 && !slices.Equal(next, in) && group(router, "replace", list,
				next) == nil {
				in = next
				for _, s := range list {
					if out[s.Name].IsZero() && !slices.Contains(in, s) {
						out[s.Name] = time.Now()
					}
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return stop
}

// patience bounds a request. A connection to a host that is gone ends sooner: the next host to get
// its packets resets it.
const patience = 30 * time.Second

// flow is a client that asks for pages on one VIP, on a connection that it keeps.
type flow struct {
	vip netip.Addr

	mu   sync.Mutex
	on   string // the host that answered last
	good int
	lost []string
	last time.Time     // of a good answer
	gap  time.Duration // the longest without one
}

// run asks until ctx ends. It opens its sockets itself: it runs on another host.
func (f *flow) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := f.connection(ctx); err != nil {
			f.mu.Lock()
			f.lost = append(f.lost, err.Error())
			f.mu.Unlock()
		}
	}
}

func (f *flow) connection(ctx context.Context) error {
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(f.vip, 80).String(), patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for range 500 { // Nginx closes after keepalive_requests, 1000 by default
		if ctx.Err() != nil {
			return nil
		}
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
			return err
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		_, err = reader.Discard(int(resp.ContentLength))
		if err != nil || resp.StatusCode != http.StatusOK ||
			resp.Header.Get("X-Sluice-Version") != "v1" {
			return fmt.Errorf("%s, %v, %w", resp.Status, resp.Header, err)
		}
		f.note(resp.Header.Get("X-Host"))
		select { // a person at a browser asks less often
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (f *flow) note(on string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.good > 0 {
		f.gap = max(f.gap, now.Sub(f.last))
	}
	f.on, f.last = on, now
	f.good++
}

// Three Nginx hosts behind a route that spreads VIPs over them: one loses its power under load. The
// requests on that host are lost until the route is without it, and no request on another one is.
func TestHostsBehindSpreadingRoute(t *testing.T) {
	t.Parallel()
	machines := hosts.Start(t, 4)
	list, routes := sites(t, machines[:3])
	router := machines[3]
	write(t, routes, fmt.Sprintf(`{"baseline": {"hello_web": [{"id": "b", "addr": %q, `+
		`"version": "v1"}]}}`, reachable(t, router, "b")))
	for _, s := range list {
		require.NoError(t, s.Command("ip", "route", "add", "local", "10.58.0.0/24", "dev",
			"lo").Run())
		s.agent.Start()
	}
	for _, s := range list {
		testbed.Poll(t, s.Name+" is healthy", func() error {
			health, err := s.client.Health(t.Context())
			if err == nil && !health.OK {
				err = fmt.Errorf("%q", health.Reasons)
			}
			return err
		})
	}
	spread(t, router, list)

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	flows := make([]*flow, 24)
	for i := range flows {
		flows[i] = &flow{vip: netip.AddrFrom4([4]byte{10, 58, 0, byte(10 + i)})}
		wg.Go(func() { _ = router.Do(func() error { flows[i].run(ctx); return nil }) })
	}
	// progress waits until each flow has more answers.
	progress := func(more int) {
		t.Helper()
		before := make([]int, len(flows))
		for i, f := range flows {
			f.mu.Lock()
			before[i] = f.good
			f.mu.Unlock()
		}
		for i, f := range flows {
			testbed.Poll(t, f.vip.String()+" is answered", func() error {
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.good < before[i]+more {
					return fmt.Errorf("%d answers, lost %q", f.good-before[i], f.lost)
				}
				return nil
			})
		}
	}
	progress(20)
	on := map[string][]*flow{}
	for _, f := range flows {
		f.mu.Lock()
		on[f.on] = append(on[f.on], f)
		require.Empty(t, f.lost)
		f.gap = 0
		f.mu.Unlock()
	}
	require.Greater(t, len(on), 1, "the route spreads the VIPs")
	watched := watch(t, router, list)
	var gone *site
	for _, s := range list {
		if gone == nil || len(on[s.Name]) > len(on[gone.Name]) {
			gone = s
		}
	}
	cut := time.Now()
	gone.Stop()
	progress(20)
	stop()
	wg.Wait()
	out := watched()
	require.Contains(t, out, gone.Name)
	lost, gap := 0, time.Duration(0)
	for name, there := range on {
		for _, f := range there {
			switch {
			case name != gone.Name && !out[name].IsZero():
				t.Logf("%s answered its check late and was out, too", name)
				continue
			case name != gone.Name:
				require.Empty(t, f.lost, "%s was on %s, and %s lost its power", f.vip, name,
					gone.Name)
				continue
			}
			lost, gap = lost+len(f.lost), max(gap, f.gap)
			require.NotEqual(t, gone.Name, f.on)
		}
	}
	t.Logf("of %d VIPs, %d were on the host: out after %s, %d requests lost, at most %s without "+
		"an answer", len(flows), len(on[gone.Name]), out[gone.Name].Sub(cut), lost, gap)
	require.NotZero(t, lost, errors.New("the host was cut off under load"))
}
