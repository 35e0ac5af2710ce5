package vip_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// A revision of an allocator that has ended is not one of its successor, also when the store was
// emptied in between, or is one that is empty after each start.
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
		allocate(t, a, vip.Request{Owner: owner("T1")})
		seen := a.Revision()
		b := open()
		for _, task := range []string{"T2", "T3", "T4"} {
			allocate(t, b, vip.Request{Owner: owner(task)})
		}
		for _, after := range []uint64{from, seen} {
			_, err := b.Watch(t.Context(), after)
			require.ErrorIs(t, err, vip.ErrCompacted)
		}
	}
}
