package vip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// crowdsAreRight compares the crowds with the chains that they are a second index of.
func crowdsAreRight(t require.TestingT, x *index) {
	for task, c := range x.crowds {
		n := 0
		var before *entry
		byCluster := map[string]map[*entry]struct{}{}
		for e := x.of(task); e != nil; before, e = e, e.next {
			n++
			require.Same(t, before, c.at[e].before, "%s of task %s", e.addr, task)
			for _, cluster := range clustersOf(&e.last().Owner) {
				if byCluster[cluster] == nil {
					byCluster[cluster] = map[*entry]struct{}{}
				}
				byCluster[cluster][e] = struct{}{}
			}
		}
		require.Equal(t, n, len(c.at), "task %s", task)
		require.Equal(t, byCluster, c.byCluster, "task %s", task)
	}
}

// A task with many leases is treated like one with few: each owner has one lease, gets it again
// while it lives and its address when it has ended, whoever has had other addresses meanwhile.
func TestTaskWithManyLeases(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		p, err := ParsePool("p", "10.0.0.0/24")
		require.NoError(t, err)
		p.CoolDown = time.Minute
		a, err := Open(t.Context(), Config{Store: NewMemStore(), Pools: []Pool{p},
			Now: func() time.Time { return now }})
		require.NoError(t, err)
		owner := func(i int) Owner {
			return Owner{Task: "T", Overrides: map[string]string{fmt.Sprint("c", i): "v"}}
		}
		held := map[int]Lease{}
		last := map[int]netip.Addr{} // of an owner without a lease
		taken := map[netip.Addr]bool{}
		allocate := func(i int) {
			l, err := a.Allocate(t.Context(), Request{Owner: owner(i)})
			require.NoError(t, err)
			if have, ok := held[i]; ok {
				require.Equal(t, have.ID, l.ID)
			} else if addr, ok := last[i]; ok && !taken[addr] {
				require.Equal(t, addr, l.Addr)
			}
			taken[l.Addr] = false
			for j, addr := range last { // it was free: another owner had it last
				if addr == l.Addr {
					delete(last, j)
				}
			}
			held[i] = l
			delete(last, i)
		}
		for i := range rapid.IntRange(20, 60).Draw(t, "leases") {
			allocate(i)
		}
		n, others := len(held), 0
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) { allocate(rapid.IntRange(0, n).Draw(t, "i")) },
			"release": func(t *rapid.T) {
				i := rapid.IntRange(0, n).Draw(t, "i")
				if l, ok := held[i]; ok {
					_, err := a.Release(t.Context(), l.ID, "")
					require.NoError(t, err)
					last[i] = l.Addr
					delete(held, i)
				}
			},
			"both clusters": func(t *rapid.T) {
				i := rapid.IntRange(0, n-1).Draw(t, "i")
				two := owner(i)
				two.Overrides[fmt.Sprint("c", i+1)] = "v"
				l, err := a.Allocate(t.Context(), Request{Owner: two})
				_, first := held[i]
				_, second := held[i+1]
				if first || second {
					require.ErrorIs(t, err, ErrConflict)
					return
				}
				require.NoError(t, err)
				taken[l.Addr] = true // as the last address of an owner of one cluster
				_, err = a.Release(t.Context(), l.ID, "")
				require.NoError(t, err)
			},
			"another task": func(t *rapid.T) {
				i := rapid.IntRange(0, n).Draw(t, "i")
				addr, ok := last[i]
				if now = now.Add(2 * time.Minute); !ok {
					return
				}
				others++
				l, err := a.Allocate(t.Context(), Request{Addr: addr,
					Owner: Owner{Task: fmt.Sprint("other-", others)}})
				if err != nil { // one of this task has it again
					require.ErrorIs(t, err, ErrTaken)
					return
				}
				taken[addr] = true
				_, err = a.Release(t.Context(), l.ID, "")
				require.NoError(t, err)
			},
			"": func(t *rapid.T) { crowdsAreRight(t, a.x) },
		})
	})
}
