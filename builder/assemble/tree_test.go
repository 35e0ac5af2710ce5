package assemble

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"pgregory.net/rapid"
)

// TestTreeAgainstDirectory compares the tree of random layers with a directory that the same layers
// are unpacked into one by one. Layers are as tools write them: a directory has an entry before its
// content, and nothing stands below a file or a link.
func TestTreeAgainstDirectory(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	part := rapid.SampledFrom([]string{"a", "b", "c"})
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		got := tree{}
		for i := range rapid.IntRange(1, 4).Draw(t, "layers") {
			entries := map[string]byte{}
			for range rapid.IntRange(0, 6).Draw(t, "entries") {
				parts := rapid.SliceOfN(part, 1, 3).Draw(t, "name")
				kind := rapid.SampledFrom([]byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink,
					'w'}).Draw(t, "kind")
				draw(entries, parts, kind)
			}
			if err := got.add(layerWith(t, entries), i); err != nil {
				t.Fatal(err)
			}
			unpack(t, dir, entries)
		}
		want := tree{}
		err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(dir, name)
			switch {
			case err != nil || rel == ".":
			case d.IsDir():
				want[rel] = node{kind: isDir}
			case d.Type() == fs.ModeSymlink:
				want[rel] = node{kind: isLink, link: linkTarget}
			default:
				want[rel] = node{kind: isFile}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b node) bool {
			return a.kind == b.kind && a.link == b.link
		})); diff != "" {
			t.Fatalf("tree (-unpacked +got):\n%s", diff)
		}
	})
}

const linkTarget = "target"

func unpack(t *rapid.T, dir string, entries map[string]byte) {
	names := slices.Sorted(maps.Keys(entries))
	for _, name := range names {
		if at, hidden := strings.CutPrefix(path.Base(name), whiteoutPrefix); hidden {
			if err := os.RemoveAll(filepath.Join(dir, path.Dir(name), at)); err != nil &&
				!errors.Is(err, syscall.ENOTDIR) {
				t.Fatal(err)
			}
		}
	}
	for _, name := range names {
		at := filepath.Join(dir, name)
		if strings.HasPrefix(path.Base(name), whiteoutPrefix) {
			continue
		}
		info, err := os.Lstat(at)
		if err == nil && !(info.IsDir() && entries[name] == tar.TypeDir) {
			if err := os.RemoveAll(at); err != nil {
				t.Fatal(err)
			}
		}
		switch {
		case entries[name] == tar.TypeDir:
			err = os.MkdirAll(at, 0o700)
		case entries[name] == tar.TypeSymlink:
			err = os.Symlink(linkTarget, at)
		default:
			err = os.WriteFile(at, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// draw puts one entry into a layer unless another one is in its way.
func draw(entries map[string]byte, parts []string, kind byte) {
	for i := 1; i < len(parts); i++ {
		dir := path.Join(parts[:i]...)
		if k, ok := entries[dir]; ok && k != tar.TypeDir {
			return
		}
		if _, ok := entries[path.Join(path.Dir(dir), whiteoutPrefix+path.Base(dir))]; ok {
			return
		}
		entries[dir] = tar.TypeDir
	}
	name := path.Join(parts...)
	if kind == 'w' {
		if _, ok := entries[name]; !ok {
			entries[path.Join(path.Dir(name), whiteoutPrefix+path.Base(name))] = tar.TypeReg
		}
		return
	}
	if _, ok := entries[path.Join(path.Dir(name), whiteoutPrefix+path.Base(name))]; ok {
		return
	}
	if _, ok := entries[name]; !ok {
		entries[name] = kind
	}
}

func layerWith(t *rapid.T, entries map[string]byte) v1.Layer {
	c := changes{entries: map[string]entry{}}
	for name, kind := range entries {
		switch kind {
		case tar.TypeDir:
			c.entries[name] = entry{kind: isDir}
		case tar.TypeSymlink:
			c.entries[name] = entry{kind: isLink, link: linkTarget}
		default:
			c.entries[name] = entry{kind: isFile}
		}
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := c.writeTo(t.Context(), tw, time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
	if err != nil {
		t.Fatal(fmt.Errorf("layer: %w", err))
	}
	return l
}
