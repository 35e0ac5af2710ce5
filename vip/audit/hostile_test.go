package audit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

// forgetful is a store that loses records, and answers.
type forgetful struct {
	vip.Store
	silent bool // commits are made, and from the first on no call gets an answer
	gone   bool
}

var errNoAnswer = errors.New("no answer")

func (s *forgetful) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	rev, err := s.Store.Commit(ctx, changes...)
	if s.gone = s.silent; s.gone {
		return 0, errNoAnswer
	}
	return rev, err
}

func (s *forgetful) Get(ctx context.Context, keys ...string) ([]vip.Record, error) {
	if s.gone {
		return nil, errNoAnswer
	}
	return s.Store.Get(ctx, keys...)
}

// lose deletes the records of addresses.
func (s *forgetful) lose(t *testing.T, addrs ...string) {
	t.Helper()
	for _, text := range addrs {
		_, err := s.Store.Commit(t.Context(), vip.Change{Key: "addr/" + text,
			Revision: vip.AnyRevision})
		require.NoError(t, err)
	}
}

// A store that was put back to an earlier state has lost a few leases, fewer than are ever held.
// Repair leaves their addresses to a person until the leases would have expired.
func TestRepairLeavesLostLeases(t *testing.T) {
	t.Parallel()
	c, store := newClock(), &forgetful{Store: vip.NewMemStore()}
	a := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "10.0.0.1-10.0.0.9"))
	leasedTo(t, a, 4)
	nginx := rowsOf(a)
	nginx.rows[addr("10.0.0.9")] = audit.Observation{Addr: addr("10.0.0.9"), Task: "ghost"}
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}})
	before, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Len(t, before.Findings, 1)
	store.lose(t, "10.0.0.1", "10.0.0.2")

	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	var kinds []string
	for _, f := range report.Findings {
		kinds = append(kinds, fmt.Sprint(f.Addr, " ", f.Kind))
	}
	require.Equal(t, []string{"10.0.0.1 lost", "10.0.0.2 lost", "10.0.0.9 not leased"}, kinds)
	require.Equal(t, `used for task "T0", and the store has lost the lease of task "T0"`,
		report.Findings[0].Detail)
	require.Empty(t, report.Held)
	// a finding of a report from before the loss, made by hand
	report.Findings = append(report.Findings, audit.Finding{View: "nginx", Kind: audit.NotLeased,
		Addr: addr("10.0.0.1")})
	repaired, err := auditor.Repair(t.Context(), report, nil)
	require.NoError(t, err)
	require.Equal(t, 1, repaired)
	require.Len(t, nginx.rows, 4)

	again := allocate(t, a, vip.Request{Owner: owner("T9"), Addr: addr("10.0.0.1")})
	c.Add(time.Hour)
	report, err = auditor.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, audit.OtherTask, report.Findings[0].Kind, "the address has a lease again")
	require.Equal(t, again.ID, report.Findings[0].Lease.ID)
	c.Add(24 * time.Hour)
	report, err = auditor.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, audit.NotLeased, report.Findings[1].Kind, "the lost lease is over")
}

// While it is not known whether an allocation was made, its address is not repaired.
func TestRepairSettlesUncertainCommit(t *testing.T) {
	t.Parallel()
	store := &forgetful{Store: vip.NewMemStore()}
	a := allocator(t, store, newClock(), vip.Config{}, pool(t, "10.0.0.1"))
	other := allocator(t, vip.Shared(store.Store), newClock(), vip.Config{}, pool(t, "10.0.0.1"))
	store.silent = true
	_, err := a.Allocate(t.Context(), vip.Request{Owner: owner("T1")})
	require.ErrorIs(t, err, errNoAnswer)
	_, err = other.Snapshot(t.Context())
	require.NoError(t, err)
	nginx := rowsOf(other) // as the allocator sees it that shares the store
	require.Len(t, nginx.rows, 1)
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx}})
	report := audit.Report{Findings: []audit.Finding{{View: "nginx", Kind: audit.NotLeased,
		Addr: addr("10.0.0.1")}}}
	_, err = auditor.Repair(t.Context(), report, nil)
	require.ErrorIs(t, err, errNoAnswer)
	require.Len(t, nginx.rows, 1)

	store.silent, store.gone = false, false
	_, err = auditor.Repair(t.Context(), report, nil)
	require.NoError(t, err)
	require.Len(t, nginx.rows, 1, "the allocation was made")
	held, err := a.Holder(t.Context(), addr("10.0.0.1"))
	require.NoError(t, err)
	require.Equal(t, "T1", held.Owner.Task)
}

// A pool that does not exist, or a nil view, would give reports without findings, or a panic.
func TestNewRejectsScopeAndNilView(t *testing.T) {
	t.Parallel()
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.1"))
	_, err := audit.New(audit.Config{Leases: a, Views: []audit.View{nil},
		Pools: []string{"p", "P"}})
	require.ErrorIs(t, err, vip.ErrInvalid)
	require.ErrorContains(t, err, "view 1 of 1: nil")
	require.ErrorContains(t, err, `Config.Pools: pool "P": the allocator has ["p"]`)
	require.NotContains(t, err.Error(), `pool "p"`)
	_, err = audit.NewLeakChecker(audit.LeakConfig{Leases: a, Pools: []string{"q"},
		Alive: func(context.Context, vip.Lease) (bool, error) { return true, nil }})
	require.ErrorIs(t, err, vip.ErrInvalid)
	require.ErrorContains(t, err, `LeakConfig.Pools: pool "q"`)
}

