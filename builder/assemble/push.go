package assemble

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/push"
)

// push writes the images by digest, then the tag. A tag that names another image stops it before
// anything is sent.
func (s *stage) push(to target, images []built, m *meter, replace bool) (builder.Result, error) {
	made, err := s.product(images)
	if err != nil {
		return builder.Result{}, err
	}
	digest, err := made.Digest()
	if err != nil {
		return builder.Result{}, err
	}
	if to.tag != nil {
		// The answer counts only right before the tag is written, but a conflict should cost no
		// upload. A registry may deny to look into a repository that the push is about to create.
		if _, err := push.Tagged(*to.tag, digest, replace,
			s.options...); err != nil && !denied(err) {
			return builder.Result{}, err
		}
	}
	ref := to.repository.Digest(digest.String())
	if err := write(ref, made, s.options); err != nil {
		return builder.Result{}, fmt.Errorf("push: %w", err)
	}
	for _, i := range images {
		if err := i.stage.remember(to.repository); err != nil {
			return builder.Result{}, err
		}
	}
	res, err := s.result(ref, made, images, m)
	if err != nil {
		return builder.Result{}, err
	}
	s.log.pushed(to.repository.String(), res)
	var named name.Reference = ref
	if to.tag != nil {
		if err := s.engine.tags.Write(s.ctx, *to.tag, made, digest, replace,
			s.options...); err != nil {
			return builder.Result{}, err
		}
		named = to.tag
	}
	got, err := remote.Head(named, s.options...)
	if err != nil {
		return builder.Result{}, fmt.Errorf("read %s back: %w", named, err)
	}
	if got.Digest != digest {
		return builder.Result{}, fmt.Errorf("%s names %s right after the push of %s: somebody "+
			"else writes the tag, or the registry "+
			"changes images", named, got.Digest, digest)
	}
	s.log.done(res, to.tag)
	return res, nil
}

func denied(err error) bool {
	return push.Answered(err, http.StatusUnauthorized) || push.Answered(err, http.StatusForbidden)
}

// result describes the pushed images: the sizes are of all images, the layers of the first.
func (s *stage) result(ref name.Digest, made product, images []built,
	m *meter) (builder.Result, error) {
	size, err := made.Size()
	if err != nil {
		return builder.Result{}, err
	}
	res := builder.Result{Digest: ref.DigestStr(), Reference: ref.String(), Base: s.baseName,
		Size: size, Layers: []builder.Layer{}}
	_, isIndex := made.(v1.ImageIndex)
	for n, i := range images {
		layers, err := m.count(&res, i.image, isIndex)
		if err != nil {
			return builder.Result{}, err
		}
		if n == 0 {
			res.Layers = i.stage.describe(layers)
		}
		if !isIndex {
			continue
		}
		image := builder.PlatformImage{Platform: i.platform.String()}
		digest, err := i.image.Digest()
		if err != nil {
			return builder.Result{}, err
		}
		image.Digest = digest.String()
		if i.attestation != nil {
			if _, err := m.count(&res, i.attestation, true); err != nil {
				return builder.Result{}, err
			}
			if digest, err = i.attestation.Digest(); err != nil {
				return builder.Result{}, err
			}
			image.Attestation = digest.String()
		}
		res.Images = append(res.Images, image)
	}
	return res, nil
}

// describe adds the instructions that made the layers.
func (s *stage) describe(layers []builder.Layer) []builder.Layer {
	var made []string
	for _, h := range s.history {
		if !h.EmptyLayer {
			made = append(made, h.CreatedBy)
		}
	}
	first := len(layers) - len(made)
	for i := range made {
		layers[first+i].CreatedBy = made[i]
	}
	return layers
}

// count adds the blobs of an image to the result, with its manifest if that is below an index, and
// returns its layers.
func (m *meter) count(res *builder.Result, img v1.Image, manifest bool) ([]builder.Layer, error) {
	parts, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	if manifest {
		size, err := img.Size()
		if err != nil {
			return nil, err
		}
		res.Size += size
	}
	blob := func(d v1.Descriptor) (reused bool) {
		if reused = !m.uploaded(d.Digest); reused {
			res.Reused += d.Size
		} else {
			res.Uploaded += d.Size
		}
		res.Size += d.Size
		return reused
	}
	blob(parts.Config)
	layers := []builder.Layer{}
	for _, d := range parts.Layers {
		layers = append(layers, builder.Layer{Digest: d.Digest.String(), Size: d.Size,
			Reused: blob(d)})
	}
	return layers, nil
}

// meter sees which blobs a build sends: the last request of an upload names the digest.
type meter struct {
	next http.RoundTripper

	mu   sync.Mutex
	sent map[string]bool
}

// RoundTrip implements http.RoundTripper.
func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := m.next.RoundTrip(r)
	if err == nil && r.Method == http.MethodPut && res.StatusCode == http.StatusCreated {
		if digest := r.URL.Query().Get("digest"); strings.HasPrefix(digest, "sha256:") {
			m.mu.Lock()
			m.sent[digest] = true
			m.mu.Unlock()
		}
	}
	return res, err
}

func (m *meter) uploaded(digest v1.Hash) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent[digest.String()]
}
