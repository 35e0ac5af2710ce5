package assemble

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/buildcontext"
	"github.com/sluice-deploy/sluice/builder/internal/push"
	"github.com/sluice-deploy/sluice/internal/ociref"
)

// Config configures an [Engine]. The zero value works.
type Config struct {
	// Transport carries the requests. The default, for nil, is go-containerregistry's, with its
	// timeouts.
	Transport http.RoundTripper
	// Keychain finds credentials. The default, for nil, is the Docker configuration file of the
	// process's user, else none.
	Keychain authn.Keychain
	// Insecure lists registries, as host:port, that speak plain HTTP. Loopback and private
	// addresses need no mention. The default is none.
	Insecure []string
	// Platform is the platform of a build whose request names none: of images on an empty base, and
	// of the image that is taken of a base that is an index. The default is linux on the
	// architecture of this process, as in promote/ociregistry.
	Platform v1.Platform
	// SBOM adds the packages of the image as an SPDX document, Provenance says what it was built
	// of, as a SLSA provenance: in-toto statements in a manifest beside the image, attached as
	// BuildKit does, so that the version is an index. The default is neither.
	SBOM, Provenance bool
	// Repositories names repositories, as host:port/name, in which a layer may be already, the most
	// likely ones first: a build asks a few of them, however many there are, and the registry takes
	// the layer over instead of receiving it. The repositories that this engine pushed to are
	// remembered without it. The default is none.
	Repositories func() []string
	// TempDir is the directory for the layers of a build. The first build of an engine removes the
	// files that a killed process has left there. The default is os.TempDir.
	TempDir string
	// Now is the clock of Observe. Nothing in an image depends on it. The default, for nil, is
	// time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of each Build as "build", with how long it took and
	// its error. It is called concurrently. The default is none.
	Observe func(op string, took time.Duration, err error)
}

func (c Config) validate() error {
	errs := ociref.CheckInsecure("Config.Insecure", c.Insecure)
	for i, err := range errs {
		errs[i] = fmt.Errorf("assemble: %w: %w", err, builder.ErrInvalid)
	}
	return errors.Join(errs...)
}

// Engine builds images in this process. It is safe for concurrent use; builds share a cache of base
// images' file systems and layers' digests, so keep one for the life of the process.
type Engine struct {
	config Config
	known  digests
	places places

	sweep sync.Once // of TempDir

	mu    sync.Mutex
	bases map[v1.Hash]tree              // never changed once here
	scans map[string]map[string]scanned // of SBOMs, by base image and file; never changed once here

	tags *push.Tags
}

var _ builder.Engine = (*Engine)(nil)

// New returns an engine, or every problem of cfg at once, each wrapping builder.ErrInvalid. It
// starts nothing and contacts no registry.
func New(cfg Config) (*Engine, error) {
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
	cfg.Platform = ociref.Platform(cfg.Platform)
	return &Engine{config: cfg, bases: map[v1.Hash]tree{}, tags: push.NewTags()}, nil
}

// Build implements [builder.Engine].
func (e *Engine) Build(ctx context.Context, r builder.Request) (builder.Result, error) {
	start := e.config.Now()
	res, err := e.build(ctx, r)
	if e.config.Observe != nil {
		e.config.Observe("build", e.config.Now().Sub(start), err)
	}
	if err != nil {
		if err = withCause(ctx, err); ctx.Err() == nil {
			err = push.Typed(err) // the end of ctx looks like a fault of the network, too
		}
		return builder.Result{}, fmt.Errorf("build %s: %w", r.Repository, err)
	}
	return res, nil
}

// withCause returns err, and when ctx has ended an error that wraps both err and the context's
// cause.
func withCause(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return fmt.Errorf("%w: %w", err, context.Cause(ctx))
}

func (e *Engine) build(ctx context.Context, r builder.Request) (_ builder.Result, err error) {
	if ctx.Err() != nil {
		return builder.Result{}, context.Cause(ctx)
	}
	if err := r.Validate(); err != nil {
		return builder.Result{}, err
	}
	plan, err := read(r) // what another engine may build is told before what is missing
	if err != nil {
		return builder.Result{}, err
	}
	platforms, err := e.platforms(r)
	if err != nil {
		return builder.Result{}, err
	}
	for _, p := range platforms {
		if _, err := builder.Check(ctx, forPlatform(r, p)); err != nil {
			return builder.Result{}, err
		}
	}
	target, err := e.target(r)
	if err != nil {
		return builder.Result{}, err
	}
	e.sweep.Do(func() { sweep(e.config.TempDir) })
	spool, err := newSpool(e.config.TempDir)
	if err != nil {
		return builder.Result{}, err
	}
	defer func() { err = errors.Join(err, spool.remove()) }()

	meter := &meter{next: e.config.Transport, sent: map[string]bool{}}
	var images []built
	for n, p := range platforms {
		r := forPlatform(r, p)
		if n > 0 { // a build fills in the variables of its plan
			if plan, err = read(r); err != nil {
				return builder.Result{}, err
			}
		}
		files, err := buildcontext.Open(r.Context)
		if err != nil {
			return builder.Result{}, err
		}
		options, err := e.options(ctx, meter, p)
		if err != nil {
			return builder.Result{}, err
		}
		b := &build{
			ctx: ctx, engine: e, options: options, plan: plan, files: files, dir: spool.dir,
			platform: p, log: &progress{request: &r}, declared: map[string]bool{},
			done: map[int]*stage{}, images: map[string]*stage{}, used: map[string]v1.Hash{},
		}
		if len(platforms) > 1 {
			b.log.note("platform %s", p)
		}
		i, err := b.one(r, target.repository)
		if err != nil {
			return builder.Result{}, err
		}
		images = append(images, i)
	}
	return images[0].stage.push(target, images, meter, r.ReplaceTag)
}

// target is where a build goes.
type target struct {
	repository name.Repository
	tag        *name.Tag
}

func (e *Engine) target(r builder.Request) (target, error) {
	options := append(ociref.NameOptions(e.config.Insecure, r.Repository), name.StrictValidation)
	repository, err := name.NewRepository(r.Repository, options...)
	if err != nil {
		return target{}, fmt.Errorf("repository: %w: %w", err, builder.ErrInvalid)
	}
	t := target{repository: repository}
	if r.Tag == "" {
		return t, nil
	}
	tag, err := name.NewTag(repository.String()+":"+r.Tag, options...)
	if err != nil {
		return target{}, fmt.Errorf("tag: %w: %w", err, builder.ErrInvalid)
	}
	t.tag = &tag
	return t, nil
}

// options are for the requests of a build to registries. They share one session for each
// repository, so that it is greeted and asked for a token once.
func (e *Engine) options(ctx context.Context, transport http.RoundTripper,
	platform v1.Platform) ([]remote.Option, error) {
	options := []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(transport),
		remote.WithAuthFromKeychain(e.config.Keychain),
		remote.WithPlatform(platform), remote.WithUserAgent("sluice"),
	}
	puller, err := remote.NewPuller(options...)
	if err != nil {
		return nil, err
	}
	pusher, err := remote.NewPusher(options...)
	if err != nil {
		return nil, err
	}
	return append(options, remote.Reuse(puller), remote.Reuse(pusher)), nil
}
