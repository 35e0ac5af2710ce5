package place

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// change is a transaction from the files old, which it finds, to the files new.
type change struct {
	t     *testing.T
	dir   string
	tree  *Tree
	files []File
	texts []string
	stale []string
	dirs  []string // all directories that may hold a journal
}

// newChange lays out a tree in which every kind of change is to be made.
func newChange(t *testing.T) *change {
	t.Helper()
	c := &change{t: t, dir: t.TempDir(), stale: []string{"gone/deep/file", "same/stale"}}
	for name, content := range map[string]string{
		"same/kept": "kept", "same/changed": "old", "same/stale": "stale", "gone/deep/file": "gone",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(c.dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o644))
	}
	c.want("fresh/a/file", "fresh")
	c.files = append(c.files, File{Path: "fresh/link", Link: "../same/kept"})
	c.texts = append(c.texts, "")
	c.want("same/changed", "new")
	c.want("same/kept", "kept")
	c.dirs = []string{".", "fresh", "fresh/a", "gone", "gone/deep", "same"}
	root, err := os.OpenRoot(c.dir)
	require.NoError(t, err)
	c.tree = NewTree(root)
	t.Cleanup(c.tree.Close)
	return c
}

// less leaves one change of each kind, and one directory to make.
func (c *change) less() *change {
	c.files, c.texts = []File{c.files[0], c.files[2]}, []string{c.texts[0], c.texts[2]}
	c.stale = c.stale[1:]
	return c
}

func (c *change) want(name, content string) {
	sum := sha256.Sum256([]byte(content))
	c.texts = append(c.texts, content)
	c.files = append(c.files, File{
		Path: name, Mode: 0o644, Size: int64(len(content)), SHA256: fmt.Sprintf("%x", sum),
	})
}

func (c *change) Open(i int) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(c.texts[i])), nil
}
func (c *change) Mismatch(i int) error { return errMismatch }

var errMismatch = errors.New("mismatch")

// run runs the change as a caller would; committed are the earlier transactions that it finds
// completed.
func (c *change) run(ctx context.Context, step func(string)) (committed []Committed, err error) {
	c.tree.Forget()
	unlock, err := Lock(ctx, c.tree, c.files[0].Path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if committed, err = Recover(c.tree, c.dirs, step); err != nil {
		return nil, err
	}
	var stale []string
	for _, name := range c.stale {
		if _, err := c.tree.Lstat(name); err == nil {
			stale = append(stale, name)
		}
	}
	plan, err := Diff(c.tree, c.files, stale, []string{"gone", "gone/deep"})
	if err != nil {
		return committed, err
	}
	tx := Transaction{Targets: c.tree, Contents: c, Step: step}
	if err := tx.Run(ctx, plan); err != nil {
		return committed, err
	}
	return committed, tx.Finish()
}

// seen shows names, modes, contents and links.
func (c *change) seen() map[string]string {
	c.t.Helper()
	seen := map[string]string{}
	require.NoError(c.t, filepath.WalkDir(c.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			seen[strings.TrimPrefix(name, c.dir)] = "directory"
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, _ := os.Readlink(name)
		if d.Type().IsRegular() {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text = string(data)
		}
		seen[strings.TrimPrefix(name, c.dir)] = info.Mode().String() + " " + text
		return nil
	}))
	return seen
}

// killed stands for SIGKILL: nothing that runs while the panic unwinds changes a file. Package
// envconfig does the same with processes.
type killed struct{}

// runUntil runs the transaction and stops before the step with that number; it reports whether
// there was such a step.
func (c *change) runUntil(at int) (stopped bool) {
	defer func() {
		if r := recover(); r != nil {
			require.Equal(c.t, killed{}, r)
			stopped = true
		}
	}()
	_, err := c.run(c.t.Context(), func(string) {
		if at--; at < 0 {
			panic(killed{})
		}
	})
	require.NoError(c.t, err)
	return false
}

