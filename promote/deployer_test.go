package promote_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/deployertest"
)

// TestReferenceDeployer holds the deployer of this package's tests to the contract that Promoter
// relies on.
func TestReferenceDeployer(t *testing.T) {
	t.Parallel()
	deployertest.Run(t, func(t *testing.T) deployertest.Harness {
		image := func(n int) promote.Deployment {
			return promote.Deployment{Version: fmt.Sprint("v", n), Digest: digest(n),
				Repository: "registry:5000/web"}
		}
		broken := image(9)
		w := newWorld()
		w.setFault(func(ctx context.Context, d promote.Deployment) error {
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case d.Digest == broken.Digest && d.Generation >= w.newest(d.Target):
				w.see(d)
				return errors.New("the registry has no such image")
			}
			return nil
		})
		var n atomic.Int64
		return deployertest.Harness{
			Deployer: w, Images: [2]promote.Deployment{image(1), image(2)}, Broken: broken,
			Target: func() promote.Target {
				return promote.Target{Cluster: fmt.Sprint("web", n.Add(1)), Environment: "test"}
			},
			Running: func(_ *testing.T, target promote.Target) []promote.Digest {
				if d, ok := w.snapshot()[target]; ok {
					return []promote.Digest{d}
				}
				return nil
			},
			Crash: func(*testing.T) promote.Deployer { return w }, // a world outlives its processes
		}
	})
}
