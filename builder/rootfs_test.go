package builder_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/builder"
)

func TestRootFS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a", "d/b", "d/sub/c"} {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755),
			os.WriteFile(at, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fsys := builder.RootFS(root)
	if err := fstest.TestFS(fsys, "a", "d/b", "d/sub/c"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "/a", "a/", "../a", "d/../a", "./a"} {
		if _, err := fs.Stat(fsys, name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("stat %q: got %v, want ErrInvalid", name, err)
		}
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(fsys, "out/passwd"); err == nil {
		t.Error("read a file outside of the root through a link")
	}
	if link, err := fs.ReadLink(fsys, "out"); link != "/etc" || err != nil {
		t.Errorf("link leads to %q, %v", link, err)
	}
	if runtime.GOOS != "linux" {
		return // other systems refuse the name below
	}
	const name = "\xd6\xd0.txt"
	if err := os.WriteFile(filepath.Join(dir, name), []byte("GBK"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := fs.ReadFile(fsys, name); string(text) != "GBK" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
}
