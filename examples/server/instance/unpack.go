package instance

import (
	"context"
	"fmt"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/examples/server/untar"
)

// unpack pulls the image, whose bytes are checked against its digest, and writes its file system
// below root.
func unpack(ctx context.Context, image, root string) (*v1.Config, error) {
	ref, err := name.NewDigest(image)
	if err != nil {
		return nil, fmt.Errorf("image %q: expected a reference by digest: %w", image, err)
	}
	pulled, err := remote.Image(ref, remote.WithContext(ctx),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", image, err)
	}
	config, err := pulled.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", image, err)
	}
	pulledLayers, err := pulled.Layers()
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", image, err)
	}
	layers := make([]untar.Layer, len(pulledLayers))
	for n, layer := range pulledLayers {
		layers[n] = layer.Uncompressed
	}
	if err := untar.Image(ctx, root, layers); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", image, err)
	}
	return &config.Config, nil
}
