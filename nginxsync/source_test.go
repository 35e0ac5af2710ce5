package nginxsync_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/sourcetest"
)

func TestStaticSource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(*testing.T) *sourcetest.Harness {
		s := nginxsync.NewStaticSource(nginxsync.Snapshot{})
		return &sourcetest.Harness{Source: s, Set: func(next nginxsync.Snapshot) { s.Set(next) }}
	})
}
