//go:build linux

package consulstore_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
)

// follower runs an allocator that reads the store of a server when that has changed, and otherwise
// once an hour.
func follower(t *testing.T, server *consul.Server, prefix string) *vip.Allocator {
	t.Helper()
	p, err := vip.ParsePool("p", "10.0.0.0/24")
	require.NoError(t, err)
	store, err := consulstore.New(server.Client, consulstore.Config{Prefix: prefix})
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: store, Pools: []vip.Pool{p},
		Refresh: time.Hour})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return a
}

// shows waits until a lists the task, or does not list it any more.
func shows(t *testing.T, a *vip.Allocator, task string, listed bool) {
	t.Helper()
	testbed.Poll(t, fmt.Sprintf("task %s to be listed: %t", task, listed), func() error {
		found := a.List(vip.Query{Task: task, States: []vip.State{vip.Leased}})
		if (len(found) > 0) != listed {
			return fmt.Errorf("found %v", found)
		}
		return nil
	})
}

func ask(t *testing.T, a *vip.Allocator, task string) vip.Lease {
	t.Helper()
	l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: task}})
	require.NoError(t, err)
	return l
}

// A follower sees a change, and the records that a restored snapshot removes and brings back.
func TestFollowSnapshot(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	if server.Process == nil {
		t.Skip("somebody else's server is not put back")
	}
	prefix := "sluice-test/" + rand.Text() + "/"
	reads, other := follower(t, server, prefix), follower(t, server, prefix)
	ask(t, other, "kept")
	shows(t, reads, "kept", true)
	snapshot := server.Snapshot(t)

	fresh := follower(t, server, prefix)
	ask(t, other, "lost")
	shows(t, fresh, "lost", true)
	server.Restore(t, snapshot)
	shows(t, fresh, "lost", false)
	shows(t, fresh, "kept", true)
}

// A follower goes on when the leader is killed and another takes over.
func TestFollowNewLeader(t *testing.T) {
	t.Parallel()
	cluster := consul.StartCluster(t, 3)
	leader := cluster.Leader(t)
	others := cluster.Others(leader)
	prefix := "sluice-test/" + rand.Text() + "/"
	reads, writes := follower(t, others[0].Server, prefix), follower(t, others[1].Server, prefix)
	ask(t, writes, "before")
	shows(t, reads, "before", true)
	leader.Process.Kill()
	ask(t, writes, "after")
	shows(t, reads, "after", true)
}
