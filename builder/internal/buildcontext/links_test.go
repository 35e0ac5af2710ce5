package buildcontext

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// TestLinksAgainstRoot compares the walk along symbolic links with os.Root, which the kernel's
// rules confine: on random directories of files and links both reach the same file, or both reach
// none.
func TestLinksAgainstRoot(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		part := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		relative := rapid.Custom(func(t *rapid.T) string {
			return filepath.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "parts")...)
		})
		target := rapid.OneOf(relative, rapid.StringMatching(
			`(\.\./){0,3}[abcd](/\.\.)?(/[abcd])?`), rapid.Just(dir+"/a"), rapid.Just("."))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		for i := range rapid.IntRange(1, 10).Draw(t, "entries") {
			name := relative.Draw(t, "name")
			if root.MkdirAll(filepath.Dir(name), 0o700) != nil {
				continue // a file or a link is in the way
			}
			if rapid.Bool().Draw(t, "link") {
				root.Symlink(target.Draw(t, "target"), name) // an entry that is there already stays
			} else {
				root.WriteFile(name, fmt.Append(nil, i), 0o600) // not through a link that leads out
			}
		}
		c, err := Open(root.FS())
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			name := relative.Draw(t, "asked")
			want, wantErr := root.ReadFile(name)
			got, gotErr := readAll(c, name)
			if (wantErr == nil) != (gotErr == nil) || string(want) != string(got) {
				t.Fatalf("%s: got %q, %v; os.Root has %q, %v", name, got, gotErr, want, wantErr)
			}
		}
	})
}

func readAll(c *Files, name string) ([]byte, error) {
	s, err := c.stat(name)
	if err != nil {
		return nil, err
	}
	if !s.Info.Mode().IsRegular() {
		return nil, errors.New("no file")
	}
	if info, err := fs.Lstat(c.FS, s.Real); err != nil || info.Mode().Type() != 0 {
		return nil, fmt.Errorf("%s is no plain file: %v", s.Real, err)
	}
	f, err := c.FS.Open(s.Real)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
