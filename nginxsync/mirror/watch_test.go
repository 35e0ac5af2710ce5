package mirror_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

func TestWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	nginx := &paperNginx{dir: dir, pid: 100}
	var ops []string
	m, err := mirror.New(mirror.Config{
		Source: &bundle.DirSource{}, Nginx: nginx, Driver: nginx, Dir: dir,
		Rules:       transform.Rules{Listen: map[int]int{80: 8080}},
		MinInterval: time.Millisecond, Watch: time.Millisecond,
		Observe: func(op string, _ time.Duration, err error) { ops = append(ops, op) },
	})
	require.NoError(t, err)
	status, first, err := m.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, mirror.Status{}, status)

	b, err := bundle.New(map[string]bundle.File{"nginx.conf": {Mode: 0o644,
		Text: "http { server { listen 80; } }"}}, bundle.Limits{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for after := first; ; {
			status, revision, err := m.Watch(t.Context(), after)
			if err != nil || status.TreeOf == b.Digest {
				return
			}
			after = revision
		}
	})
	require.NoError(t, m.Sync(t.Context(), b))
	wg.Wait()
	m.CheckDrift(t.Context())
	require.Equal(t, []string{"stage", "compare", "reload", "sync", "drift"}, ops)

	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, _, err = m.Watch(ctx, 0)
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, m.Run(ctx), cause)
}
