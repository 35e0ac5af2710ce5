package mirror_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// more has workers besides that of the Nginx.
type more struct {
	*paperNginx
	workers []nginxsync.Worker
}

func (m *more) State(ctx context.Context) (nginxsync.DriverState, error) {
	state, err := m.paperNginx.State(ctx)
	state.Workers = append(state.Workers, m.workers...)
	return state, err
}

func TestCheckDriftOfWorkers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	nginx := &more{paperNginx: &paperNginx{dir: dir, pid: 100}}
	m, err := mirror.New(mirror.Config{
		Source: &bundle.DirSource{}, Nginx: nginx, Driver: nginx, Dir: dir,
		Rules:       transform.Rules{Listen: map[int]int{80: 8080}},
		MinInterval: time.Millisecond, Watch: time.Millisecond,
	})
	require.NoError(t, err)
	b, err := bundle.New(map[string]bundle.File{"nginx.conf": {Mode: 0o644,
		Text: "http { server { listen 80; } }"}}, bundle.Limits{})
	require.NoError(t, err)
	require.NoError(t, m.Sync(t.Context(), b))
	nginx.workers = []nginxsync.Worker{{Slot: 1, Tree: "-"}}
	require.Empty(t, m.CheckDrift(t.Context()), "a worker that starts")
	nginx.workers = []nginxsync.Worker{{Slot: 1, PID: 7, Tree: "other"}}
	require.Len(t, m.CheckDrift(t.Context()), 1)
}
