package assemble

import (
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/internal/ociref"
)

// places remembers which repository of a registry has a blob, from the pushes of this engine.
type places struct {
	mu sync.Mutex
	of map[place]name.Repository
}

type place struct {
	registry string
	digest   v1.Hash
}

// maxPlaces bounds places; at 300 bytes each they stay under 3 MB.
const maxPlaces = 10_000

func (p *places) get(registry string, digest v1.Hash) (name.Repository, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.of[place{registry, digest}]
	return r, ok
}

func (p *places) put(r name.Repository, digest v1.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil || len(p.of) >= maxPlaces {
		p.of = map[place]name.Repository{}
	}
	p.of[place{r.RegistryStr(), digest}] = r
}

// mountable lets the registry take over the layers that another of its repositories has (a
// cross-repository mount: OCI distribution specification, "Mounting a blob from another
// repository"). A layer that it cannot take over is uploaded.
func (s *stage) mountable(to name.Repository) ([]v1.Layer, error) {
	layers := make([]v1.Layer, len(s.layers))
	for i, l := range s.layers {
		layers[i] = l
		digest, err := l.Digest()
		if err != nil {
			return nil, err
		}
		size, err := l.Size()
		if err != nil {
			return nil, err
		}
		if from, ok := s.find(to, digest, size); ok {
			layers[i] = &remote.MountableLayer{Layer: l, Reference: from.Digest(digest.String())}
		}
	}
	return layers, nil
}

// find names another repository of the same registry that has the blob of that size.
func (s *stage) find(to name.Repository, digest v1.Hash, size int64) (name.Repository, bool) {
	if r, ok := s.engine.places.get(to.RegistryStr(), digest); ok {
		return r, r.String() != to.String()
	}
	if s.engine.config.Repositories == nil || size < worthAsking || s.asked >= maxAsked ||
		s.has(to, digest) {
		return name.Repository{}, false
	}
	for _, text := range s.engine.config.Repositories() {
		r, err := name.NewRepository(text, ociref.NameOptions(s.engine.config.Insecure, text)...)
		if err != nil || r.RegistryStr() != to.RegistryStr() || r.String() == to.String() {
			continue
		}
		if s.has(r, digest) {
			return r, true
		}
		if s.asked++; s.asked >= maxAsked {
			break
		}
	}
	return name.Repository{}, false
}

const (
	// maxAsked bounds how often a build asks other repositories for a layer without success: a
	// company has a thousand, and most layers are new.
	maxAsked = 2
	// worthAsking is the size, in bytes, of a layer that is sent more slowly than asked for.
	worthAsking = 256 << 10
)

// has reports whether the repository has the blob; one that may not be looked into has nothing.
func (s *stage) has(r name.Repository, digest v1.Hash) bool {
	l, err := remote.Layer(r.Digest(digest.String()), s.options...)
	if err != nil {
		return false
	}
	there, err := partial.Exists(l)
	return err == nil && there
}

// remember notes where the layers are after a push.
func (s *stage) remember(in name.Repository) error {
	for _, l := range s.layers {
		digest, err := l.Digest()
		if err != nil {
			return err
		}
		s.engine.places.put(in, digest)
	}
	return nil
}
