package mirror_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// MinInterval and Watch go by Config.Now: by a clock at a tenth of the speed they take ten times as
// long.
func TestNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		dir := t.TempDir()
		nginx := &paperNginx{dir: dir, pid: 100}
		m, err := mirror.New(mirror.Config{
			Source: &bundle.DirSource{}, Nginx: nginx, Driver: nginx, Dir: dir,
			Rules:       transform.Rules{Listen: map[int]int{80: 8080}},
			MinInterval: time.Hour, Watch: time.Second,
			Now: func() time.Time { return start.Add(time.Since(start) / 10) },
		})
		require.NoError(t, err)
		sync := func(text string) time.Duration {
			before := time.Now()
			b, err := bundle.New(map[string]bundle.File{"nginx.conf": {Mode: 0o644, Text: text}},
				bundle.Limits{})
			require.NoError(t, err)
			require.NoError(t, m.Sync(t.Context(), b))
			return time.Since(before)
		}
		require.GreaterOrEqual(t, sync("http { server { listen 80; } }"), 10*time.Second)
		require.GreaterOrEqual(t, sync("http { gzip on; server { listen 80; } }"), 10*time.Hour)
	})
}
