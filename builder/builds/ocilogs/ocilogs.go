// Package ocilogs keeps the logs of builds in a repository of an OCI registry, beside the images.
//
// A log is one artifact, whose layers are its parts, under a tag that is made of the build's name.
// A read checks each part by its digest. Short appends are joined: a log of any number of appends
// has a layer for each 256 KiB.
//
// Registries have no compare-and-set for tags, so one process at a time may write a log; in package
// kubejob that is the owner of the build. Appends of one Store are in order, and one that another
// process overtook is builds.ErrConflict where the registry shows it at once.
package ocilogs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/internal/push"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/internal/ociref"
)

// The types of an artifact and of its layers.
const (
	ArtifactType = "application/vnd.sluice.build.log.v1+json"
	LayerType    = "text/plain; charset=utf-8"
)

// join is the size from which on a layer gets no more appends.
const join = 256 << 10

// nameKey is the annotation of an artifact with the build's name: artifacts of equal logs stay
// apart.
const nameKey = "org.opencontainers.image.title"

// Config says where a [Store] is.
type Config struct {
	// Repository has the logs, registry included: "registry.example.com/platform/logs". Required.
	Repository string
	// Transport carries the requests. The default, for nil, is go-containerregistry's.
	Transport http.RoundTripper
	// Keychain finds credentials. The default, for nil, is the Docker configuration file of the
	// process's user, else none.
	Keychain authn.Keychain
	// Insecure lists registries, as host:port, that speak plain HTTP, besides loopback and private
	// addresses. The default is none.
	Insecure []string
}

// Store keeps logs in a repository. All methods are safe for concurrent use.
type Store struct {
	config     Config
	repository name.Repository

	mu      sync.Mutex
	writing map[string]*writing // by tag
}

// writing is held by the append to a log that is under way.
type writing struct {
	sync.Mutex
	users int
}

var _ builds.Logs = (*Store)(nil)

// New returns a store, or every problem of cfg at once, each wrapping builder.ErrInvalid. It does
// no I/O.
func New(cfg Config) (*Store, error) {
	var errs []error
	repository, err := name.NewRepository(cfg.Repository, append(ociref.NameOptions(cfg.Insecure,
		cfg.Repository), name.StrictValidation)...)
	if err != nil {
		errs = append(errs, fmt.Errorf("ocilogs: Config.Repository: %q: want registry/repository: "+
			"%w", cfg.Repository, builder.ErrInvalid))
	}
	for _, err := range ociref.CheckInsecure("Config.Insecure", cfg.Insecure) {
		errs = append(errs, fmt.Errorf("ocilogs: %w: %w", err, builder.ErrInvalid))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if cfg.Transport == nil {
		cfg.Transport = remote.DefaultTransport
	}
	if cfg.Keychain == nil {
		cfg.Keychain = authn.DefaultKeychain
	}
	return &Store{config: cfg, repository: repository, writing: map[string]*writing{}}, nil
}

func (s *Store) options(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(s.config.Transport),
		remote.WithAuthFromKeychain(s.config.Keychain), remote.WithUserAgent("sluice")}
}

func (s *Store) tag(build string) name.Tag { return s.repository.Tag(names.DNSLabel(build)) }

// lock lets one append or removal at a time work on a log.
func (s *Store) lock(tag name.Tag) (unlock func()) {
	s.mu.Lock()
	w := s.writing[tag.TagStr()]
	if w == nil {
		w = &writing{}
		s.writing[tag.TagStr()] = w
	}
	w.users++
	s.mu.Unlock()
	w.Lock()
	return func() {
		w.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.users--; w.users == 0 {
			delete(s.writing, tag.TagStr())
		}
	}
}

// manifest is the manifest of a log as the registry has it.
type manifest struct {
	v1.Manifest
	ArtifactType string `json:"artifactType,omitempty"`
	raw          []byte
}

