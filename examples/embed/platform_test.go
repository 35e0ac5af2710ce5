package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/vip"
)

// fakeNginx takes all routes at once; while broken it takes none.
type fakeNginx struct {
	mu     sync.Mutex
	routes nginxsync.Routes
	broken bool
	asked  chan struct{} // of capacity 1: gets a token when a broken one is asked
}

func (n *fakeNginx) Apply(_ context.Context, delta nginxsync.Delta) (err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.broken {
		select {
		case n.asked <- struct{}{}:
		default:
		}
		return errors.New("nginx is away")
	}
	n.routes, err = n.routes.Apply(delta)
	return err
}

func (n *fakeNginx) Routes(context.Context) (nginxsync.Routes, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.routes, nil
}

func (n *fakeNginx) State(context.Context) (nginxsync.DriverState, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	g := n.routes.Generation
	return nginxsync.DriverState{Applied: g, Workers: []nginxsync.Worker{{PID: 1, Applied: g}}}, nil
}

func (n *fakeNginx) setBroken(broken bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken = broken
}

// overlays returns which instance serves hello_web on each VIP, "" for none.
func (n *fakeNginx) overlays() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := map[string]string{}
	for addr, clusters := range n.routes.Snapshot.Overlays {
		found[addr.String()] = ""
		for _, i := range clusters["hello_web"] {
			found[addr.String()] = i.ID
		}
	}
	return found
}

func open(t *testing.T, cfg Config) *Hooks {
	t.Helper()
	pool, err := vip.ParsePool("trial", "127.58.9.0/30")
	require.NoError(t, err)
	if cfg.Store == nil {
		cfg.Store = vip.NewMemStore()
	}
	cfg.Pool = pool
	h, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	return h
}

// background runs f until the test ends, and holds it to the cause that it is ended with.
func background(t *testing.T, f func(context.Context) error) {
	over := errors.New("the test is over")
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1) // one result
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel(over)
		require.ErrorIs(t, <-ended, over)
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, time.Millisecond)
}

var one, two = netip.MustParseAddrPort("127.0.0.1:9001"), netip.MustParseAddrPort("127.0.0.1:9002")

func TestVIPAnswersTheBaseline(t *testing.T) {
	t.Parallel()
	t.Run("when its lease has expired", func(t *testing.T) {
		t.Parallel()
		nginx := &fakeNginx{}
		h := open(t, Config{Driver: nginx, TTL: 2 * time.Second})
		// nothing renews
		for _, run := range []func(context.Context) error{h.agent.Run, h.leases.Run, h.follow} {
			background(t, run)
		}
		_, err := h.Deployed(t.Context(), "search-redesign", "hello_web", "v2", one)
		require.NoError(t, err)
		eventually(t, func() bool { return len(nginx.overlays()) == 0 })
		require.Empty(t, h.leases.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining}}))
	})
	t.Run("when its lease was taken away", func(t *testing.T) {
		t.Parallel()
		nginx := &fakeNginx{}
		h := open(t, Config{Driver: nginx})
		background(t, h.Run)
		lease, err := h.Deployed(t.Context(), "search-redesign", "hello_web", "v2", one)
		require.NoError(t, err)
		_, err = h.leases.Quarantine(t.Context(), lease.Addr, "drops packets", 0)
		require.NoError(t, err)
		eventually(t, func() bool { return len(nginx.overlays()) == 0 })
	})
	t.Run("when its lease expired while the platform was down", func(t *testing.T) {
		t.Parallel()
		nginx, store := &fakeNginx{}, vip.NewMemStore()
		h := open(t, Config{Driver: nginx, Store: store, TTL: 2 * time.Second})
		lease, err := h.leases.Allocate(t.Context(), vip.Request{
			Owner: vip.Owner{Task: "search-redesign",
				Overrides: map[string]string{"hello_web": "v2"}},
		})
		require.NoError(t, err)
		nginx.routes = nginxsync.NewRoutes(1, nginxsync.Snapshot{
			Overlays: map[netip.Addr]map[string][]nginxsync.Instance{lease.Addr: {"hello_web": {{ID: "old", Addr: one}}}},
		})
		eventually(t, func() bool { return time.Now().After(lease.Expires) })
		background(t, open(t, Config{Driver: nginx, Store: store}).Run)
		eventually(t, func() bool { return len(nginx.overlays()) == 0 })
	})
}

