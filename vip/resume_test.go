package vip_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// Neither a revision nor a lease id of an allocator that has ended is one of its successor, also
// when the store was emptied in between, or is one that is empty after each start.
func TestWatchAfterAnEmptyStart(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		c := newClock()
		p := pool(t, "p", "10.0.0.0/24")
		open := func() *vip.Allocator {
			return allocator(t, sharedIf(shared, vip.NewMemStore()), c, vip.Config{}, p)
		}
		a := open()
		from := a.Revision()
		old := allocate(t, a, vip.Request{Owner: owner("T1")})
		seen := a.Revision()
		b := open()
		for _, task := range []string{"T2", "T3", "T4"} {
			allocate(t, b, vip.Request{Owner: owner(task)})
		}
		for _, after := range []uint64{from, seen} {
			_, err := b.Watch(t.Context(), after)
			require.ErrorIs(t, err, vip.ErrCompacted)
		}
		_, err := b.Release(t.Context(), old.ID, "late")
		require.ErrorIs(t, err, vip.ErrFenced, "T2 has the address")
		require.Len(t, b.List(vip.Query{States: []vip.State{vip.Leased}}), 3)
	}
}
