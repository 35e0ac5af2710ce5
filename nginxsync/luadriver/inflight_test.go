//go:build linux

package luadriver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

const drainTree = `
events { }
http {
    upstream a { server 10.9.9.1:80; server 10.9.9.2:80; }
    upstream b { server 10.9.9.3:80; }
    server {
        listen 80;
        location / { proxy_pass http://a; }
        location /auth/ { auth_request /b/; proxy_pass http://a; }
        location /mirror/ { mirror /b/; proxy_pass http://a; }
        location /again/ { proxy_pass http://b; error_page 404 = /; proxy_intercept_errors on; }
        location /b/ { proxy_pass http://b; }
        location /log/ { log_by_lua_block { local own = 1 } proxy_pass http://a; }
    }
}`

// gate is a backend whose requests wait until they are let go.
type gate struct {
	addr    netip.AddrPort
	reached chan struct{}
	let     chan struct{}
}

func newGate(t *testing.T, status int) *gate {
	g := &gate{reached: make(chan struct{}, 100), let: make(chan struct{})}
	g.addr = respond(t, func(w http.ResponseWriter, r *http.Request) {
		g.reached <- struct{}{}
		select {
		case <-g.let:
		case <-r.Context().Done():
		}
		w.WriteHeader(status)
		fmt.Fprint(w, "gate ")
	})
	return g
}

// inFlight polls until the driver counts n requests to the address.
func (b *bed) inFlight(t *testing.T, addr netip.AddrPort, n int) {
	t.Helper()
	nginxtest.Poll(t, fmt.Sprintf("%d in flight to %s", n, addr), func() error {
		f, err := b.driver.InFlight(t.Context(), []netip.AddrPort{plainPort, addr})
		if err == nil && (f.Requests[addr] != n || len(f.Silent) > 0 ||
			f.Requests[plainPort] != 0) {
			err = errors.New(f.String())
		}
		return err
	})
}

var plainPort = netip.MustParseAddrPort("127.0.0.1:9")

// A request is in flight to its instance from the choice to its end, in each kind of location, and
// moves when Nginx sends it on.
func TestInFlightFollowsRequests(t *testing.T) {
	t.Parallel()
	b := startTree(t, drainTree, transform.Rules{TrustCode: true})
	a, other := newGate(t, 200), newGate(t, 404)
	push := func(number uint64, onB *gate) {
		s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": one("a", "v",
			a.addr),
			"b": one("b", "v", onB.addr)}}
		require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(number, s).All()))
	}
	push(1, other)
	get := func(path string) (end chan int) {
		end = make(chan int, 1)
		go func() {
			status, _ := ask(t, b.port, http.MethodGet, path, "10.1.1.1")
			end <- status
		}()
		return end
	}
	for _, path := range []string{"/", "/log/"} {
		end := get(path)
		<-a.reached
		b.inFlight(t, a.addr, 1)
		a.let <- struct{}{}
		require.Equal(t, 200, <-end)
		b.inFlight(t, a.addr, 0)
	}

	end := get("/again/")
	<-other.reached
	b.inFlight(t, other.addr, 1)
	b.inFlight(t, a.addr, 0)
	other.let <- struct{}{}
	<-a.reached
	b.inFlight(t, other.addr, 0)
	b.inFlight(t, a.addr, 1)
	a.let <- struct{}{}
	require.Equal(t, 200, <-end)

	// A subrequest counts for its own instance, until its request has ended.
	end = get("/mirror/")
	<-other.reached
	<-a.reached
	b.inFlight(t, a.addr, 1)
	b.inFlight(t, other.addr, 1)
	a.let <- struct{}{}
	other.let <- struct{}{}
	require.Equal(t, 200, <-end)
	b.inFlight(t, a.addr, 0)
	b.inFlight(t, other.addr, 0)

	end = get("/auth/")
	<-other.reached
	b.inFlight(t, other.addr, 1)
	other.let <- struct{}{}
	require.Equal(t, 500, <-end) // auth_request takes 404 for an error
	b.inFlight(t, other.addr, 0)

	// A client that goes away ends its request.
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := b.get(ctx, plain, "/")
		gone <- err
	}()
	<-a.reached
	b.inFlight(t, a.addr, 1)
	leave()
	require.Error(t, <-gone)
	b.inFlight(t, a.addr, 0)
}

// Workers that a reload has retired count until their last request has ended; one that is killed
// has none, and one that stands is named.
func TestInFlightOfRetiredWorkers(t *testing.T) {
	t.Parallel()
	b := startTree(t, drainTree, transform.Rules{TrustCode: true})
	g := newGate(t, 200)
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": one("a", "v", g.addr)}}
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, s).All()))
	var wg sync.WaitGroup
	get := func(want error) {
		wg.Go(func() {
			_, err := b.get(t.Context(), plain, "/")
			assert.Equal(t, want == nil, err == nil, "%v", err)
		})
		<-g.reached
	}
	reload := func() (old int) {
		state, err := b.driver.State(t.Context())
		require.NoError(t, err)
		old = state.Workers[0].PID
		require.NoError(t, syscall.Kill(b.Pid(), syscall.SIGHUP))
		nginxtest.Poll(t, "a new worker is there", func() error {
			state, err := b.driver.State(t.Context())
			if err == nil && (len(state.Workers) != 1 || state.Workers[0].PID == old) {
				err = fmt.Errorf("%+v", state.Workers)
			}
			return err
		})
		return old
	}
	get(nil)
	get(nil)
	old := reload()
	b.inFlight(t, g.addr, 2)
	g.let <- struct{}{}
	b.inFlight(t, g.addr, 1)
	g.let <- struct{}{}
	wg.Wait()
	b.inFlight(t, g.addr, 0)
	nginxtest.Poll(t, "the old worker has ended, and takes no request any more", func() error {
		if slices.Contains(b.Workers(), old) {
			return fmt.Errorf("%d is there", old)
		}
		return nil
	})

	get(errors.New("its worker is killed"))
	old = reload()
	b.inFlight(t, g.addr, 1)
	require.NoError(t, syscall.Kill(old, syscall.SIGKILL))
	wg.Wait()
	b.inFlight(t, g.addr, 0)
}