func TestLeaseLivesAsLongAsItsTask(t *testing.T) {
	t.Parallel()
	h := open(t, Config{Driver: &fakeNginx{}})
	h.every = time.Millisecond
	background(t, h.Run)
	first, err := h.Deployed(t.Context(), "search-redesign", "hello_web", "v2", one)
	require.NoError(t, err)
	eventually(t, func() bool {
		live := h.leases.List(vip.Query{Task: "search-redesign", States: []vip.State{vip.Leased,
			vip.Draining}})[0]
		return live.ID == first.ID && live.Expires.After(first.Expires)
	})
}

func TestFailedDeploymentLeavesTheVIPAsItWas(t *testing.T) {
	t.Parallel()
	nginx := &fakeNginx{asked: make(chan struct{}, 1)}
	h := open(t, Config{Driver: nginx})
	background(t, h.Run)
	kept, err := h.Deployed(t.Context(), "kept", "hello_web", "v1", one)
	require.NoError(t, err)
	fail := func(task, version string, instance netip.AddrPort) {
		t.Helper()
		nginx.setBroken(true)
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("the caller has gone")
		go func() { <-nginx.asked; cancel(gone) }()
		_, err := h.Deployed(ctx, task, "hello_web", version, instance)
		require.ErrorIs(t, err, gone)
		nginx.setBroken(false)
	}
	fail("fresh", "v2", two)
	require.Empty(t, h.leases.List(vip.Query{Task: "fresh", States: []vip.State{vip.Leased,
		vip.Draining}}), "its VIP is given back")
	eventually(t, func() bool {
		overlays := nginx.overlays()
		return len(overlays) == 1 && overlays[kept.Addr.String()] == one.String()
	})
	fail("kept", "v1", two)
	require.Equal(t, one, h.leases.List(vip.Query{Task: "kept", States: []vip.State{vip.Leased,
		vip.Draining}})[0].Binding.Instances[0].Addr)
	require.NoError(t, h.Finished(t.Context(), "kept"))
	require.Empty(t, nginx.overlays())
}

func TestDeployedRefusesWhatCannotBeRouted(t *testing.T) {
	t.Parallel()
	nginx := &fakeNginx{}
	h := open(t, Config{Driver: nginx})
	background(t, h.Run)
	_, err := h.Deployed(t.Context(), "t", "hello_web", "v1", netip.MustParseAddrPort("0.0.0.0:80"))
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
	require.Empty(t, h.leases.List(vip.Query{Task: "t", States: []vip.State{vip.Leased,
		vip.Draining}}), "its VIP is given back")
}

func TestInstanceID(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"127.0.0.1:9001":        "127.0.0.1:9001",
		"[::1]:9001":            "0000:0000:0000:0000:0000:0000:0000:0001:9001",
		"[fe80::1%eth0]:9001":   "fe80:0000:0000:0000:0000:0000:0000:0001:9001",
		"[::ffff:10.1.2.3]:900": "0000:0000:0000:0000:0000:ffff:0a01:0203:900",
	} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			id := instanceID(netip.MustParseAddrPort(addr))
			require.Equal(t, want, id)
			h := open(t, Config{Driver: &fakeNginx{}})
			lease, err := h.leases.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "t"}})
			require.NoError(t, err)
			_, err = h.leases.Bind(t.Context(), lease.ID,
				[]vip.Instance{{ID: id, Addr: netip.MustParseAddrPort(addr)}})
			require.NoError(t, err)
		})
	}
}

func TestIPv6InstanceServes(t *testing.T) {
	t.Parallel()
	nginx := &fakeNginx{}
	h := open(t, Config{Driver: nginx})
	background(t, h.Run)
	six := netip.MustParseAddrPort("[::1]:9001")
	lease, err := h.Deployed(t.Context(), "search-redesign", "hello_web", "v2", six)
	require.NoError(t, err)
	require.Equal(t, map[string]string{lease.Addr.String(): instanceID(six)}, nginx.overlays())
}