// RawManifest and MediaType let remote.Put write it.
func (m *manifest) RawManifest() ([]byte, error)        { return m.raw, nil }
func (m *manifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (m *manifest) size() (n int64) {
	for _, l := range m.Layers {
		n += l.Size
	}
	return n
}

// get returns the manifest of a log, without layers where there is none.
func (s *Store) get(ctx context.Context, tag name.Tag) (*manifest, error) {
	d, err := remote.Get(tag, s.options(ctx)...)
	if push.Answered(err, http.StatusNotFound) {
		return &manifest{}, nil
	}
	if err != nil {
		return nil, err
	}
	m := &manifest{raw: d.Manifest}
	if err := json.Unmarshal(d.Manifest, m); err != nil {
		return nil, fmt.Errorf("%s: %w", tag, err)
	}
	if m.ArtifactType != ArtifactType {
		return nil, fmt.Errorf("%s: has type %q, want %s: something else has the log's name: %w",
			tag, m.ArtifactType, ArtifactType, builder.ErrInvalid)
	}
	return m, nil
}

// put writes the manifest of a log.
func (s *Store) put(ctx context.Context, tag name.Tag, build string, layers []v1.Descriptor) error {
	empty := static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
	if err := remote.WriteLayer(s.repository, empty, s.options(ctx)...); err != nil {
		return err
	}
	config, err := descriptor(empty)
	if err != nil {
		return err
	}
	m := &manifest{ArtifactType: ArtifactType, Manifest: v1.Manifest{SchemaVersion: 2,
		MediaType: types.OCIManifestSchema1, Config: config, Layers: layers,
		Annotations: map[string]string{nameKey: build}}}
	if m.raw, err = json.Marshal(m); err != nil {
		return err
	}
	return remote.Put(tag, m, s.options(ctx)...)
}

func descriptor(l v1.Layer) (v1.Descriptor, error) {
	digest, err := l.Digest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	size, err := l.Size()
	if err != nil {
		return v1.Descriptor{}, err
	}
	t, err := l.MediaType()
	return v1.Descriptor{MediaType: t, Digest: digest, Size: size}, err
}

// failed returns an error with the name of the call, and the cause of ctx where that has ended.
func failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// AppendLog implements builds.Logs.
func (s *Store) AppendLog(ctx context.Context, build string, offset int64, data []byte) error {
	what := fmt.Sprintf("append to the log of build %s at %d", build, offset)
	if ctx.Err() != nil {
		return failed(ctx, what, nil)
	}
	tag := s.tag(build)
	defer s.lock(tag)()
	m, err := s.get(ctx, tag)
	if err != nil {
		return failed(ctx, what, err)
	}
	if n := m.size(); n != offset {
		return fmt.Errorf("%s: it has %d bytes: %w", what, n, builds.ErrConflict)
	}
	if len(data) == 0 {
		return nil
	}
	layers := m.Layers
	if n := len(layers); n > 0 && layers[n-1].Size < join {
		last, err := s.read(ctx, layers[n-1])
		if err != nil {
			return failed(ctx, what, err)
		}
		data, layers = append(last, data...), layers[:n-1]
	}
	layer := static.NewLayer(data, LayerType)
	if err := remote.WriteLayer(s.repository, layer, s.options(ctx)...); err != nil {
		return failed(ctx, what, err)
	}
	d, err := descriptor(layer)
	if err != nil {
		return failed(ctx, what, err)
	}
	if err := s.put(ctx, tag, build, append(layers, d)); err != nil {
		return failed(ctx, what, err)
	}
	now, err := s.get(ctx, tag)
	if err != nil {
		return failed(ctx, what, err)
	}
	if n := len(now.Layers); n == 0 || now.Layers[n-1].Digest != d.Digest {
		return fmt.Errorf("%s: another process writes it: %w", what, builds.ErrConflict)
	}
	return nil
}

// read returns the content of a layer, checked against its digest.
func (s *Store) read(ctx context.Context, d v1.Descriptor) ([]byte, error) {
	layer, err := remote.Layer(s.repository.Digest(d.Digest.String()), s.options(ctx)...)
	if err != nil {
		return nil, err
	}
	content, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(content)
	return data, errors.Join(err, content.Close())
}

// ReadLog implements builds.Logs.
func (s *Store) ReadLog(ctx context.Context, build string, offset int64, limit int) ([]byte, int64,
	error) {
	what := fmt.Sprintf("read the log of build %s at %d", build, offset)
	if ctx.Err() != nil {
		return nil, 0, failed(ctx, what, nil)
	}
	m, err := s.get(ctx, s.tag(build))
	if err != nil {
		return nil, 0, failed(ctx, what, err)
	}
	size := m.size()
	end, at := min(size, offset+int64(limit)), int64(0)
	var data []byte
	for _, l := range m.Layers {
		from, to := max(at, offset), min(at+l.Size, end)
		if from < to {
			part, err := s.read(ctx, l)
			if err != nil {
				return nil, 0, failed(ctx, what, err)
			}
			data = append(data, part[from-at:to-at]...)
		}
		at += l.Size
	}
	return data, size, nil
}

// RemoveLog implements builds.Logs. A registry that does not delete gets an artifact without layers
// under the tag.
func (s *Store) RemoveLog(ctx context.Context, build string) error {
	what := "remove the log of build " + build
	if ctx.Err() != nil {
		return failed(ctx, what, nil)
	}
	tag := s.tag(build)
	defer s.lock(tag)()
	m, err := s.get(ctx, tag)
	if err != nil {
		return failed(ctx, what, err)
	}
	if len(m.raw) == 0 {
		return nil
	}
	digest, _, err := v1.SHA256(bytes.NewReader(m.raw))
	if err != nil {
		return failed(ctx, what, err)
	}
	err = remote.Delete(s.repository.Digest(digest.String()), s.options(ctx)...)
	if err == nil || push.Answered(err, http.StatusNotFound) {
		return nil
	}
	if ctx.Err() != nil {
		return failed(ctx, what, err)
	}
	if err := s.put(ctx, tag, build, []v1.Descriptor{}); err != nil {
		return failed(ctx, what, err)
	}
	return nil
}
