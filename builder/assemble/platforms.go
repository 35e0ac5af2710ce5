package assemble

import (
	"debug/elf"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/elfhead"
)

// platforms are the platforms of a request, the engine's own without any.
func (e *Engine) platforms(r builder.Request) ([]v1.Platform, error) {
	if len(r.Platforms) == 0 {
		return []v1.Platform{e.config.Platform}, nil
	}
	var all []v1.Platform
	for _, text := range r.Platforms {
		p, err := v1.ParsePlatform(text)
		if err != nil {
			return nil, fmt.Errorf("platform %q: %w: %w", text, err, builder.ErrInvalid)
		}
		all = append(all, *p)
	}
	return all, nil
}

// forPlatform is the request with the context of the platform.
func forPlatform(r builder.Request, p v1.Platform) builder.Request {
	if own, ok := r.Contexts[p.String()]; ok {
		r.Context = own
	}
	return r
}

// built is the image for one platform.
type built struct {
	stage       *stage
	platform    v1.Platform
	image       v1.Image
	attestation v1.Image // nil without attestations
}

// product is the image or index that a build pushes.
type product interface {
	remote.Taggable
	Digest() (v1.Hash, error)
	Size() (int64, error)
}

// product is the one image, or the index that is the version where there are several images or
// attestations.
func (b *build) product(images []built) (product, error) {
	if len(images) == 1 && images[0].attestation == nil {
		return images[0].image, nil
	}
	var add []mutate.IndexAddendum
	for _, i := range images {
		platform := i.platform
		add = append(add, mutate.IndexAddendum{Add: i.image,
			Descriptor: v1.Descriptor{Platform: &platform}})
	}
	for _, i := range images {
		if i.attestation == nil {
			continue
		}
		digest, err := i.image.Digest()
		if err != nil {
			return nil, err
		}
		add = append(add, mutate.IndexAddendum{Add: i.attestation, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{
				"vnd.docker.reference.digest": digest.String(),
				"vnd.docker.reference.type":   "attestation-manifest",
			}}})
	}
	return mutate.AppendManifests(empty.Index, add...), nil
}

// write pushes an image, or an index with its images.
func write(to name.Reference, p product, options []remote.Option) error {
	if index, ok := p.(v1.ImageIndex); ok {
		return remote.WriteIndex(to, index, options...)
	}
	return remote.Write(to, p.(v1.Image), options...)
}

// one builds the image for one platform.
func (b *build) one(r builder.Request, to name.Repository) (built, error) {
	s, err := b.run()
	if err != nil {
		return built{}, err
	}
	for _, k := range slices.Sorted(maps.Keys(b.plan.args)) {
		if !b.declared[k] && k != builder.SourceDateEpoch {
			s.log.note("build argument %s is declared by no ARG and ignored", k)
		}
	}
	if err := s.programs(len(r.Platforms) > 1); err != nil {
		return built{}, err
	}
	maps.Copy(s.labels(), r.Labels)
	img, err := s.finish(to)
	if err != nil {
		return built{}, err
	}
	done := built{stage: s, platform: b.platform, image: img}
	if b.engine.config.SBOM || b.engine.config.Provenance {
		if done.attestation, err = s.attest(r, to, img); err != nil {
			return built{}, fmt.Errorf("attestations: %w", err)
		}
	}
	return done, nil
}

// programs looks for programs of another architecture than the image's among the files that the
// build adds: an error of a build for several platforms, which has one context for all of them by
// default, else a line of the log.
func (s *stage) programs(several bool) error {
	want, known := elfhead.Of(s.platform.Architecture)
	if !known || s.platform.OS != "linux" {
		return nil
	}
	for _, file := range slices.Sorted(maps.Keys(s.tree)) {
		n := s.tree[file]
		if n.made == nil || n.kind != isFile || n.mode&0o111 == 0 || n.size < elfhead.Size {
			continue
		}
		machine, err := machineOf(n)
		if err != nil {
			return err
		}
		if machine == elf.EM_NONE || machine == want {
			continue
		}
		text := fmt.Sprintf("/%s is a program for %s, the image is for %s", file, machine,
			s.platform)
		if several {
			return fmt.Errorf("%s: give each platform a context of its own, or copy by "+
				"$TARGETARCH: %w", text, builder.ErrInvalid)
		}
		s.log.note("%s", text)
	}
	return nil
}

// machineOf returns the architecture of a program, EM_NONE for a file that is none.
func machineOf(n node) (elf.Machine, error) {
	r, err := n.made.open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var head [elfhead.Size]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return elf.EM_NONE, nil // it has shrunk, which writing the layer has seen
	}
	return elfhead.Machine(head[:]), nil
}
