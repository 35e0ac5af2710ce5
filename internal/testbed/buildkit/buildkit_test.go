//go:build linux

package buildkit_test

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/buildkit"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

func TestBuild(t *testing.T) {
	t.Parallel()
	oci := registry.Start(t)
	d := buildkit.Start(t, oci.Addr)
	b := buildkit.Build{Context: t.TempDir(), Repository: oci.Addr + "/app", Dockerfile: "FROM " +
		image.Base(t, oci.Addr) + "\nRUN echo built >/made\nLABEL a=b\n"}
	digest, err := d.Build(t.Context(), b)
	require.NoError(t, err)
	ref, err := name.NewDigest(b.Repository + "@" + digest)
	require.NoError(t, err)
	img, err := remote.Image(ref)
	require.NoError(t, err)
	config, err := img.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "b", config.Config.Labels["a"])

	b.Dockerfile = "CPOY a b\n"
	_, err = d.Build(t.Context(), b)
	require.ErrorContains(t, err, "CPOY")
}
