package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Sentinels of [Engine.Build]; ErrInvalid is of [Load], [Template.Render], [Template.CheckContext]
// and the constructors of engines, too.
var (
	// ErrInvalid: the request itself is wrong, so that building it again does not help. A fault in
	// the Dockerfile, or in the context at one of its instructions, comes as a [*DockerfileError].
	// Nothing was pushed.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: another engine may build this. An instruction that an engine lacks comes as
	// an [*UnsupportedError]. Nothing was pushed.
	ErrUnsupported = errors.New("unsupported")
	// ErrTagExists: the tag names another image and Request.ReplaceTag is not set. It comes as a
	// [*TagExistsError]. The tag is as it was.
	ErrTagExists = errors.New("tag exists")
)

// Engine builds one image and pushes it. Implementations are safe for concurrent use and return a
// Result only after the registry has acknowledged the image and, when asked for, the tag. They call
// [Check] first. When ctx ends they give up with an error that wraps its cause.
// enginetest.Run holds an engine to this contract.
type Engine interface {
	Build(ctx context.Context, r Request) (Result, error)
}

// Request is one build.
type Request struct {
	// ID names the build for an engine that carries it out in another process and finds it there
	// again: the same request under the same ID is the same build. 1 to 63 letters, digits, ".",
	// "_" and "-". The default is a build of its own for each call.
	ID string
	// Dockerfile is the text to build: as a rule, the output of [Template.Render].
	Dockerfile []byte
	// Context holds the files for COPY and ADD, and .dockerignore when there is one. Nil is an
	// empty context. For a directory use [RootFS], which cannot be led out of it.
	Context fs.FS
	// Repository is where to push, registry included: "registry.example.com/team/hello_web".
	Repository string
	// Tag is the name of the image in the repository, and the name of a version: 1 to 63 letters,
	// digits, ".", "_" and "-". The default is none: the image is pushed by digest only.
	Tag string
	// ReplaceTag lets Tag move from the image that it names now. The default is that a tag
	// never moves.
	ReplaceTag bool
	// Args are values for ARG. A value that no ARG declares is ignored, and the log says so. Every
	// engine knows SOURCE_DATE_EPOCH: the time, in seconds since 1970, that the image and its files
	// carry. The default is 0.
	Args map[string]string
	// Platforms are the platforms to build for, such as "linux/arm64", each once: one image for
	// each, and for more than one an index, whose digest is the version's. An engine that cannot
	// build for one returns ErrUnsupported. The default is the engine's own platform.
	Platforms []string
	// Contexts are the contexts of single platforms of Platforms, in place of Context: programs are
	// of one architecture. [Program] gives the one for a platform. The default is Context for all.
	Contexts map[string]fs.FS
	// Labels are set on the image over those of the Dockerfile.
	Labels map[string]string
	// Log receives one line or more per step, for a person to read. Nil discards them. An error of
	// Log is ignored.
	Log io.Writer
	// Events receives the events of Log as values, in order, from the goroutine that called Build,
	// which waits for it. Nil discards them.
	Events func(Event)
}

// SourceDateEpoch is the build argument for the time that an image and its files carry
// (reproducible-builds.org/specs/source-date-epoch).
const SourceDateEpoch = "SOURCE_DATE_EPOCH"

