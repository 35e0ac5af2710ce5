package vip

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A lease that was stored under names of an older grammar can be used like any other, and affects
// no other.
func TestOlderNames(t *testing.T) {
	t.Parallel()
	const task, cluster, version = "a task\nof long ago", "商品 Web", "1.0+rc"
	at := netip.MustParseAddr("10.0.0.1")
	now := time.Now()
	old := &tenure{Lease: Lease{
		Generation: 1, Addr: at, Pool: "p", State: Leased, TTL: time.Hour, Acquired: now,
		Expires: now.Add(time.Hour),
		ID:      newLeaseID(at.String(), 1),
		Owner:   Owner{Task: task, Overrides: map[string]string{cluster: version}},
		Binding: Binding{
			Instances: []Instance{{ID: "an id", Addr: netip.MustParseAddrPort("192.0.2.1:80"),
				Cluster: cluster, Version: version}},
			Since: now,
		},
	}}
	for _, shared := range []bool{false, true} {
		store := NewMemStore()
		_, err := store.Commit(t.Context(), Change{Key: addrPrefix + at.String(),
			Value: encodeTenure(old)},
			Change{Key: ownerPrefix + task, Value: []byte(at.String() + "\n")})
		require.NoError(t, err)
		p, err := ParsePool("p", "10.0.0.1-10.0.0.2")
		require.NoError(t, err)
		cfg := Config{Store: store, Pools: []Pool{p}}
		if shared {
			cfg.Store = Shared(store)
		}
		a, err := Open(t.Context(), cfg)
		require.NoError(t, err)

		for _, q := range []Query{{}, {Task: task}, {Cluster: cluster, Version: version},
			{Instance: "an id"}} {
			require.Len(t, a.List(q), 1, "%+v", q)
		}
		got, err := a.Get(t.Context(), old.ID)
		require.NoError(t, err)
		require.Equal(t, old.Owner, got.Owner)
		_, err = a.Renew(t.Context(), old.ID, 2*time.Hour)
		require.NoError(t, err)
		moved := Instance{ID: "an id", Addr: netip.MustParseAddrPort("192.0.2.2:80"),
			Cluster: cluster, Version: version}
		_, err = a.Bind(t.Context(), old.ID, []Instance{moved})
		require.NoError(t, err, "an instance that was bound has moved")
		_, err = a.Bind(t.Context(), old.ID, nil)
		require.NoError(t, err)
		moved.ID = ""
		_, err = a.Bind(t.Context(), old.ID, []Instance{moved})
		require.NoError(t, err, "the cluster and version are those that the lease overrides")
		moved.ID = "an id"
		_, err = a.Bind(t.Context(), old.ID, []Instance{moved})
		require.ErrorIs(t, err, ErrInvalid, "the instance is not bound any more")
		other, err := a.Allocate(t.Context(), Request{Owner: Owner{Task: "T1"}})
		require.NoError(t, err)
		require.NotEqual(t, at, other.Addr)
		again, err := a.Allocate(t.Context(), Request{Owner: old.Owner})
		require.NoError(t, err)
		require.Equal(t, at, again.Addr, "the task has a lease already")
		ended, err := a.Release(t.Context(), old.ID, "done")
		require.NoError(t, err)
		_, err = a.Allocate(t.Context(), Request{Owner: old.Owner})
		require.ErrorIs(t, err, ErrInvalid, "a new lease follows the grammar")
		require.Equal(t, Cooling, ended.State)
		past, err := a.History(t.Context(), at)
		require.NoError(t, err)
		require.Equal(t, task, past[len(past)-1].Owner.Task)
		require.NoError(t, a.Sweep(t.Context()))
	}
}
