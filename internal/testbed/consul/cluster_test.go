//go:build linux

package consul_test

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
)

func get(t *testing.T, s *consul.Server) (string, uint64) {
	t.Helper()
	var pair *api.KVPair
	var meta *api.QueryMeta
	testbed.Poll(t, "a leader answers", func() (err error) {
		pair, meta, err = s.Client.KV().Get("testbed/key",
			&api.QueryOptions{RequireConsistent: true})
		return err
	})
	require.NotNil(t, pair)
	return string(pair.Value), meta.LastIndex
}

func TestTheLeaderOfThreeIsKilledAndANewOneAnswers(t *testing.T) {
	t.Parallel()
	c := consul.StartCluster(t, 3)
	old := c.Leader(t)
	put(t, old.Server, "old")
	snapshot := old.Snapshot(t)
	old.Process.Kill()
	leader := c.Leader(t)
	require.NotEqual(t, old.Addr, leader.Addr)
	value, _ := get(t, leader.Server)
	require.Equal(t, "old", value)
	for range 20 {
		put(t, leader.Server, "new")
	}
	_, after := get(t, leader.Server)
	old.Process.Start()
	value, _ = get(t, old.Server)
	require.Equal(t, "new", value)

	c.Leader(t).Restore(t, snapshot)
	for _, m := range c.Members {
		value, index := get(t, m.Server)
		require.Equal(t, "old", value)
		require.Less(t, index, after, "the index is turned back")
	}
}

func TestALeaderThatLosesTheOthersAnswersNoMore(t *testing.T) {
	t.Parallel()
	c := consul.StartCluster(t, 3)
	old := c.Leader(t)
	put(t, old.Server, "before")
	for _, m := range c.Others(old) {
		old.Part(m.Host)
	}
	leader := c.Leader(t)
	require.NotEqual(t, old.Addr, leader.Addr)
	put(t, leader.Server, "after")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err := old.Client.KV().Get("testbed/key",
		(&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	require.Error(t, err)
	stale, _, err := old.Client.KV().Get("testbed/key", &api.QueryOptions{AllowStale: true})
	require.NoError(t, err, "the test reaches it")
	require.Equal(t, "before", string(stale.Value))

	old.Heal()
	testbed.Poll(t, "it is back", func() error {
		_, _, err := old.Client.KV().Get("testbed/key", &api.QueryOptions{RequireConsistent: true})
		return err
	})
	value, _ := get(t, old.Server)
	require.Equal(t, "after", value)
}

func TestALeaderThatHangsIsReplaced(t *testing.T) {
	t.Parallel()
	c := consul.StartCluster(t, 3)
	old := c.Leader(t)
	put(t, old.Server, "kept")
	old.Process.Pause()
	leader := c.Leader(t)
	require.NotEqual(t, old.Addr, leader.Addr)
	old.Process.Resume()
	testbed.Poll(t, "it follows", func() error {
		_, _, err := old.Client.KV().Get("testbed/key", &api.QueryOptions{RequireConsistent: true})
		return err
	})
}

func TestAClusterWithAccessControlRefusesRequestsWithoutAToken(t *testing.T) {
	t.Parallel()
	c := consul.StartGuarded(t, 3)
	leader := c.Leader(t)
	put(t, leader.Server, "guarded")
	for _, m := range c.Members {
		other, err := api.NewClient(&api.Config{Address: m.Addr})
		require.NoError(t, err)
		_, err = other.KV().Put(&api.KVPair{Key: "testbed/key", Value: []byte("x")}, nil)
		require.ErrorContains(t, err, "403")
		value, _ := get(t, m.Server)
		require.Equal(t, "guarded", value)
	}
}
