package assemble

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/buildcontext"
	"github.com/sluice-deploy/sluice/builder/internal/dockerfile"
	"github.com/sluice-deploy/sluice/internal/names"
)

// build is one call of [Engine.Build].
type build struct {
	ctx     context.Context
	engine  *Engine
	options []remote.Option
	plan    plan
	files   *buildcontext.Files
	dir     string // for spooled layers
	log     *progress

	platform v1.Platform
	used     map[string]v1.Hash // images of registries that the build reads, by repository

	meta     dockerfile.Environment // values of ARG before FROM
	declared map[string]bool        // names of ARG
	done     map[int]*stage
	images   map[string]*stage // that COPY --from names, by reference
	asked    int               // how often another repository was asked for a layer
}

// run builds the last stage, after the stages that it needs.
func (b *build) run() (*stage, error) {
	last := len(b.plan.stages) - 1
	b.meta = b.platformArgs(b.plan.stages[last].Name)
	for _, c := range b.plan.meta {
		c.Args = slices.Clone(c.Args)
		if err := c.Expand(b.meta.Word); err != nil {
			return nil, &builder.DockerfileError{Line: dockerfile.LineOf(c.Location()), Err: err}
		}
		values := maps.Clone(b.meta)
		b.arg(&c, values)
		b.meta = values
	}
	needed, err := b.needed(last)
	if err != nil {
		return nil, err
	}
	for _, i := range needed {
		b.log.steps += len(b.plan.stages[i].Commands) + 1
	}
	for _, i := range needed {
		if b.done[i], err = b.stage(i); err != nil {
			return nil, err
		}
	}
	return b.done[last], nil
}

// needed returns the stages that stage i is made of, in order, i last. A stage that no other needs
// is not built.
func (b *build) needed(i int) ([]int, error) {
	need := map[int]bool{}
	var visit func(i int) error
	visit = func(i int) error {
		if need[i] {
			return nil
		}
		need[i] = true
		base, err := b.baseName(i)
		if err != nil {
			return err
		}
		if j, ok := b.named(base, i); ok {
			if err := visit(j); err != nil {
				return err
			}
		}
		for _, c := range b.plan.stages[i].Commands {
			if c, ok := c.(*instructions.CopyCommand); ok && c.From != "" {
				if j, ok, err := b.copied(c.From, i); err != nil {
					return &builder.DockerfileError{Line: dockerfile.LineOf(c.Location()),
						Instruction: dockerfile.SourceOf(c), Err: err}
				} else if ok {
					if err := visit(j); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	if err := visit(i); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(need)), nil
}

// baseName is the image or stage that stage i starts from.
func (b *build) baseName(i int) (string, error) {
	s := b.plan.stages[i]
	from, err := b.meta.Word(s.BaseName)
	if err == nil && s.Platform != "" {
		err = b.samePlatform(s)
	}
	if err != nil {
		return "", &stepError{dockerfile.LineOf(s.Location), "FROM " + s.BaseName, err}
	}
	return from, nil
}

// samePlatform refuses FROM --platform of another platform than the engine's.
func (b *build) samePlatform(s instructions.Stage) error {
	text, err := b.meta.Word(s.Platform)
	if err != nil {
		return err
	}
	if p, err := v1.ParsePlatform(text); err == nil && p.Equals(b.platform) {
		return nil
	}
	return &builder.UnsupportedError{Line: dockerfile.LineOf(s.Location), What: "FROM --platform=" + text,
		Hint: "the request, or the engine's configuration, says the platform, " +
			b.platform.String()}
}

// named returns the stage before i that has the name; of two it is the later one.
func (b *build) named(name string, i int) (int, bool) {
	for j := i - 1; j >= 0; j-- {
		if n := b.plan.stages[j].Name; n != "" && strings.EqualFold(n, name) {
			return j, true
		}
	}
	return 0, false
}

// copied returns the stage before i that COPY --from names, by name or number; ok is false for an
// image.
func (b *build) copied(from string, i int) (j int, ok bool, err error) {
	if j, ok := b.named(from, i); ok {
		return j, true, nil
	}
	n, err := strconv.Atoi(from)
	if err != nil {
		return 0, false, nil
	}
	if n < 0 || n >= i {
		return 0, false, fmt.Errorf("--from=%d: no stage before this one has the number: stages "+
			"are counted from 0", n)
	}
	return n, true, nil
}

// stage builds stage i, whose needs are built.
func (b *build) stage(i int) (*stage, error) {
	p := b.plan.stages[i]
	line := dockerfile.LineOf(p.Location)
	b.log.step(line, p.SourceCode)
	from, err := b.baseName(i)
	if err != nil {
		return nil, err
	}
	s := &stage{build: b, number: i}
	if j, ok := b.named(from, i); ok {
		s.continueFrom(b.done[j])
	} else if err := s.start(from); err != nil {
		return nil, &stepError{line, "FROM " + from, err}
	} else {
		s.vars = dockerfile.Environment{}
		for _, kv := range s.config.Config.Env {
			k, v, _ := strings.Cut(kv, "=")
			s.vars[k] = v
		}
	}
	for _, c := range p.Commands {
		if err := s.step(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// continueFrom starts a stage with the image of another.
func (s *stage) continueFrom(other *stage) {
	s.base, s.baseFiles, s.baseName = other.base, other.baseFiles, other.baseName
	s.layerType, s.config = other.layerType, other.config.DeepCopy()
	s.startInterval, s.tree = other.startInterval, maps.Clone(other.tree)
	s.layers, s.history = slices.Clone(other.layers), slices.Clone(other.history)
	s.vars = maps.Clone(other.vars) // of ARG too, as in BuildKit
}

// context is the origin of files without --from.
func (b *build) context() origin { return origin{files: b.files} }

// from is the origin that COPY --from names, "" for the build context.
func (s *stage) from(name string) (origin, error) {
	if name == "" {
		return s.context(), nil
	}
	j, ok, err := s.copied(name, s.number)
	if err != nil {
		return origin{}, err
	}
	source := s.done[j]
	if !ok {
		if source, err = s.image(name); err != nil {
			return origin{}, fmt.Errorf("--from=%s: %w", names.Quote(name), err)
		}
	}
	return origin{image: true, files: buildcontext.OfImage(newImageFS(source),
		"image or stage "+name)}, nil
}

// image returns the image of a registry as a stage without instructions.
func (b *build) image(reference string) (*stage, error) {
	if s, ok := b.images[reference]; ok {
		return s, nil
	}
	s := &stage{build: b}
	if err := s.start(reference); err != nil {
		return nil, err
	}
	b.images[reference] = s
	return s, nil
}
