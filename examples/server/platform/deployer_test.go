package platform_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/registry"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/deployertest"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/rollouttest"
)

// TestDeployer deploys to targets past the journal, so that generations are the suite's.
func TestDeployer(t *testing.T) {
	t.Parallel()
	deployertest.Run(t, func(t *testing.T) deployertest.Harness {
		dir := t.TempDir()
		s := servertest.Start(t, servertest.Config{Dir: dir})
		host := outliving(t)
		one, two := pushed(t, s, host, "v1"), pushed(t, s, host, "v2")
		broken := missing(one)
		var n atomic.Int64
		return deployertest.Harness{
			Deployer: platform.DeployerOf(s.Platform), Images: [2]promote.Deployment{one,
				two}, Broken: broken,
			Target: func() promote.Target {
				return promote.Target{Cluster: fmt.Sprint("web", n.Add(1)), Environment: "test",
					Task: "t"}
			},
			Running: func(_ *testing.T, target promote.Target) (running []promote.Digest) {
				for _, i := range s.Platform.Instances() {
					at := promote.Target{Cluster: i.Labels["cluster"],
						Environment: i.Labels["environment"], Task: i.Labels["task"]}
					if at == target && i.Alive() {
						running = append(running, promote.Digest(i.Labels["digest"]))
					}
				}
				return running
			},
			Crash: func(*testing.T) promote.Deployer {
				s.Leave()
				s = servertest.Start(t, servertest.Config{Dir: dir})
				return platform.DeployerOf(s.Platform)
			},
		}
	})
}

// pushed builds a version and returns its image in the registry at host.
func pushed(t *testing.T, s *servertest.Server, host, version string) promote.Deployment {
	build := s.MustBuild(t, "hello_web", version)
	copyImage(t, s.Registry+"/hello_web@"+build.Digest, host+"/hello_web@"+build.Digest)
	return promote.Deployment{Version: version, Digest: promote.Digest(build.Digest),
		Repository: host + "/hello_web"}
}

// missing is an image that the registry does not have.
func missing(beside promote.Deployment) promote.Deployment {
	return promote.Deployment{Version: "v3", Repository: beside.Repository,
		Digest: promote.Digest("sha256:" + strings.Repeat("0", 64))}
}

// TestInstances holds the processes of this machine to the contract of a rollout.
func TestInstances(t *testing.T) {
	t.Parallel()
	rollouttest.Run(t, rollouttest.Harness{
		Instances: func(t *testing.T) rollouttest.InstancesHarness {
			dir := t.TempDir()
			s := servertest.Start(t, servertest.Config{Dir: dir})
			host := outliving(t)
			image := func(d promote.Deployment) rollout.Image {
				return rollout.Image{Version: d.Version, Digest: d.Digest,
					Repository: d.Repository}
			}
			one, two := pushed(t, s, host, "v1"), pushed(t, s, host, "v2")
			// images are pulled from the server's registry, wherever a record says they are
			images := [2]rollout.Image{image(one), image(two)}
			for n := range images {
				images[n].Repository = s.Registry + "/hello_web"
			}
			broken := image(missing(one))
			broken.Repository = images[0].Repository
			var n atomic.Int64
			return rollouttest.InstancesHarness{
				Instances: platform.InstancesOf(s.Platform), Images: images, Broken: broken,
				Target: func() promote.Target {
					return promote.Target{Cluster: fmt.Sprint("web", n.Add(1)),
						Environment: "test", Task: "t"}
				},
			}
		},
	})
}

// outliving returns the host:port of a registry that a restart of the server leaves alone.
func outliving(t *testing.T) string {
	images, err := registry.Open(t.Context(), registry.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	server := httptest.NewServer(images)
	t.Cleanup(func() {
		server.Close()
		require.NoError(t, images.Close())
	})
	return server.Listener.Addr().String()
}

func copyImage(t *testing.T, from, to string) {
	source, err := name.NewDigest(from)
	require.NoError(t, err)
	image, err := remote.Image(source)
	require.NoError(t, err)
	target, err := name.NewDigest(to)
	require.NoError(t, err)
	require.NoError(t, remote.Write(target, image))
}