// SourceDate returns the time that the image and its files carry: that of [SourceDateEpoch], by
// default the start of 1970. Another text than a number of seconds up to the year 2242 is
// [ErrInvalid].
func (r *Request) SourceDate() (time.Time, error) {
	v, ok := r.Args[SourceDateEpoch]
	if !ok {
		return time.Unix(0, 0).UTC(), nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > 1<<33-1 {
		return time.Time{}, fmt.Errorf("build argument %s: %q is not a number of seconds since "+
			"1970: %w", SourceDateEpoch, v, ErrInvalid)
	}
	return time.Unix(n, 0).UTC(), nil
}

// Validate returns every problem that can be found without a registry or the context, joined, each
// wrapping [ErrInvalid]: an ID or a Tag that is no name, the argument BUILDKIT_SYNTAX, which lets a
// request choose another parser, a SOURCE_DATE_EPOCH that is no time, platforms that are none or
// are there twice, a context of a platform that is not asked for, and the findings of [Lint] that
// are errors.
func (r *Request) Validate() error {
	errs := lintErrors(r.Dockerfile)
	if _, ok := r.Args["BUILDKIT_SYNTAX"]; ok {
		errs = append(errs, fmt.Errorf("build argument BUILDKIT_SYNTAX: leave it out: %w",
			ErrInvalid))
	}
	if _, err := r.SourceDate(); err != nil {
		errs = append(errs, err)
	}
	if r.ID != "" {
		if err := names.Task(r.ID); err != nil {
			errs = append(errs, fmt.Errorf("id: %w: %w", err, ErrInvalid))
		}
	}
	errs = append(errs, r.platformErrors()...)
	if r.Tag != "" {
		if err := names.Version(r.Tag); err != nil {
			errs = append(errs, fmt.Errorf("tag: %w: %w", err, ErrInvalid))
		}
	}
	return errors.Join(errs...)
}

// platformWord is os/architecture with an optional variant.
var platformWord = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$`)

func (r *Request) platformErrors() (errs []error) {
	for i, p := range r.Platforms {
		switch {
		case !platformWord.MatchString(p):
			errs = append(errs, fmt.Errorf("platform %s: want os/architecture, such as "+
				"linux/arm64: %w", names.Quote(p), ErrInvalid))
		case slices.Contains(r.Platforms[:i], p):
			errs = append(errs, fmt.Errorf("platform %s is there twice: %w", p, ErrInvalid))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.Contexts)) {
		if !slices.Contains(r.Platforms, p) {
			errs = append(errs, fmt.Errorf("context of the platform %s: the request has no such "+
				"platform: %w", names.Quote(p), ErrInvalid))
		}
	}
	return errs
}

// Result is a finished build.
type Result struct {
	// Digest is the digest that the tag names, "sha256:…": of the index if there is one, else of
	// the image's manifest.
	Digest string `json:"digest"`
	// Reference is repository@digest.
	Reference string `json:"reference"`
	// Base is the base image by digest, even where the Dockerfile names it by tag; "" for scratch.
	Base string `json:"base,omitempty"`
	// Size is the number of bytes of manifests, configurations and compressed layers: what a puller
	// of all platforms transfers.
	Size int64 `json:"size"`
	// Uploaded and Reused are bytes of layers and configuration that were sent to the registry, and
	// that it had already.
	Uploaded int64 `json:"uploaded"`
	Reused   int64 `json:"reused"`
	// Layers are the image's layers, base first; of an index the layers of the first platform.
	Layers []Layer `json:"layers"`
	// Images are the images of an index, in the order of the platforms; nil where Digest is an
	// image's.
	Images []PlatformImage `json:"images,omitempty"`
}

// PlatformImage is the image of an index for one platform.
type PlatformImage struct {
	// Platform is os/architecture or os/architecture/variant.
	Platform string `json:"platform"`
	// Digest is the digest of the image's manifest.
	Digest string `json:"digest"`
	// Attestation is the digest of the manifest with the attestations of the image; "" for none.
	Attestation string `json:"attestation,omitempty"`
}

// Layer is one layer of the built image.
type Layer struct {
	Digest string `json:"digest"`
	// Size is in bytes, compressed.
	Size int64 `json:"size"`
	// CreatedBy is the instruction that made the layer, as the Dockerfile has it; "" for layers of
	// the base image.
	CreatedBy string `json:"createdBy,omitempty"`
	// Reused says that the registry had the layer already.
	Reused bool `json:"reused"`
}

// TagExistsError says that a tag names another image already. It is [ErrTagExists].
type TagExistsError struct {
	// Reference is repository:tag.
	Reference string
	// Existing is the digest that the tag names, Built the one that the build gave.
	Existing, Built string
}

func (e *TagExistsError) Error() string {
	return fmt.Sprintf("tag %s names %s already, the build gave %s: choose another tag, a tag is "+
		"never moved unasked",
		e.Reference, e.Existing, e.Built)
}

// Is reports whether target is [ErrTagExists].
func (e *TagExistsError) Is(target error) bool { return target == ErrTagExists }

// DockerfileError is a problem at one line of a Dockerfile. It is [ErrInvalid].
type DockerfileError struct {
	// Line is counted from 1; 0 concerns the whole file.
	Line int
	// Instruction is the instruction as the Dockerfile has it; "" when it could not be read.
	Instruction string
	Err         error
}

func (e *DockerfileError) Error() string {
	where := "Dockerfile"
	if e.Line > 0 {
		where = fmt.Sprintf("Dockerfile line %d", e.Line)
	}
	if e.Instruction != "" {
		where += ": " + e.Instruction
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

func at(line int, format string, args ...any) error {
	return &DockerfileError{Line: line, Err: fmt.Errorf(format, args...)}
}

// Is reports whether target is [ErrInvalid].
func (e *DockerfileError) Is(target error) bool { return target == ErrInvalid }

// Unwrap returns the cause.
func (e *DockerfileError) Unwrap() error { return e.Err }

// UnsupportedError says which instruction an engine cannot build. It is [ErrUnsupported].
type UnsupportedError struct {
	// Line is the instruction's line in the Dockerfile.
	Line int
	// What is the instruction, or the part of it.
	What string
	// Hint says what to do.
	Hint string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("Dockerfile line %d: %s is not supported by this engine: %s", e.Line, e.What,
		e.Hint)
}

// Is reports whether target is [ErrUnsupported].
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }
