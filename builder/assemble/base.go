package assemble

import (
	"fmt"
	"maps"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/ociref"
)

// Labels that name the base image.
const (
	labelBaseName   = "org.opencontainers.image.base.name"
	labelBaseDigest = "org.opencontainers.image.base.digest"
)

// start begins with an empty image for "scratch", else with the base image, which a tag is resolved
// to once.
func (s *stage) start(from string) error {
	s.baseFiles = &baseFiles{dir: s.dir}
	if from == "scratch" {
		s.base = mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
			types.OCIConfigJSON)
		s.layerType, s.tree = types.OCILayer, tree{}
		p := s.platform
		s.config = &v1.ConfigFile{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
		s.config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		s.config.Config.WorkingDir = "/"
		return nil
	}
	ref, err := name.ParseReference(from, ociref.NameOptions(s.engine.config.Insecure, from)...)
	if err != nil {
		return fmt.Errorf("%w: %w", err, builder.ErrInvalid)
	}
	desc, err := remote.Get(ref, s.options...)
	if err != nil {
		return err
	}
	if s.base, err = desc.Image(); err != nil {
		return err
	}
	s.baseFiles.image = s.base
	digest, err := s.base.Digest()
	if err != nil {
		return err
	}
	s.baseName = ref.Context().Digest(digest.String()).String()
	s.used[s.baseName] = digest
	if _, pinned := ref.(name.Digest); !pinned {
		s.log.note("base %s is %s today", from, digest)
	}
	config, err := s.base.ConfigFile()
	if err != nil {
		return err
	}
	if len(config.Config.OnBuild) > 0 {
		return fmt.Errorf("the base image has ONBUILD instructions: %s: %w", needsSandbox,
			builder.ErrUnsupported)
	}
	mediaType, err := s.base.MediaType()
	if err != nil {
		return err
	}
	s.layerType = types.OCILayer
	if mediaType == types.DockerManifestSchema2 {
		s.layerType = types.DockerLayer
	}
	s.config = config.DeepCopy()
	if s.startInterval, err = startInterval(s.base); err != nil {
		return err
	}
	s.labels()[labelBaseName], s.labels()[labelBaseDigest] = ref.Name(), digest.String()
	s.tree, err = s.engine.tree(digest, s.base)
	return err
}

// maxBases bounds how many base images' trees are kept; one has 10 MB for 50,000 files.
const maxBases = 8

// tree returns a copy of the base image's file system, read once per base.
func (e *Engine) tree(digest v1.Hash, base v1.Image) (tree, error) {
	e.mu.Lock()
	known, ok := e.bases[digest]
	e.mu.Unlock()
	if ok {
		return maps.Clone(known), nil
	}
	layers, err := base.Layers()
	if err != nil {
		return nil, err
	}
	t := tree{}
	for i, l := range layers {
		if err := t.add(l, i); err != nil {
			return nil, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.bases) >= maxBases {
		clear(e.bases)
	}
	e.bases[digest] = t
	return maps.Clone(t), nil
}
