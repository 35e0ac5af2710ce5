// Package ociregistry reads the facts about an image that promote needs from an OCI registry: its
// digest, and its configuration files by environment. It never pulls the image.
//
// The configuration is read from the image label promote.ConfigLabel: manifest and image config, a
// few kilobytes of an image of any size. Without the label the layers are looked into from the top,
// up to a limit, for etc/envconfig/manifest.json, or else for the files below etc/envconfig/envs/.
// Files that an upper layer deletes do not count.
//
// The account needs the right to pull. An index is looked into for one platform.
package ociregistry

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/internal/ociref"
	"github.com/sluice-deploy/sluice/promote"
)

const (
	root         = "etc/envconfig"
	manifestPath = root + "/manifest.json"
	envsPath     = root + "/envs"
	baseName     = "_base" // the directory below envsPath whose files all environments share

	maxManifest = 1 << 20
	// Limits for the unpacked size of a layer, against archives made to keep a reader busy for a
	// day.
	unpackedFree, unpackedRatio = 8 << 20, 100
)

// Config configures a [Reader]. The zero Config works.
type Config struct {
	// Transport carries the requests. The default, for nil, is remote.DefaultTransport.
	Transport http.RoundTripper
	// Keychain finds the credentials of a registry. The default, for nil, is authn.DefaultKeychain:
	// those of docker login.
	Keychain authn.Keychain
	// Platform chooses the image of an index. The default is linux on the architecture of this
	// process, as in builder/assemble: set it where the images are for machines of another kind.
	Platform v1.Platform
	// MaxBytes limits the compressed bytes of layers that one look into an image without a label
	// may fetch. A layer that does not fit is not fetched, nor are those below it. The default is 4
	// MiB.
	MaxBytes int64
	// Insecure lists registries, as host:port, that speak plain HTTP. Loopback and private
	// addresses need no mention. The default is none.
	Insecure []string
	// Now is the clock of Observe. The default, for nil, is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of each Resolve and Configuration with its name in
	// lower case, how long it took and its error. It is called concurrently. The default is none.
	Observe func(op string, took time.Duration, err error)
}

const defaultMaxBytes = 4 << 20

func (c Config) validate() error {
	errs := ociref.CheckInsecure("Config.Insecure", c.Insecure)
	if c.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("Config.MaxBytes: %d: want 0 (default %d) or more",
			c.MaxBytes, defaultMaxBytes))
	}
	for i, err := range errs {
		errs[i] = fmt.Errorf("ociregistry: %w: %w", err, promote.ErrInvalid)
	}
	return errors.Join(errs...)
}

// Reader reads from registries. It is safe for concurrent use.
type Reader struct {
	options  []remote.Option
	insecure []string
	maxBytes int64
	now      func() time.Time
	observe  func(op string, took time.Duration, err error)
}

var _ promote.ConfigSource = (*Reader)(nil)

// New returns a Reader, or every problem of cfg at once. It contacts no registry.
func New(cfg Config) (*Reader, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Transport == nil {
		cfg.Transport = remote.DefaultTransport
	}
	if cfg.Keychain == nil {
		cfg.Keychain = authn.DefaultKeychain
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Reader{
		now: cfg.Now, observe: cfg.Observe,
		insecure: slices.Clone(cfg.Insecure), maxBytes: cmp.Or(cfg.MaxBytes, defaultMaxBytes),
		options: []remote.Option{
			remote.WithTransport(cfg.Transport), remote.WithAuthFromKeychain(cfg.Keychain),
			remote.WithPlatform(ociref.Platform(cfg.Platform)),
		},
	}, nil
}

// watched returns the function to defer that reports a call to Config.Observe.
func (r *Reader) watched(op string, err *error) func() {
	if r.observe == nil {
		return func() {}
	}
	start := r.now()
	return func() { r.observe(op, r.now().Sub(start), *err) }
}

// with returns the options of requests that end with ctx. The slice is a copy: calls run side by
// side.
func (r *Reader) with(ctx context.Context) []remote.Option {
	return append(slices.Clone(r.options), remote.WithContext(ctx))
}

// withCause returns err, and when ctx has ended an error that wraps both err and the context's
// cause.
func withCause(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return fmt.Errorf("%w: %w", err, context.Cause(ctx))
}

// Resolve returns the digest that a reference such as registry/repository:tag stands for now, by
// one HEAD request.
func (r *Reader) Resolve(ctx context.Context, reference string) (_ promote.Digest, err error) {
	defer r.watched("resolve", &err)()
	ref, err := name.ParseReference(reference, ociref.NameOptions(r.insecure, reference)...)
	if err != nil {
		return "", fmt.Errorf("resolve: reference %w: %w", err, promote.ErrInvalid)
	}
	head, err := remote.Head(ref, r.with(ctx)...)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", reference, withCause(ctx, err))
	}
	return promote.ParseDigest(head.Digest.String())
}

// Configuration implements promote.ConfigSource. An image that carries nothing is not an error. A
// label or manifest that cannot be parsed is.
func (r *Reader) Configuration(ctx context.Context, repository string,
	d promote.Digest) (_ promote.Configuration, err error) {
	defer r.watched("configuration", &err)()
	c, err := r.configuration(ctx, repository, d)
	if err != nil {
		return promote.Configuration{}, withCause(ctx, err)
	}
	return c, nil
}

