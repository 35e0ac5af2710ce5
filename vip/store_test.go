package vip_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/storetest"
)

func TestMemStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) vip.Store { return vip.NewMemStore() })
}

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/vip", "net/http")
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/vip/storetest")
}

// A damaged record costs its own address until a person looks at it, and no other.
func TestADamagedRecordIsSetAside(t *testing.T) {
	t.Parallel()
	c, store, p := newClock(), vip.NewMemStore(), pool(t, "p", "10.0.0.0/28")
	a := allocator(t, store, c, vip.Config{}, p)
	hurt, fine := allocate(t, a, vip.Request{Owner: owner("T1")}),
		allocate(t, a, vip.Request{Owner: owner("T2")})
	records, err := store.Get(t.Context(), "addr/"+hurt.Addr.String())
	require.NoError(t, err)
	for i := range records[0].Value {
		value := bytes.Clone(records[0].Value)
		value[i] ^= 0x10
		rev, err := store.Get(t.Context(), records[0].Key)
		require.NoError(t, err)
		_, err = store.Commit(t.Context(), vip.Change{Key: records[0].Key, Value: value,
			Revision: rev[0].Revision})
		require.NoError(t, err)
		a = allocator(t, store, c, vip.Config{}, p)
		got := a.List(vip.Query{Addr: hurt.Addr})
		require.Len(t, got, 1)
		require.Equal(t, vip.Quarantined, got[0].State, "byte %d", i)
	}
	conserved(t, a)
	_, err = a.Renew(t.Context(), fine.ID, 0)
	require.NoError(t, err)
	_, err = a.Restore(t.Context(), hurt.Addr, "looked at")
	require.NoError(t, err)
	c.Add(130 * time.Second)
	again := allocate(t, a, vip.Request{Owner: owner("T3"), Addr: hurt.Addr})
	require.Greater(t, again.Generation, hurt.Generation, "no lease id is given twice")
}
