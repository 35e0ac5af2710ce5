package transform

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/textfs"
)

// Diff returns the changes as a unified diff. It is empty for a tree that was a result already.
func (r *Result) Diff() string {
	if r.edit == nil {
		return ""
	}
	generated := path.Join(path.Dir(r.Main), Generated)
	return r.edit.Diff() + conf.DiffAdded(generated, r.Files[generated])
}

// Origin returns the line of production's file that a line of a transformed file comes from: for
// one that the transform added, the line that it was added at. It reports false for files and lines
// that are not of production.
func (r *Result) Origin(name string, line int) (int, bool) {
	if r.edit == nil {
		return 0, false
	}
	return r.edit.Origin(name, line)
}

// Summary is one line for each change: file:line, rule, reason.
func (r *Result) Summary() string {
	var b strings.Builder
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "%s: %s: %s\n", c.At, c.Rule, c.Reason)
	}
	return b.String()
}

// FS is the transformed tree as a file system, readable by conf.Parse.
func (r *Result) FS() fs.FS { return textfs.FS(r.Files) }

// WriteTo writes the tree into the directory dir, which is made when it is missing. A directory
// that holds an earlier result is brought up to date, files that the tree no longer has are
// removed; any other directory must be empty. Each file is replaced atomically, the tree as a whole
// is not: Nginx must not load the directory meanwhile.
func (r *Result) WriteTo(dir string) error {
	generated := path.Join(path.Dir(r.Main), Generated)
	old, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(generated)))
	switch {
	case err == nil && !strings.HasPrefix(string(old), markerLine):
		return fmt.Errorf("write %s: %s is there and is not of an earlier transform", dir,
			generated)
	case errors.Is(err, fs.ErrNotExist):
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("write %s: the directory is not empty and holds no earlier transform",
				dir)
		}
	case err != nil:
		return fmt.Errorf("write: %w", err)
	}
	// The generated file first: with it the directory counts as that of a transform, should this
	// end half way.
	for _, name := range append([]string{generated}, slices.Sorted(maps.Keys(r.Files))...) {
		target := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if err := atomicfile.Write(target, []byte(r.Files[name]), 0o644); err != nil {
			return err
		}
	}
	for line := range strings.Lines(string(old)) {
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "# file ")
		if _, still := r.Files[name]; !ok || still || !fs.ValidPath(name) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil &&
			!errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}