func (r *Reader) configuration(ctx context.Context, repository string,
	d promote.Digest) (promote.Configuration, error) {
	ref, err := name.NewDigest(repository+"@"+d.String(),
		ociref.NameOptions(r.insecure, repository)...)
	if err != nil {
		return promote.Configuration{}, fmt.Errorf("image: %w: %w", err, promote.ErrInvalid)
	}
	img, err := remote.Image(ref, r.with(ctx)...)
	if err != nil {
		return promote.Configuration{}, fmt.Errorf("manifest: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return promote.Configuration{}, fmt.Errorf("image config: %w", err)
	}
	if label, ok := file.Config.Labels[promote.ConfigLabel]; ok {
		c, err := promote.ParseConfiguration([]byte(label))
		if err != nil {
			return c, fmt.Errorf("label %s: %w", promote.ConfigLabel, err)
		}
		return c, nil
	}
	return scan(img, r.maxBytes)
}

// scan looks into the layers of img from the top.
func scan(img v1.Image, budget int64) (promote.Configuration, error) {
	layers, err := img.Layers()
	if err != nil {
		return promote.Configuration{}, fmt.Errorf("layers: %w", err)
	}
	found := tree{files: map[string]bool{}}
	var unread string
	for i, layer := range slices.Backward(layers) {
		size, err := layer.Size()
		if err != nil {
			return promote.Configuration{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
		if size > budget {
			unread = fmt.Sprintf("the lowest %d of %d layers were not looked into, as layer %d "+
				"has %d bytes and %d are left of the limit: set the label %s",
				i+1, len(layers), i+1, size, budget, promote.ConfigLabel)
			break
		}
		budget -= size
		manifest, err := found.add(layer, unpackedFree+unpackedRatio*size)
		if err != nil {
			return promote.Configuration{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
		if manifest != nil {
			c, err := promote.ParseConfiguration(manifest)
			if err != nil {
				return c, fmt.Errorf("layer %d: %s: %w", i+1, manifestPath, err)
			}
			return c, nil
		}
	}
	c := found.configuration()
	c.Unread = unread
	return c, nil
}

// tree holds the files below etc/envconfig that the layers read so far leave visible.
type tree struct {
	files  map[string]bool // a directory of that name in a lower layer does not show
	hidden []string        // paths that lower layers can no longer show, nor anything below them
}

// add takes in the next lower layer, and returns the content of the manifest when it is there to be
// seen.
func (t *tree) add(layer v1.Layer, limit int64) ([]byte, error) {
	content, err := layer.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	bounded := &io.LimitedReader{R: content, N: limit}
	var hides []string // a layer hides only what is below it
	for archive := tar.NewReader(bounded); ; {
		header, err := archive.Next()
		if bounded.N <= 0 { // the archive seems to end here, and does not
			return nil, fmt.Errorf("unpacks to more than %d bytes", limit)
		}
		if err == io.EOF {
			hides = slices.DeleteFunc(hides, func(h string) bool {
				return !within(h, root) &&
					!within(root, h)
			})
			t.hidden = append(t.hidden, hides...)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		file := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		dir, base := path.Split(file)
		switch {
		case base == ".wh..wh..opq":
			hides = append(hides, strings.TrimSuffix(dir, "/"))
		case strings.HasPrefix(base, ".wh."):
			hides = append(hides, dir+strings.TrimPrefix(base, ".wh."))
		case header.Typeflag == tar.TypeDir || t.hides(file):
		case within(envsPath, file): // not a directory, so nothing of lower layers is below it
			hides = append(hides, file)
		case file == manifestPath:
			data, err := io.ReadAll(io.LimitReader(archive, maxManifest+1))
			if len(data) > maxManifest {
				err = errors.Join(err, fmt.Errorf("%s has more than %d bytes", manifestPath,
					maxManifest))
			}
			return data, err
		case within(file, envsPath):
			t.files[file] = true
		}
	}
}

func (t *tree) hides(file string) bool {
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		if t.files[dir] {
			return true
		}
	}
	return slices.ContainsFunc(t.hidden, func(h string) bool { return within(file, h) })
}

// within reports whether file is dir or below it; the empty dir is the root.
func within(file, dir string) bool {
	return dir == "" || file == dir || strings.HasPrefix(file, dir+"/")
}

func (t *tree) configuration() promote.Configuration {
	byEnvironment := map[string][]string{}
	for file := range t.files {
		environment, target, ok := strings.Cut(strings.TrimPrefix(file, envsPath+"/"), "/")
		if ok {
			byEnvironment[environment] = append(byEnvironment[environment], target)
		}
	}
	base := byEnvironment[baseName]
	delete(byEnvironment, baseName)
	c := promote.Configuration{Environments: byEnvironment}
	for environment, files := range byEnvironment {
		files = append(files, base...)
		slices.Sort(files)
		byEnvironment[environment] = slices.Compact(files)
	}
	c.Required = c.Union()
	return c
}