// A request that begins when its worker has been retired counts, too.
func TestInFlightBeginsInARetiredWorker(t *testing.T) {
	t.Parallel()
	b := startTree(t, drainTree, transform.Rules{TrustCode: true})
	g := newGate(t, 200)
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": one("a", "v", g.addr)}}
	require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewRoutes(1, s).All()))
	conn, err := net.Dial("tcp", netip.AddrPortFrom(plain, uint16(b.port)).String())
	require.NoError(t, err)
	defer conn.Close()
	// A head that is not complete keeps its connection with the old worker.
	_, err = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\n")
	require.NoError(t, err)
	old := b.Workers()[0]
	nginxtest.Poll(t, "the worker has the head", func() error {
		_, err := b.driver.InFlight(t.Context(), nil)
		return err
	})
	require.NoError(t, syscall.Kill(b.Pid(), syscall.SIGHUP))
	nginxtest.Poll(t, "a new worker is alone in the state", func() error {
		state, err := b.driver.State(t.Context())
		if err == nil && (len(state.Workers) != 1 || state.Workers[0].PID == old) {
			err = fmt.Errorf("%+v", state.Workers)
		}
		return err
	})
	b.inFlight(t, g.addr, 0)
	_, err = fmt.Fprint(conn, "Connection: close\r\n\r\n")
	require.NoError(t, err)
	<-g.reached
	require.Contains(t, b.Workers(), old, "the request is not in the retired worker")
	b.inFlight(t, g.addr, 1)
	g.let <- struct{}{}
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "HTTP/1.1 200")
	b.inFlight(t, g.addr, 0)
}

// A worker that stands is named: its requests in flight are not known.
func TestInFlightNamesASilentWorker(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	standing := b.Workers()[0]
	require.NoError(t, syscall.Kill(standing, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(standing, syscall.SIGCONT) })
	nginxtest.Poll(t, "the worker is silent", func() error {
		// The connection may be given to the worker that stands.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		f, err := b.driver.InFlight(ctx, []netip.AddrPort{plainPort})
		if err == nil && (f.Drained() || len(f.Silent) != 1 || f.Silent[0].PID != standing) {
			err = fmt.Errorf("%+v", f)
		}
		return err
	})
}

// Instances are replaced under load, and each old one ends when it is drained: no request is lost.
func TestDrainLosesNoRequest(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	instance := func(version string) (nginxsync.Instance, func()) {
		addr, kill := slowServer(t)
		return nginxsync.Instance{ID: version, Addr: addr, Version: version}, kill
	}
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
	agent, stop := b.agent(t, source)
	defer stop()
	set := func(in nginxsync.Instance) uint64 {
		return source.Set(nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": {in}}})
	}
	in, end := instance("v0")
	require.NoError(t, agent.WaitVerified(t.Context(), set(in)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				answer, err := b.get(context.WithoutCancel(ctx), plain, "/")
				assert.NoError(t, err)
				assert.Equal(t, 200, answer.Status)
			}
		})
	}
	for n := range soak.Count(10, 100) {
		next, endNext := instance(fmt.Sprint("v", n+1))
		require.NoError(t, agent.WaitDrained(t.Context(), set(next), []netip.AddrPort{in.Addr}))
		end()
		in, end = next, endNext
		if n%3 == 2 {
			require.NoError(t, syscall.Kill(b.Pid(), syscall.SIGHUP))
		}
	}
	cancel()
	wg.Wait()
	end()
}

// A drain that does not end names the requests in flight and the context's cause.
func TestDrainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	g := newGate(t, 200)
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a", "v", g.addr)}})
	agent, stop := b.agent(t, source)
	defer stop()
	require.NoError(t, agent.WaitVerified(t.Context(), 1))
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := b.get(t.Context(), plain, "/")
		assert.NoError(t, err)
	})
	<-g.reached
	cause := errors.New("the deadline of the drain")
	limit := 150 * time.Millisecond
	nginxtest.Poll(t, "the drain has asked Nginx before it ends", func() error {
		limit *= 2
		ctx, cancel := context.WithTimeoutCause(t.Context(), limit, cause)
		defer cancel()
		err := agent.WaitDrained(ctx, 1, []netip.AddrPort{g.addr})
		require.ErrorIs(t, err, cause)
		if !strings.Contains(err.Error(), g.addr.String()+" has 1 in flight") {
			return err
		}
		return nil
	})
	g.let <- struct{}{}
	wg.Wait()
	require.NoError(t, agent.WaitDrained(t.Context(), 1, []netip.AddrPort{g.addr}))
}

// slowServer is a backend that takes 30 to 300 ms for a request, and a function that ends it at
// once with the requests that it has.
func slowServer(t *testing.T) (netip.AddrPort, func()) {
	t.Helper()
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(time.Duration(n.Add(1)%10+1) * 30 * time.Millisecond):
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "slow ")
	}))
	end := func() {
		s.CloseClientConnections()
		s.Close()
	}
	t.Cleanup(end)
	return netip.MustParseAddrPort(s.Listener.Addr().String()), end
}
