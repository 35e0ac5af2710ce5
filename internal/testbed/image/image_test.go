//go:build linux

package image_test

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
	"github.com/stretchr/testify/require"
)

func TestBase(t *testing.T) {
	t.Parallel()
	server := registry.Start(t)
	ref, err := name.NewDigest(image.Base(t, server.Addr))
	require.NoError(t, err)
	got, err := remote.Image(ref)
	require.NoError(t, err)
	config, err := got.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, []string{"/bin/sh"}, config.Config.Cmd)
}
