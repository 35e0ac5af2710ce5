//go:build linux

package consul_test

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/stretchr/testify/require"
)

func put(t *testing.T, s *consul.Server, value string) {
	t.Helper()
	testbed.Poll(t, "it is written", func() error { // a busy leader may have lost its office
		_, err := s.Client.KV().Put(&api.KVPair{Key: "testbed/key", Value: []byte(value)}, nil)
		return err
	})
	if s.Process == nil { // a server that the test did not start
		t.Cleanup(func() { _, _ = s.Client.KV().Delete("testbed/key", nil) })
	}
}

func TestABlockingQueryWakes(t *testing.T) {
	t.Parallel()
	s := consul.Start(t)
	put(t, s, "one")
	_, meta, err := s.Client.KV().Get("testbed/key", nil)
	require.NoError(t, err)
	woken := make(chan string)
	go func() {
		pair, _, err := s.Client.KV().Get("testbed/key",
			&api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 5 * time.Minute})
		if err != nil {
			woken <- err.Error()
			return
		}
		woken <- string(pair.Value)
	}()
	put(t, s, "two")
	require.Equal(t, "two", <-woken)
}

func TestConsulKeepsItsDataThroughAKill(t *testing.T) {
	t.Parallel()
	s := consul.Start(t)
	if s.Process == nil {
		t.Skip("the test did not start this Consul, and does not kill it")
	}
	put(t, s, "kept")
	s.Process.Kill()
	s.Process.Start()
	pair, _, err := s.Client.KV().Get("testbed/key", &api.QueryOptions{RequireConsistent: true})
	require.NoError(t, err)
	require.Equal(t, "kept", string(pair.Value))
}

func TestASnapshotTurnsTheIndexBack(t *testing.T) {
	t.Parallel()
	s := consul.Start(t)
	if s.Process == nil {
		t.Skip("the test did not start this Consul, and does not restore it")
	}
	put(t, s, "old")
	_, before, err := s.Client.KV().Get("testbed/key", nil)
	require.NoError(t, err)
	snapshot := s.Snapshot(t)
	for range 20 {
		put(t, s, "new")
	}
	_, after, err := s.Client.KV().Get("testbed/key", nil)
	require.NoError(t, err)
	s.Restore(t, snapshot)
	pair, restored, err := s.Client.KV().Get("testbed/key", nil)
	require.NoError(t, err)
	require.Equal(t, "old", string(pair.Value))
	require.Less(t, restored.LastIndex, after.LastIndex)
	require.GreaterOrEqual(t, restored.LastIndex, before.LastIndex)
}
