// Package artifactsource fetches OCI artifacts from registries.
//
// An artifact is an image manifest, named by its digest. Its layers are unpacked in their order:
// tar files, plain or compressed with gzip or zstd, or single files with the annotation
// org.opencontainers.image.title, which is the name. Manifest and layers are compared with their
// digests.
package artifactsource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
	"github.com/sluice-deploy/sluice/builder/source/internal/unpack"
	"github.com/sluice-deploy/sluice/internal/ociref"
)

// Config configures a [Fetcher]. The zero value works.
type Config struct {
	// Transport carries the requests. The default, for nil, is go-containerregistry's, with its
	// timeouts.
	Transport http.RoundTripper
	// Keychain finds the credentials of a source without a secret. The default, for nil, has none.
	Keychain authn.Keychain
	// Insecure lists registries, as host:port, that speak plain HTTP. Loopback and private
	// addresses need no mention. The default is none.
	Insecure []string
}

func (c Config) validate() error {
	errs := ociref.CheckInsecure("Config.Insecure", c.Insecure)
	for i, err := range errs {
		errs[i] = fmt.Errorf("artifactsource: %w: %w", err, builder.ErrInvalid)
	}
	return errors.Join(errs...)
}

// Fetcher fetches artifacts. It is safe for concurrent use.
type Fetcher struct{ config Config }

var _ source.Fetcher = (*Fetcher)(nil)

// New returns a fetcher, or every problem of cfg at once, each wrapping builder.ErrInvalid. It does
// no I/O.
func New(cfg Config) (*Fetcher, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Transport == nil {
		cfg.Transport = remote.DefaultTransport
	}
	if cfg.Keychain == nil {
		cfg.Keychain = authn.NewMultiKeychain()
	}
	return &Fetcher{cfg}, nil
}

// Fetch implements source.Fetcher.
func (f *Fetcher) Fetch(ctx context.Context, r source.Request) (source.Identity, error) {
	return source.Run(ctx, r, source.KindArtifact, f.fetch)
}

func (f *Fetcher) fetch(ctx context.Context, r source.Request) (source.Identity, error) {
	id, err := f.run(ctx, r)
	if err != nil {
		return source.Identity{}, failure(ctx, r, err)
	}
	return id, nil
}

func (f *Fetcher) run(ctx context.Context, r source.Request) (source.Identity, error) {
	a := r.Source.Artifact
	ref, err := name.NewDigest(a.Reference, ociref.NameOptions(f.config.Insecure, a.Reference)...)
	if err != nil {
		return source.Identity{}, fmt.Errorf("%w: %w", err, builder.ErrInvalid)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(f.config.Transport)}
	if a.Secret != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: a.User,
			Password: r.Secrets[a.Secret]}))
	} else {
		options = append(options, remote.WithAuthFromKeychain(f.config.Keychain))
	}
	got, err := remote.Get(ref, options...)
	if err != nil {
		return source.Identity{}, err
	}
	if got.MediaType.IsIndex() {
		return source.Identity{}, fmt.Errorf("it is an index of several: name one of its "+
			"manifests: %w", tree.ErrRefused)
	}
	img, err := got.Image()
	if err != nil {
		return source.Identity{}, err
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(got.Manifest, &manifest); err != nil {
		return source.Identity{}, errors.Join(err, tree.ErrRefused)
	}
	id := source.Identity{Kind: source.KindArtifact, ID: got.Digest.String()}
	id.Files, id.Bytes, err = layers(ctx, r, img, manifest.Layers)
	return id, err
}

// layers writes the layers below r.Dir.
func layers(ctx context.Context, r source.Request, img v1.Image, list []v1.Descriptor) (files int,
	size int64, err error) {
	var sent int64
	for _, l := range list {
		if l.Size < 0 || l.Size > r.Limits.Bytes-sent {
			return 0, 0, fmt.Errorf("its layers have more than %d bytes: %w", r.Limits.Bytes,
				tree.ErrRefused)
		}
		sent += l.Size
	}
	if len(list) == 0 {
		return 0, 0, fmt.Errorf("it has no layers: %w", tree.ErrRefused)
	}
	w, err := tree.NewWriter(r.Dir, tree.Limits(r.Limits))
	if err != nil {
		return 0, 0, err
	}
	defer w.Abort()
	for _, l := range list {
		if err := layer(ctx, r, w, img, l); err != nil {
			return 0, 0, fmt.Errorf("layer %s: %w", l.Digest, err)
		}
	}
	return w.Close()
}

const title = "org.opencontainers.image.title"

// layer fetches a layer into the scratch directory, compares it with its digest, and writes its
// files.
func layer(ctx context.Context, r source.Request, w *tree.Writer, img v1.Image,
	d v1.Descriptor) error {
	l, err := img.LayerByDigest(d.Digest)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(r.Scratch, "layer"), os.O_RDWR|os.O_CREATE|os.O_TRUNC,
		0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	content, err := l.Compressed()
	if err != nil {
		return err
	}
	defer content.Close()
	if _, err := io.Copy(file, io.LimitReader(content, d.Size+1)); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if named := d.Annotations[title]; named != "" && !isTar(d.MediaType) {
		clean, err := tree.Clean(named)
		if err != nil {
			return err
		}
		return w.File(clean, 0o644, d.Size, file)
	}
	return unpack.Tar(ctx, w, file, true)
}

// isTar reports whether a media type says that the layer is a tar file.
func isTar(t types.MediaType) bool {
	s := string(t)
	return strings.HasSuffix(s, "tar") || strings.Contains(s, "tar+") || strings.Contains(s, "tar.")
}

// failure says why a fetch did not succeed.
func failure(ctx context.Context, r source.Request, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("fetch %s: %w", r.Source, context.Cause(ctx))
	}
	var answer *transport.Error
	var path *fs.PathError
	switch {
	case errors.Is(err, builder.ErrInvalid):
		return fmt.Errorf("fetch %s: %w", r.Source, err)
	case errors.As(err, &answer):
		reason, hint := ofStatus(answer.StatusCode)
		return source.Fail(r, reason, err, hint,
			fmt.Sprintf("the registry answered with status %d", answer.StatusCode))
	case errors.Is(err, tree.ErrRefused):
		return source.Fail(r, builder.ReasonSourceRefused, err,
			"correct the artifact, or raise the limits of the builder")
	case errors.As(err, &path):
		return source.Fail(r, builder.ReasonInfrastructure, err,
			"look whether the builder's disk has room")
	}
	return source.Fail(r, builder.ReasonSourceAway, err,
		"look whether the registry runs and can be reached")
}

func ofStatus(status int) (builder.Reason, string) {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return builder.ReasonSourceDenied, "look at the user, the secret and its rights"
	case status == http.StatusNotFound:
		return builder.ReasonSourceNotFound, "look at the reference"
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout ||
		status >= http.StatusInternalServerError:
		return builder.ReasonSourceAway, "try again; look at the log of the registry"
	}
	return builder.ReasonSourceRefused, "look at the rules of the registry"
}
