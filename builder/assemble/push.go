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

// push writes the image by digest, then the tag. A tag that names another image stops it before
// anything is sent.
func (s *stage) push(to target, img v1.Image, m *meter, replace bool) (builder.Result, error) {
	digest, err := img.Digest()
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
	if err := remote.Write(ref, img, s.options...); err != nil {
		return builder.Result{}, fmt.Errorf("push: %w", err)
	}
	if err := s.remember(to.repository); err != nil {
		return builder.Result{}, err
	}
	res, err := s.result(ref, img, m)
	if err != nil {
		return builder.Result{}, err
	}
	s.log.pushed(to.repository.String(), res)
	var named name.Reference = ref
	if to.tag != nil {
		if err := s.engine.tags.Write(s.ctx, *to.tag, img, digest, replace,
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

func (s *stage) result(ref name.Digest, img v1.Image, m *meter) (builder.Result, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return builder.Result{}, err
	}
	size, err := img.Size()
	if err != nil {
		return builder.Result{}, err
	}
	res := builder.Result{Digest: ref.DigestStr(), Reference: ref.String(), Base: s.baseName,
		Size: size, Layers: []builder.Layer{}}
	count := func(d v1.Descriptor) (reused bool) {
		if reused = !m.uploaded(d.Digest); reused {
			res.Reused += d.Size
		} else {
			res.Uploaded += d.Size
		}
		res.Size += d.Size
		return reused
	}
	count(manifest.Config)
	var made []string
	for _, h := range s.history {
		if !h.EmptyLayer {
			made = append(made, h.CreatedBy)
		}
	}
	first := len(manifest.Layers) - len(made)
	for i, d := range manifest.Layers {
		l := builder.Layer{Digest: d.Digest.String(), Size: d.Size, Reused: count(d)}
		if i >= first {
			l.CreatedBy = made[i-first]
		}
		res.Layers = append(res.Layers, l)
	}
	return res, nil
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
