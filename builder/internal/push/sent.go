package push

import (
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sluice-deploy/sluice/builder"
)

// Sent knows the blobs that an engine has pushed, for engines whose program does not say what it
// sent. The zero value knows none. It is safe for concurrent use.
type Sent struct {
	mu    sync.Mutex
	blobs map[string]bool // repository@digest
}

// Add adds the configuration and the layers of a pushed image to res: their sizes, as reused when
// an earlier image brought them to the repository, and the layers with the instructions in made,
// which may be fewer.
func (s *Sent) Add(res *builder.Result, repository string, image *v1.Manifest, made []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs == nil {
		s.blobs = map[string]bool{}
	}
	count := func(d v1.Descriptor) (there bool) {
		at := repository + "@" + d.Digest.String()
		there, s.blobs[at] = s.blobs[at], true
		if res.Size += d.Size; there {
			res.Reused += d.Size
		} else {
			res.Uploaded += d.Size
		}
		return there
	}
	count(image.Config)
	for i, d := range image.Layers {
		l := builder.Layer{Digest: d.Digest.String(), Size: d.Size, Reused: count(d)}
		if i < len(made) {
			l.CreatedBy = made[i]
		}
		res.Layers = append(res.Layers, l)
	}
}
