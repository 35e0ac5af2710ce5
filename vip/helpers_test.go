package vip_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// clock is a clock that moves when told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func pool(t testing.TB, name string, ranges ...string) vip.Pool {
	t.Helper()
	p, err := vip.ParsePool(name, ranges...)
	require.NoError(t, err)
	return p
}

// otherStore is a MemStore of a type that the allocator does not know.
type otherStore struct{ *vip.MemStore }

// eachMemStore runs a test of concurrent calls twice: with a MemStore, for which the allocator
// keeps its lock during a commit, and with an otherStore, for which it lets go of the lock.
func eachMemStore(t *testing.T, test func(t *testing.T, store vip.Store)) {
	t.Helper()
	for name, store := range map[string]vip.Store{
		"MemStore":    vip.NewMemStore(),
		"other_store": otherStore{vip.NewMemStore()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, store)
		})
	}
}

// allocator opens an allocator; cfg has no Now, Store and Pools.
func allocator(t testing.TB, store vip.Store, c *clock, cfg vip.Config,
	pools ...vip.Pool) *vip.Allocator {
	t.Helper()
	cfg.Now = c.Now
	cfg.Store, cfg.Pools = store, pools
	a, err := vip.Open(context.Background(), cfg)
	require.NoError(t, err)
	return a
}

// sharedIf is the store, for several allocators if so.
func sharedIf(so bool, store vip.Store) vip.Store {
	if so {
		return vip.Shared(store)
	}
	return store
}

func owner(task string, overrides ...string) vip.Owner {
	o := vip.Owner{Task: task}
	for i := 0; i < len(overrides); i += 2 {
		if o.Overrides == nil {
			o.Overrides = map[string]string{}
		}
		o.Overrides[overrides[i]] = overrides[i+1]
	}
	return o
}

func allocate(t testing.TB, a *vip.Allocator, req vip.Request) vip.Lease {
	t.Helper()
	l, err := a.Allocate(context.Background(), req)
	require.NoError(t, err)
	return l
}

func release(t testing.TB, a *vip.Allocator, l vip.Lease) vip.Lease {
	t.Helper()
	ended, err := a.Release(context.Background(), l.ID, "done")
	require.NoError(t, err)
	return ended
}

// conserved requires that the states of every pool add up to its size, and returns the first
// pool's.
func conserved(t testing.TB, a *vip.Allocator) vip.Stats {
	t.Helper()
	all := a.Stats()
	for _, s := range all {
		require.Equal(t, s.Size, s.Free+s.Leased+s.Draining+s.Cooling+s.Quarantined+s.Reserved,
			"%+v", s)
	}
	return all[0]
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// holders notices when two have one address at the same time.
type holders struct {
	mu   sync.Mutex
	have map[netip.Addr]string
}

func (h *holders) take(t *testing.T, addr netip.Addr, task string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, taken := h.have[addr]; taken {
		t.Errorf("%s is given to %s and %s", addr, task, other)
	}
	if h.have == nil {
		h.have = map[netip.Addr]string{}
	}
	h.have[addr] = task
}

func (h *holders) give(addr netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.have, addr)
}
