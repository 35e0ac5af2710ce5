// Package sourcetest holds fetchers of sources to their contract.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
)

// File is a regular file, or a symbolic link if Link is set. Names bring their directories.
type File struct {
	Name    string
	Mode    fs.FileMode // permission bits of a file: 0644 or 0755
	Content string
	Link    string
}

// Harness is a fetcher with servers that serve to it. Each of its functions is called by one test
// at a time, but tests run at once.
type Harness struct {
	Fetcher source.Fetcher
	// Serve serves a tree of files and returns its source.
	Serve func(t *testing.T, files []File) source.Source
	// Change replaces the files that Serve served. Nil is for a source that cannot change.
	Change func(t *testing.T, s source.Source, files []File)
	// Kept says that a changed source still gives the files before the change to a pinned request.
	Kept bool
	// Secured is Serve with the credentials user and the value of the secret "password" asked for.
	// Nil leaves the cases out.
	Secured func(t *testing.T, files []File, user, value string) source.Source
	// Missing is a source that a living server does not have, Gone one of a server that is not
	// there, Hangs one of a server that takes the connection and never answers.
	Missing, Gone, Hangs source.Source
	// NoLinkOut says that Serve cannot serve a link that leads out of the tree.
	NoLinkOut bool
}

// Run runs the suite. open returns a harness each time, and cleans up after itself with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Harness){
		"files, modes and links are exact":            exact,
		"the same content has the same identity":      stable,
		"a pinned fetch gives the same or fails":      pinned,
		"more bytes than the limit are refused":       manyBytes,
		"more files than the limit are refused":       manyFiles,
		"a link out of the tree is refused":           linkOut,
		"what is not there is not found":              missing,
		"a server that is away can be tried again":    gone,
		"a server that hangs is left at the deadline": hangs,
		"a fetch that is cut off leaves no file":      cutOff,
		"a cancelled fetch returns the cause":         cancelled,
		"wrong requests are invalid":                  invalid,
		"credentials are used and not told":           secured,
		"fetches at once do not mix":                  atOnce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// Sample is a tree with names, modes and contents that fetchers may get wrong.
func Sample() []File {
	return []File{
		{Name: "bin/start.sh", Mode: 0o755, Content: "#!/bin/sh\nexit 0\n"},
		{Name: "conf/app.properties", Mode: 0o644, Content: "a=1\r\nb=2\r\n"}, // line ends stay
		{Name: "conf/current", Link: "app.properties"},
		{Name: "conf/up", Link: "../bin"},
		{Name: "dangling", Link: "not/there"},
		{Name: "empty", Mode: 0o644},
		{Name: "name with spaces and ümlaut", Mode: 0o644, Content: "x"},
		{Name: ".gitattributes", Mode: 0o644, Content: "* text=auto eol=lf export-subst\n" +
			"bin export-ignore\n"},
		{Name: "binary", Mode: 0o644, Content: string([]byte{0, 1, 2, 255, '\n', 0})},
		{Name: "deep/a/b/c/d/e/f", Mode: 0o644, Content: strings.Repeat("deep\n", 20_000)},
	}
}

// call is a fetch with directories of its own.
type call struct {
	request source.Request
	log     *bytes.Buffer
}

func newCall(t *testing.T, s source.Source) call {
	t.Helper()
	c := call{source.Request{Source: s, Dir: t.TempDir(), Scratch: t.TempDir()}, &bytes.Buffer{}}
	c.request.Log = c.log
	return c
}

// fetch fetches, for at most two minutes.
func (c call) fetch(t *testing.T, h Harness) (source.Identity, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return h.Fetcher.Fetch(ctx, c.request)
}

func (c call) succeeds(t *testing.T, h Harness) source.Identity {
	t.Helper()
	id, err := c.fetch(t, h)
	if err != nil {
		t.Fatalf("fetch %s: %v (%v)", c.request.Source, err, builder.FailureOf(err).Evidence)
	}
	if left := names(t, c.request.Scratch); len(left) != 0 {
		t.Errorf("the scratch directory has %q after a fetch", left)
	}
	return id
}

// fails fetches and wants a failure of the reason and empty directories.
func (c call) fails(t *testing.T, h Harness, want builder.Reason) *builder.Failure {
	t.Helper()
	_, err := c.fetch(t, h)
	return c.failed(t, err, want)
}

func (c call) failed(t *testing.T, err error, want builder.Reason) *builder.Failure {
	t.Helper()
	var f *builder.Failure
	if !errors.As(err, &f) {
		t.Fatalf("fetch %s: got %v, want a builder.Failure", c.request.Source, err)
	}
	if f.Reason != want || f.Hint == "" || f.Message == "" {
		t.Errorf("got %+v, want reason %s with a message and a hint", *f, want)
	}
	if retry := want == builder.ReasonSourceAway; f.Retryable != retry {
		t.Errorf("got %v, want it retryable: %v", f, retry)
	}
	c.empty(t)
	return f
}