func TestTransaction(t *testing.T) {
	t.Parallel()
	first := newChange(t)
	before := first.seen()
	_, err := first.run(t.Context(), nil)
	require.NoError(t, err)
	after := first.seen()
	require.Equal(t, "-rw-r--r-- new", after["/same/changed"])
	require.Equal(t, "Lrwxrwxrwx ../same/kept", after["/fresh/link"])
	require.NotContains(t, after, "/gone")
	require.NotContains(t, after, "/same/stale")

	t.Run("killed at every step, it is undone or completed", func(t *testing.T) {
		t.Parallel()
		for at := 0; ; at++ {
			c := newChange(t)
			if !c.runUntil(at) {
				require.Greater(t, at, 15, "steps")
				return
			}
			c.tree.Forget()
			committed, err := Recover(c.tree, c.dirs, nil)
			require.NoError(t, err)
			if len(committed) == 0 {
				require.Equal(t, before, c.seen(), "killed at step %d", at)
				continue
			}
			require.Equal(t, after, c.seen(), "killed at step %d", at)
			require.Equal(t, []Committed{{
				Files: []string{"fresh/a/file", "fresh/link", "same/changed"},
				Dirs:  []string{"fresh", "fresh/a"},
			}}, committed)
		}
	})
	t.Run("killed during recovery, the next recovery ends it", func(t *testing.T) {
		t.Parallel()
		whole := newChange(t).less()
		_, err := whole.run(t.Context(), nil)
		require.NoError(t, err)
		after := whole.seen()
		for at := 0; ; at++ {
			again := true
			for second := 0; again; second++ {
				c := newChange(t).less()
				if !c.runUntil(at) {
					return
				}
				again = c.runUntil(second)
				_, err := c.run(t.Context(), nil)
				require.NoError(t, err)
				require.Equal(t, after, c.seen(), "killed at step %d, then at step %d", at, second)
			}
		}
	})
	t.Run("cancelled at every step, it returns the cause and changes nothing", func(t *testing.T) {
		t.Parallel()
		cause := errors.New("cause")
		for at := 0; ; at++ {
			c := newChange(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			n := at
			_, err := c.run(ctx, func(string) {
				if n--; n == -1 {
					cancel(cause)
				}
			})
			cancel(nil)
			if err == nil {
				require.Equal(t, after, c.seen(), "step %d", at)
				if n >= 0 {
					return
				}
				continue
			}
			require.ErrorIs(t, err, cause)
			require.Equal(t, before, c.seen(), "step %d", at)
		}
	})
	t.Run("content that is not the wanted one is refused", func(t *testing.T) {
		t.Parallel()
		c := newChange(t)
		c.texts[2] = "nev"
		_, err := c.run(t.Context(), nil)
		require.ErrorIs(t, err, errMismatch)
		require.Equal(t, before, c.seen())
	})
	t.Run("again it does nothing", func(t *testing.T) {
		t.Parallel()
		c := newChange(t)
		_, err := c.run(t.Context(), nil)
		require.NoError(t, err)
		_, err = c.run(t.Context(), func(name string) { require.Fail(t, "a step", name) })
		require.NoError(t, err)
	})
}

// Every version so far has written the journal in this form.
func TestJournalFormat(t *testing.T) {
	t.Parallel()
	const text = `{"ops":[{"kind":"create","path":"fresh/f","seq":0},` +
		`{"kind":"replace","path":"opt/changed","seq":1},` +
		`{"kind":"remove","path":"opt/\"gone\\","seq":2}],` +
		`"dirs":["fresh"],"emptied":["opt/old"]}` + "\n"
	c := newChange(t)
	for name, content := range map[string]string{
		".envconfig-journal-commit": text, ".envconfig-draft": "half",
		"fresh/f": "fresh", "opt/changed": "new",
		"opt/.envconfig-1.old": "old", "opt/.envconfig-2.old": "gone",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(c.dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(c.dir, name), []byte(content), 0o600))
	}
	j, err := readJournal(c.tree, ".", phaseCommit)
	require.NoError(t, err)
	require.Equal(t, text, string(j.json()))
	before := newChange(t).seen()
	committed, err := Recover(c.tree, append(c.dirs, "opt"), nil)
	require.NoError(t, err)
	require.Empty(t, committed)
	before["/opt"] = "directory"
	before["/opt/changed"], before[`/opt/"gone\`] = "-rw------- old", "-rw------- gone"
	require.Equal(t, before, c.seen())
}

func TestLock(t *testing.T) {
	t.Parallel()
	lock := func(t *testing.T, ctx context.Context, dir, first string) (func(), error) {
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		tree := NewTree(root)
		t.Cleanup(tree.Close)
		return Lock(ctx, tree, first)
	}
	t.Run("the next caller gets it after the first", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(dir+"/a", 0o755))
		unlock, err := lock(t, t.Context(), dir, "a/b/file")
		require.NoError(t, err)
		released := make(chan struct{})
		go func() { close(released); unlock() }()
		next, err := lock(t, t.Context(), dir, "a/file")
		require.NoError(t, err)
		<-released // held by the first until then
		next()
	})
	t.Run("a caller with another root waits and returns the cause", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(dir+"/a", 0o755))
		unlock, err := lock(t, t.Context(), dir, "a/file")
		require.NoError(t, err)
		defer unlock()
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("cause")
		cancel(cause)
		_, err = lock(t, ctx, dir+"/a", "file")
		require.ErrorIs(t, err, cause)
	})
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"ops":[{"kind":"create","path":"a/b","seq":1}],"dirs":["a"]}`))
	f.Add([]byte(`{"ops":[{"kind":"remove","path":"../b","seq":-1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/"+TempPrefix+"journal-stage", data, 0o600); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		tr := NewTree(root)
		defer tr.Close()
		j, err := readJournal(tr, ".", phaseStage)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, o := range j.Ops {
			if PathProblem(o.Path) != "" {
				t.Fatalf("accepted %q", o.Path)
			}
		}
	})
}