// A finding of a pool out of scope is passed over, also when the report was made by hand.
func TestRepairKeepsToScope(t *testing.T) {
	t.Parallel()
	other := pool(t, "10.0.1.1")
	other.Name = "other"
	a := allocator(t, vip.NewMemStore(), newClock(), vip.Config{}, pool(t, "10.0.0.1"), other)
	l := allocate(t, a, vip.Request{Owner: owner("T1"), Pool: "other"})
	nginx := &table{name: "nginx", rows: rowsOf(a).rows}
	auditor := auditorOf(t, audit.Config{Leases: a, Views: []audit.View{nginx},
		Pools: []string{"p"}})
	nginx.rows[l.Addr] = audit.Observation{Addr: l.Addr, Task: "T2"}
	report, err := auditor.Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, report.Findings)
	report.Findings = []audit.Finding{{View: "nginx", Kind: audit.OtherTask, Addr: l.Addr,
		Lease: &l}}
	repaired, err := auditor.Repair(t.Context(), report, nil)
	require.NoError(t, err)
	require.Zero(t, repaired)
	require.Equal(t, "T2", nginx.rows[l.Addr].Task)
}

// An allocator that shares its store lists the leases of others, whose owners Alive does not know.
func TestLeaksScope(t *testing.T) {
	t.Parallel()
	c, store := newClock(), vip.NewMemStore()
	theirs, six := pool(t, "10.0.1.1-10.0.1.9"), pool(t, "fd00::1-fd00::9")
	theirs.Name, six.Name = "theirs", "six"
	them := allocator(t, vip.Shared(store), c, vip.Config{}, theirs)
	allocate(t, them, vip.Request{Owner: owner("their-task")})
	a := allocator(t, vip.Shared(store), c, vip.Config{}, pool(t, "10.0.0.1-10.0.0.9"), six)
	allocate(t, a, vip.Request{Owner: owner("T1")})
	_, _, err := a.AllocateDual(t.Context(), vip.Request{Owner: owner("T2")})
	require.NoError(t, err)
	allocate(t, a, vip.Request{Owner: owner("T3"), Pool: "six"})
	asked := map[string]int{}
	leaks := checker(t, a, c, audit.LeakConfig{
		Pools: []string{"p"}, Grace: time.Minute, MaxShare: 1,
		Alive: func(_ context.Context, l vip.Lease) (bool, error) {
			asked[l.Owner.Task]++
			return false, nil
		},
	})
	for range 2 {
		_, err := leaks.Check(t.Context())
		require.NoError(t, err)
		c.Add(time.Hour)
	}
	require.Equal(t, map[string]int{"T1": 2, "T2": 4}, asked)
	var left []string
	for _, l := range a.List(vip.Query{States: []vip.State{vip.Leased}}) {
		left = append(left, l.Owner.Task)
	}
	require.Equal(t, "their-task T3", strings.Join(left, " "))
}

// putForward is t as a clock shows it that was put forward by d, whole seconds, since: the
// monotonic reading is the same.
func putForward(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	const wallSecond = 1 << 30 // in time.Time.wall, beside the bit for the monotonic reading
	moved := at
	*(*uint64)(unsafe.Pointer(&moved)) += uint64(int64(d/time.Second)) * wallSecond
	require.Equal(t, d, moved.Round(0).Sub(at.Round(0)))
	require.Zero(t, moved.Sub(at))
	return moved
}

// A clock that jumps does not change for how long an owner has to be gone.
func TestLeaksClockJumps(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.1"))
	allocate(t, a, vip.Request{Owner: owner("T1"), TTL: vip.Forever})
	now := time.Now()
	leaks, err := audit.NewLeakChecker(audit.LeakConfig{
		Leases: a, Now: func() time.Time { return now },
		Alive: func(context.Context, vip.Lease) (bool, error) { return false, nil },
	})
	require.NoError(t, err)
	confirmed := func() bool {
		found, err := leaks.Check(t.Context())
		require.NoError(t, err)
		return found[0].Confirmed
	}
	require.False(t, confirmed())
	now = putForward(t, now.Add(14*time.Minute), time.Hour)
	require.False(t, confirmed(), "put forward")
	now = putForward(t, now, -3*time.Hour)
	require.False(t, confirmed(), "put back")
	now = now.Add(time.Minute)
	require.True(t, confirmed())
}

// A clock without a monotonic reading that was put back begins the grace again, from where it is.
func TestLeaksClockPutBack(t *testing.T) {
	t.Parallel()
	c := newClock()
	a := allocator(t, vip.NewMemStore(), c, vip.Config{}, pool(t, "10.0.0.1"))
	allocate(t, a, vip.Request{Owner: owner("T1"), TTL: vip.Forever})
	leaks := checker(t, a, c, audit.LeakConfig{
		Alive: func(context.Context, vip.Lease) (bool, error) { return false, nil },
	})
	for i, step := range []time.Duration{0, -24 * time.Hour, 14 * time.Minute, time.Minute} {
		c.Add(step)
		found, err := leaks.Check(t.Context())
		require.NoError(t, err)
		require.Equal(t, i == 3, found[0].Confirmed, "check %d", i+1)
	}
}