func (c call) empty(t *testing.T) {
	t.Helper()
	for _, dir := range []string{c.request.Dir, c.request.Scratch} {
		if left := names(t, dir); len(left) != 0 {
			t.Errorf("a fetch that failed has left %q", left)
		}
	}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// describe lists a tree, one entry a line.
func describe(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		if e.Type() == fs.ModeSymlink {
			to, err := os.Readlink(at)
			list = append(list, fmt.Sprintf("%s -> %s", rel, to))
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(at)
		list = append(list, fmt.Sprintf("%s %v %q", rel, info.Mode(), content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

func wanted(files []File) string {
	var list []string
	for _, f := range files {
		if f.Link != "" {
			list = append(list, fmt.Sprintf("%s -> %s", f.Name, f.Link))
		} else {
			list = append(list, fmt.Sprintf("%s %v %q", f.Name, f.Mode, f.Content))
		}
	}
	slices.Sort(list)
	return strings.Join(list, "\n")
}

func exact(t *testing.T, h Harness) {
	files := Sample()
	c := newCall(t, h.Serve(t, files))
	id := c.succeeds(t, h)
	if got, want := describe(t, c.request.Dir), wanted(files); got != want {
		t.Errorf("got:\n%.2000s\nwant:\n%.2000s", got, want)
	}
	var size int64
	for _, f := range files {
		size += int64(len(f.Content))
	}
	if id.Kind != c.request.Source.Kind() || id.ID == "" || id.Bytes != size ||
		id.Files < len(files) {
		t.Errorf("got identity %+v, want %d bytes and at least %d files", id, size, len(files))
	}
	if !strings.Contains(c.log.String(), c.request.Source.String()) {
		t.Errorf("the log %q does not name the source", c.log)
	}
}

func stable(t *testing.T, h Harness) {
	s := h.Serve(t, Sample())
	first, again := newCall(t, s).succeeds(t, h), newCall(t, s).succeeds(t, h)
	if first != again {
		t.Errorf("got %+v, then %+v", first, again)
	}
	other := Sample()
	other[0].Content += "# other\n"
	if id := newCall(t, h.Serve(t, other)).succeeds(t, h); id.ID == first.ID {
		t.Errorf("other content has the same identity %+v", id)
	}
}

func pinned(t *testing.T, h Harness) {
	files := Sample()
	c := newCall(t, h.Serve(t, files))
	id := c.succeeds(t, h)
	again := newCall(t, c.request.Source)
	again.request.Pinned = id
	if got := again.succeeds(t, h); got != id {
		t.Errorf("got %+v, want %+v", got, id)
	}
	if h.Change == nil {
		return
	}
	changed := Sample()
	changed[0].Content += "# changed\n"
	h.Change(t, c.request.Source, changed)
	if now := newCall(t, c.request.Source).succeeds(t, h); now.ID == id.ID {
		t.Errorf("a source that has changed has the same identity %+v", now)
	}
	after := newCall(t, c.request.Source)
	after.request.Pinned = id
	if !h.Kept {
		after.fails(t, h, builder.ReasonSourceChanged)
		return
	}
	if got := after.succeeds(t, h); got != id {
		t.Errorf("got %+v, want %+v", got, id)
	}
	if got, want := describe(t, after.request.Dir), wanted(files); got != want {
		t.Errorf("got:\n%.2000s\nwant:\n%.2000s", got, want)
	}
}

func manyBytes(t *testing.T, h Harness) {
	c := newCall(t, h.Serve(t, Sample()))
	c.request.Limits.Bytes = 90_000
	c.fails(t, h, builder.ReasonSourceRefused)
	c = newCall(t, c.request.Source)
	c.request.Limits.Bytes = 4 << 20
	c.succeeds(t, h)
}

func manyFiles(t *testing.T, h Harness) {
	c := newCall(t, h.Serve(t, Sample()))
	c.request.Limits.Files = 5
	c.fails(t, h, builder.ReasonSourceRefused)
}

func linkOut(t *testing.T, h Harness) {
	if h.NoLinkOut {
		return
	}
	for _, links := range [][]File{
		{{Name: "a", Link: "../../../../../../etc/passwd"}},
		{{Name: "a", Link: "/etc/passwd"}},
		{{Name: "d/e/f", Mode: 0o644}, {Name: "d/x", Link: "e/.."}, {Name: "y", Link: "d/x/../.."}},
	} {
		files := append([]File{{Name: "before", Mode: 0o644, Content: "x"}}, links...)
		newCall(t, h.Serve(t, files)).fails(t, h, builder.ReasonSourceRefused)
	}
}

func missing(t *testing.T, h Harness) {
	newCall(t, h.Missing).fails(t, h, builder.ReasonSourceNotFound)
}

func gone(t *testing.T, h Harness) { newCall(t, h.Gone).fails(t, h, builder.ReasonSourceAway) }

func hangs(t *testing.T, h Harness) {
	c := newCall(t, h.Hangs)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := h.Fetcher.Fetch(ctx, c.request)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	if f := builder.FailureOf(err); f.Reason != builder.ReasonDeadline {
		t.Errorf("got reason %s, want %s", f.Reason, builder.ReasonDeadline)
	}
	c.empty(t)
}

// cutOff ends fetches after more and more time, until one succeeds.
func cutOff(t *testing.T, h Harness) {
	s := h.Serve(t, Sample())
	cause := errors.New("cut off")
	for after := 100 * time.Microsecond; after < time.Minute; after = after * 8 / 5 {
		c := newCall(t, s)
		ctx, cancel := context.WithTimeoutCause(t.Context(), after, cause)
		_, err := h.Fetcher.Fetch(ctx, c.request)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, cause) {
			t.Fatalf("after %s: got %v, want the cause", after, err)
		}
		c.empty(t)
	}
	t.Error("no fetch has succeeded")
}

func cancelled(t *testing.T, h Harness) {
	c := newCall(t, h.Serve(t, Sample()))
	cause := errors.New("asked to end")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := h.Fetcher.Fetch(ctx, c.request); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
	c.empty(t)
}

func invalid(t *testing.T, h Harness) {
	good := h.Serve(t, Sample())
	for name, change := range map[string]func(*source.Request){
		"no source":     func(r *source.Request) { r.Source = source.Source{} },
		"no directory":  func(r *source.Request) { r.Dir = "" },
		"limit below 0": func(r *source.Request) { r.Limits.Files = -1 },
		"pinned to another kind": func(r *source.Request) {
			r.Pinned = source.Identity{Kind: "other", ID: "x"}
		},
		"two sources": func(r *source.Request) {
			r.Source.Rsync = &source.Rsync{Host: "a", Module: "b"}
			r.Source.Git = &source.Git{URL: "https://a/b", Ref: "main"}
		},
	} {
		c := newCall(t, good)
		change(&c.request)
		if _, err := c.fetch(t, h); !errors.Is(err, builder.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
		if c.request.Dir != "" {
			c.empty(t)
		}
	}
}

const (
	right = "s3cr/et va+lue=42"
	wrong = "wr0ng/va+lue=43"
)

func secured(t *testing.T, h Harness) {
	if h.Secured == nil {
		return
	}
	s := h.Secured(t, Sample(), "ann", right)
	c := newCall(t, s)
	c.request.Secrets = map[string]string{"password": right}
	c.succeeds(t, h)
	if got, want := describe(t, c.request.Dir), wanted(Sample()); got != want {
		t.Errorf("got:\n%.2000s\nwant:\n%.2000s", got, want)
	}
	told := c.log.String()
	for _, secrets := range []map[string]string{nil, {"password": wrong}} {
		c := newCall(t, s)
		c.request.Secrets = secrets
		f := c.fails(t, h, builder.ReasonSourceDenied)
		told += fmt.Sprintf("%s %s %s %q %v %+v", f.Message, f.Error(), f.Hint, f.Evidence, f.Err,
			c.log)
	}
	for _, value := range []string{right, wrong} {
		if redacted := source.Redact(told, map[string]string{"": value}); redacted != told {
			t.Errorf("a value is told: %s", redacted)
		}
	}
}

func atOnce(t *testing.T, h Harness) {
	const n = 4
	var sources [n]source.Source
	var files [n][]File
	for i := range n {
		files[i] = Sample()
		files[i][0].Content = fmt.Sprintf("#!/bin/sh\necho %d\n", i)
		sources[i] = h.Serve(t, files[i])
	}
	type end struct {
		i   int
		c   call
		err error
	}
	ends := make(chan end)
	for i := range n {
		c := newCall(t, sources[i])
		go func() {
			_, err := h.Fetcher.Fetch(t.Context(), c.request)
			ends <- end{i, c, err}
		}()
	}
	for range n {
		e := <-ends
		if e.err != nil {
			t.Error(e.err)
		} else if got, want := describe(t, e.c.request.Dir), wanted(files[e.i]); got != want {
			t.Errorf("source %d: got:\n%.2000s\nwant:\n%.2000s", e.i, got, want)
		}
	}
}
