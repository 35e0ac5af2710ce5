//go:build linux

package linearizable_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/linearizable"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
)

// open opens a store under a prefix that no other test has. The records are removed afterwards,
// because the server may be one that others use.
func open(t testing.TB, server *consul.Server, cfg consulstore.Config) *consulstore.Store {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = "sluice-test/" + rand.Text() + "/"
	}
	s, err := consulstore.New(server.Client, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = server.Client.KV().DeleteTree(cfg.Prefix, nil) })
	return s
}

func shared(t *testing.T, store vip.Store, load linearizable.Load) *vip.Allocator {
	t.Helper()
	a, err := vip.Open(t.Context(), vip.Config{Store: store, Pools: []vip.Pool{load.Pool()},
		Refresh: 100 * time.Millisecond})
	require.NoError(t, err)
	return a
}

// Four allocators in one process share a store in Consul.
func TestConsul(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	var total linearizable.Counts
	for seed := range uint64(5) {
		load := linearizable.Load{Seed: seed, Callers: 8, Calls: 30, Tasks: 7, Size: 4}
		store := open(t, server, consulstore.Config{})
		var all []*vip.Allocator
		for range 4 {
			all = append(all, shared(t, store, load))
		}
		total.Add(linearizable.Check(t, all, load))
	}
	t.Logf("%+v", total)
	require.NotZero(t, total.Allocated)
	require.Zero(t, total.Unknown)
}
