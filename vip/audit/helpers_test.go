package audit_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

// clock moves only when a test moves it.
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

func pool(t testing.TB, ranges ...string) vip.Pool {
	t.Helper()
	p, err := vip.ParsePool("p", ranges...)
	require.NoError(t, err)
	return p
}

func allocator(t testing.TB, store vip.Store, c *clock, cfg vip.Config,
	pools ...vip.Pool) *vip.Allocator {
	t.Helper()
	cfg.Now = c.Now
	cfg.Store, cfg.Pools = store, pools
	a, err := vip.Open(t.Context(), cfg)
	require.NoError(t, err)
	return a
}

func allocate(t testing.TB, a *vip.Allocator, req vip.Request) vip.Lease {
	t.Helper()
	l, err := a.Allocate(t.Context(), req)
	require.NoError(t, err)
	return l
}

func release(t testing.TB, a *vip.Allocator, l vip.Lease) {
	t.Helper()
	_, err := a.Release(t.Context(), l.ID, "done")
	require.NoError(t, err)
}

func leased(a *vip.Allocator) uint64 { return a.Stats()[0].Leased }

func owner(task string) vip.Owner { return vip.Owner{Task: task} }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func auditorOf(t testing.TB, cfg audit.Config) *audit.Auditor {
	t.Helper()
	a, err := audit.New(cfg)
	require.NoError(t, err)
	return a
}
