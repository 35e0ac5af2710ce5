package pod

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sluice-deploy/sluice/internal/ociref"
)

func options(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx),
		remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("sluice-build")}
}

// fetch reads an order, given as repository@digest, and lays its context out in dir, which is
// empty.
func fetch(ctx context.Context, reference string, insecure []string, dir string) (Order, error) {
	ref, err := name.NewDigest(reference, ociref.NameOptions(insecure, reference)...)
	if err != nil {
		return Order{}, err
	}
	img, err := remote.Image(ref, options(ctx)...)
	if err != nil {
		return Order{}, fmt.Errorf("order %s: %w", ref, err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return Order{}, fmt.Errorf("order %s: %w", ref, err)
	}
	var o Order
	if err := json.Unmarshal(config, &o); err != nil {
		return Order{}, fmt.Errorf("order %s: %w", ref, err)
	}
	layers, err := img.Layers()
	if err != nil {
		return Order{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Order{}, err
	}
	defer root.Close()
	for _, l := range layers {
		if err := unpack(root, l); err != nil {
			return Order{}, fmt.Errorf("context of %s: %w", ref, err)
		}
	}
	return o, nil
}

func unpack(root *os.Root, l v1.Layer) (err error) {
	content, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	files := tar.NewReader(content)
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, content) // to the end: the sum is compared there
			return err
		}
		if err != nil {
			return err
		}
		at, mode := path.Clean(h.Name), fs.FileMode(h.Mode).Perm()
		if err := root.MkdirAll(path.Dir(at), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(at, mode)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, at)
		case tar.TypeReg:
			err = writeFile(root, at, mode, files)
		default:
			err = fmt.Errorf("%s: type %q of the tar file", at, h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(root *os.Root, at string, mode fs.FileMode, content io.Reader) error {
	f, err := root.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// here is the platform of this machine.
func here() *v1.Platform { return &v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH} }

// layersOf returns the number of layers of a base image, given by digest, for this machine: 0 for
// scratch, and -1 where the registry does not say.
func layersOf(ctx context.Context, reference string, insecure []string) int {
	if reference == "" {
		return 0
	}
	ref, err := name.NewDigest(reference, ociref.NameOptions(insecure, reference)...)
	if err != nil {
		return -1
	}
	img, err := remote.Image(ref, append(options(ctx), remote.WithPlatform(*here()))...)
	if err != nil {
		return -1
	}
	manifest, err := img.Manifest()
	if err != nil {
		return -1
	}
	return len(manifest.Layers)
}

// pushLog pushes the text of a log as an artifact and returns repository@digest.
func pushLog(ctx context.Context, repository string, insecure []string, text []byte) (string,
	error) {
	repo, err := name.NewRepository(repository, ociref.NameOptions(insecure, repository)...)
	if err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		static.NewLayer(text, LogType))
	if err != nil {
		return "", err
	}
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	ref := repo.Digest(digest.String())
	return ref.String(), remote.Write(ref, img, options(ctx)...)
}
