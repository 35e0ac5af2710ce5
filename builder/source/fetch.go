package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/redact"
	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
)

// Fetcher fetches the files of a source. Implementations are safe for concurrent use.
// sourcetest.Run holds one to this contract.
type Fetcher interface {
	// Fetch fills r.Dir and returns the identity of the files. After an error r.Dir is empty again,
	// and r.Scratch is empty in any case. When ctx ends, the error wraps its cause. A wrong Source
	// is builder.ErrInvalid; every other error is a [*builder.Failure], without values of
	// secrets.
	Fetch(ctx context.Context, r Request) (Identity, error)
}

// Request asks for the files of one source.
type Request struct {
	Source Source
	// Pinned is the identity of an earlier fetch. The fetch then gives the same files again, or
	// fails with the reason builder.ReasonSourceChanged. The default, the zero Identity, takes the
	// source as it is now.
	Pinned Identity
	// Secrets has the values of the names in Source.Secrets.
	Secrets map[string]string
	// Limits bound the files.
	Limits Limits
	// Dir receives the files; Scratch is for temporary files. Both are empty directories of this
	// fetch alone, on one file system. Required, except for [Spool.Fetch].
	Dir, Scratch string
	// Log receives a line or more, for a person to read. Nil discards them.
	Log io.Writer
}

// Limits bound one fetch.
type Limits struct {
	// Bytes is the sum of the sizes of all files, and how many bytes are transferred. The default
	// is 2 GiB.
	Bytes int64
	// Files is the number of files, directories and links. The default is 200,000.
	Files int
}

const (
	defaultBytes = 2 << 30
	defaultFiles = 200_000
)

// OrDefault returns l with the defaults for zeros.
func (l Limits) OrDefault() Limits {
	if l.Bytes == 0 {
		l.Bytes = defaultBytes
	}
	if l.Files == 0 {
		l.Files = defaultFiles
	}
	return l
}

// Identity names the files that a fetch gave.
type Identity struct {
	Kind Kind `json:"kind"`
	// ID is the commit of git, "sha256:…" of the archive as it was served, the digest of the
	// artifact's manifest, or for rsync the digest of names, modes, contents and
	// links of the tree.
	ID string `json:"id"`
	// Files counts files, directories and links, Bytes the content of the files.
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// String is "git commit …: 3 files, 20 bytes".
func (i Identity) String() string {
	if i == (Identity{}) {
		return "no source"
	}
	what := map[Kind]string{KindRsync: "rsync tree ", KindGit: "git commit ",
		KindArchive: "archive ", KindArtifact: "artifact "}[i.Kind]
	return fmt.Sprintf("%s%s: %d files, %d bytes", what, i.ID, i.Files, i.Bytes)
}

// Set is a [Fetcher] for sources of several kinds. A source of a kind without one is
// builder.ErrInvalid.
type Set struct {
	Rsync, Git, Archive, Artifact Fetcher
}

var _ Fetcher = Set{}

// Fetch implements Fetcher.
func (s Set) Fetch(ctx context.Context, r Request) (Identity, error) {
	kind := r.Source.Kind()
	f := map[Kind]Fetcher{KindRsync: s.Rsync, KindGit: s.Git, KindArchive: s.Archive,
		KindArtifact: s.Artifact}[kind]
	if f == nil {
		return Identity{}, fmt.Errorf("fetch %s: this builder has no fetcher of kind %q: use "+
			"another kind of source: %w", r.Source, kind, builder.ErrInvalid)
	}
	return f.Fetch(ctx, r)
}

// Run is the frame of a Fetcher of one kind: it checks the request, sets its defaults, says in the
// log which source is fetched, and calls fetch. It empties r.Scratch afterwards, and r.Dir after an
// error.
func Run(ctx context.Context, r Request, kind Kind,
	fetch func(context.Context, Request) (Identity, error)) (id Identity, err error) {
	if r, err = begin(ctx, r, kind); err != nil {
		return Identity{}, err
	}
	defer func() {
		dirs := []string{r.Scratch}
		if err != nil {
			dirs = append(dirs, r.Dir)
		}
		err = errors.Join(err, tree.Empty(dirs...))
	}()
	fmt.Fprintf(r.Log, "fetch %s\n", r.Source)
	return fetch(ctx, r)
}

// begin checks a request, and returns it with its defaults.
func begin(ctx context.Context, r Request, kind Kind) (Request, error) {
	if ctx.Err() != nil {
		return r, fmt.Errorf("fetch %s: %w", r.Source, context.Cause(ctx))
	}
	if err := r.Source.Validate(); err != nil {
		return r, err
	}
	if got := r.Source.Kind(); got != kind {
		return r, fmt.Errorf("fetch %s: kind %q: want %q: %w", r.Source, got, kind,
			builder.ErrInvalid)
	}
	if r.Limits.Bytes < 0 || r.Limits.Files < 0 || r.Dir == "" || r.Scratch == "" {
		return r, fmt.Errorf("fetch %s: limits of %d bytes and %d files into %q by %q: want "+
			"limits of 0 or more and two directories: %w", r.Source, r.Limits.Bytes,
			r.Limits.Files, r.Dir, r.Scratch, builder.ErrInvalid)
	}
	if r.Pinned != (Identity{}) && r.Pinned.Kind != kind {
		return r, fmt.Errorf("fetch %s: pinned to %s, of another kind: %w", r.Source, r.Pinned,
			builder.ErrInvalid)
	}
	r.Limits = r.Limits.OrDefault()
	if r.Log == nil {
		r.Log = io.Discard
	}
	for _, name := range r.Source.Secrets() {
		if r.Secrets[name] == "" {
			return r, Fail(r, builder.ReasonSourceDenied, fmt.Errorf("secret %s has no value",
				name), "give the builder a value for the secret")
		}
		if strings.ContainsAny(r.Secrets[name], "\r\n\x00") {
			return r, Fail(r, builder.ReasonSourceDenied, fmt.Errorf("the value of secret %s has "+
				"more than one line", name), "write the password alone, without an end of line")
		}
	}
	return r, nil
}

// Fail is the failure of a fetch: err, without values of r.Secrets, with a hint for a person.
// The reasons that may go away by themselves are retryable.
func Fail(r Request, reason builder.Reason, err error, hint string,
	evidence ...string) *builder.Failure {
	f := &builder.Failure{Reason: reason, Hint: hint,
		Retryable: reason == builder.ReasonSourceAway || reason == builder.ReasonInfrastructure}
	f.Message = Redact(fmt.Sprintf("fetch %s: %v", r.Source, err), r.Secrets)
	f.Err = redacted{f.Message, err}
	for _, e := range evidence {
		f.Evidence = append(f.Evidence, Redact(e, r.Secrets))
	}
	return f
}

// redacted is an error with another text.
type redacted struct {
	text string
	err  error
}

func (r redacted) Error() string { return r.text }

// Is asks the error that has the text, which Unwrap must not give away.
func (r redacted) Is(target error) bool { return errors.Is(r.err, target) }

// Redact replaces the values of secrets, and their forms in URLs, base64 and hexadecimal, by "***".
// Values of fewer than 4 bytes stay.
func Redact(text string, secrets map[string]string) string {
	var masks redact.Masks
	for _, value := range secrets {
		masks.Add(value)
	}
	return masks.String(text)
}
