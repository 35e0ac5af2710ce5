//go:build linux

package consulstore_test

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
	"github.com/sluice-deploy/sluice/vip/storetest"
)

// open returns a store under a prefix of its own, which is removed afterwards: the server may have
// other users.
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

func TestStore(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	t.Run("contract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) vip.Store {
			return open(t, server, consulstore.Config{})
		})
	})
}
