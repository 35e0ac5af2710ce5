package kubejob

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
)

func (e *Engine) options(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(e.config.Transport),
		remote.WithAuthFromKeychain(e.config.Keychain), remote.WithUserAgent("sluice")}
}

// pushOrder pushes an order with its context, and returns its name. The same order again sends
// nothing: registries keep content by its digest.
func (e *Engine) pushOrder(ctx context.Context, r builder.Request, repo name.Repository) (
	name.Digest, error) {
	spool, err := os.CreateTemp("", "sluice-context-*.tar")
	if err != nil {
		return name.Digest{}, err
	}
	defer os.Remove(spool.Name())
	if err := errors.Join(writeContext(ctx, spool, r.Context), spool.Close()); err != nil {
		return name.Digest{}, fmt.Errorf("build context: %w", err)
	}
	layer, err := tarball.LayerFromFile(spool.Name(), tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return name.Digest{}, err
	}
	config, err := json.Marshal(pod.Order{Repository: r.Repository,
		Dockerfile: string(r.Dockerfile), Args: r.Args, Labels: r.Labels})
	if err != nil {
		return name.Digest{}, err
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
	if err != nil {
		return name.Digest{}, err
	}
	order, err := withConfig(img, config)
	if err != nil {
		return name.Digest{}, err
	}
	digest, err := order.Digest()
	if err != nil {
		return name.Digest{}, err
	}
	ref := repo.Digest(digest.String())
	if err := remote.Write(ref, order, e.options(ctx)...); err != nil {
		return name.Digest{}, fmt.Errorf("push the order: %w", err)
	}
	return ref, nil
}

// artifact is an image with a configuration of another type.
type artifact struct {
	v1.Image
	config   []byte
	name     v1.Hash
	manifest []byte
}

func withConfig(img v1.Image, config []byte) (v1.Image, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return nil, err
	}
	manifest = manifest.DeepCopy()
	manifest.Config = v1.Descriptor{MediaType: pod.OrderType, Digest: digest, Size: size}
	text, err := json.Marshal(manifest)
	return &artifact{Image: img, config: config, name: digest, manifest: text}, err
}

func (a *artifact) RawConfigFile() ([]byte, error)  { return a.config, nil }
func (a *artifact) ConfigName() (v1.Hash, error)    { return a.name, nil }
func (a *artifact) RawManifest() ([]byte, error)    { return a.manifest, nil }
func (a *artifact) Manifest() (*v1.Manifest, error) { return partial.Manifest(a) }
func (a *artifact) Digest() (v1.Hash, error)        { return partial.Digest(a) }
func (a *artifact) Size() (int64, error)            { return partial.Size(a) }

// LayerByDigest implements v1.Image, whose configuration counts as a layer here.
func (a *artifact) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if h == a.name {
		return partial.ConfigLayer(a)
	}
	return a.Image.LayerByDigest(h)
}

// writeContext writes the files as a tar file that depends on their names, content and executable
// bits alone.
func writeContext(ctx context.Context, w io.Writer, files fs.FS) error {
	out := tar.NewWriter(w)
	if files == nil {
		return out.Close()
	}
	err := fs.WalkDir(files, ".", func(at string, d fs.DirEntry, err error) error {
		if err != nil || at == "." {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h := &tar.Header{Name: at, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		switch d.Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, at+"/", 0o755
			return out.WriteHeader(h)
		case fs.ModeSymlink:
			h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
			if h.Linkname, err = fs.ReadLink(files, at); err != nil {
				return err
			}
			return out.WriteHeader(h)
		case 0:
			return writeFile(out, h, files, at)
		}
		return nil // Check has refused it where an instruction copies it
	})
	return errors.Join(err, out.Close())
}

func writeFile(out *tar.Writer, h *tar.Header, files fs.FS, at string) (err error) {
	f, err := files.Open(at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o644, info.Size()
	if info.Mode()&0o111 != 0 {
		h.Mode = 0o755
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(out, f)
	return err
}

// result reads the image that a pod says it has pushed.
func (e *Engine) result(ctx context.Context, repo name.Repository, v *pod.Verdict) (builder.Result,
	v1.Image, error) {
	ref := repo.Digest(v.Digest)
	img, err := remote.Image(ref, e.options(ctx)...)
	if err != nil {
		return builder.Result{}, nil, fmt.Errorf("read %s back: %w", ref, err)
	}
	raw, err := img.RawManifest()
	if err != nil {
		return builder.Result{}, nil, fmt.Errorf("read %s back: %w", ref, err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return builder.Result{}, nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return builder.Result{}, nil, err
	}
	res := builder.Result{Digest: v.Digest, Reference: ref.String(), Base: v.Base,
		Size: int64(len(raw)), Layers: []builder.Layer{}}
	e.sent.Add(&res, repo.Name(), manifest, instructions(config.History, v.BaseLayers))
	return res, img, nil
}

// instructions returns the instruction that made each layer of an image, "" for the first base
// layers, which came with the base image. A negative base says that their number is not known: ""
// for all layers.
func instructions(history []v1.History, base int) []string {
	var made []string
	for _, h := range history {
		switch {
		case h.EmptyLayer:
		case base < 0 || len(made) < base:
			made = append(made, "")
		default:
			made = append(made, strings.TrimSuffix(h.CreatedBy, " # buildkit"))
		}
	}
	return made
}
