package dirbundle_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/bundletest"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/dirbundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

func TestContract(t *testing.T) {
	t.Parallel()
	bundletest.Run(t, func(t *testing.T) *bundletest.Harness {
		dir := filepath.Join(t.TempDir(), "tree")
		// Every is longer than the test: the kernel has to report the changes.
		source, err := dirbundle.New(dirbundle.Config{Dir: dir, Settle: 20 * time.Millisecond,
			Every: time.Hour, Limits: bundletest.Limits})
		require.NoError(t, err)
		return &bundletest.Harness{
			Source: source,
			Set:    func(f bundletest.Files) { bundletest.Write(t, dir, f) },
			Away:   func() { require.NoError(t, os.Rename(dir, dir+".away")) },
			Back:   func() { require.NoError(t, os.Rename(dir+".away", dir)) },
		}
	})
}

// Links are followed inside the directory, as in sites-enabled, and refused when they lead out.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ link, target, want string }{
		{"sites-enabled/a", "../sites-available/a", ""},
		{"all", "sites-available", ""},
		{"data/a", "../all/a", "which is not there"},
		{"b", "/etc/passwd", "it leads out of the tree"},
		{"b", "../../../etc/passwd", "it leads out of the tree"},
		{"b", "b", "too many links"},
		{"b", "none", "which is not there"},
		{"b", "sites-available/..", "it leads out of the tree"},
	} {
		dir := t.TempDir()
		bundletest.Write(t, dir, bundletest.Files{"sites-available/a": "server {}", "x/y": ""})
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(c.link)), 0o755))
		require.NoError(t, os.Symlink(c.target, filepath.Join(dir, c.link)))
		source, err := dirbundle.New(dirbundle.Config{Dir: dir, Settle: time.Millisecond})
		require.NoError(t, err)
		b, err := source.Fetch(t.Context(), "")
		if c.want != "" {
			require.ErrorIs(t, err, bundle.ErrInvalid)
			require.ErrorContains(t, err, c.want)
			continue
		}
		require.NoError(t, err)
		require.True(t, b.Files[c.link].Text == "server {}" ||
			b.Files[c.link+"/a"].Text == "server {}")
	}
}

// A tree that is moved into the place of the old one, as tools that switch a link do, is seen.
func TestDirectoryIsReplaced(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tree")
	bundletest.Write(t, dir+".1", bundletest.Files{"nginx.conf": "1"})
	bundletest.Write(t, dir+".2", bundletest.Files{"nginx.conf": "2"})
	require.NoError(t, os.Symlink(dir+".1", dir))
	source, err := dirbundle.New(dirbundle.Config{Dir: dir, Settle: time.Millisecond,
		Every: time.Hour})
	require.NoError(t, err)
	first, err := source.Fetch(t.Context(), "")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(dir+".2", dir+".next"))
	require.NoError(t, os.Rename(dir+".next", dir))
	second, err := source.Fetch(t.Context(), first.Digest)
	require.NoError(t, err)
	require.Equal(t, "2", second.Files["nginx.conf"].Text)
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, err := dirbundle.New(dirbundle.Config{})
	require.ErrorContains(t, err, "Config.Dir: is required")
	source, err := dirbundle.New(dirbundle.Config{Dir: "/nonexistent"})
	require.NoError(t, err)
	_, err = source.Fetch(t.Context(), "")
	require.True(t, errors.Is(err, os.ErrNotExist))
}

// A tree of Debian: absolute links into itself, and modules that lead to a second root.
func TestSeveralRoots(t *testing.T) {
	t.Parallel()
	dir, share := t.TempDir(), t.TempDir()
	bundletest.Write(t, share,
		bundletest.Files{"modules-available/mod.conf": "load_module modules/x.so;",
			"modules-available/up.conf": bundletest.Link("../../nginx-core/x")})
	bundletest.Write(t, dir, bundletest.Files{
		"nginx.conf":              "include modules-enabled/*.conf;",
		"sites-available/default": "server {}",
		"sites-enabled/default":   bundletest.Link("/etc/nginx/sites-available/default"),
		"modules-enabled/50-mod.conf": bundletest.Link(
			"/usr/share/nginx/modules-available/mod.conf"),
	})
	cfg := dirbundle.Config{
		Dir: dir, Settle: time.Millisecond,
		Extra: map[string]string{"share": share},
		Roots: conf.Roots{"/etc/nginx": ".", "/usr/share/nginx": "share"},
	}
	source, err := dirbundle.New(cfg)
	require.NoError(t, err)
	_, err = source.Fetch(t.Context(), "")
	require.ErrorContains(t, err,
		`symbolic link "share/modules-available/up.conf" to "../../nginx-core/x": it leads out of the tree, `+
			"which stands for /etc/nginx, /usr/share/nginx; say under roots where "+
			"../../nginx-core/x "+
			"is taken from")
	require.NoError(t, os.Remove(filepath.Join(share, "modules-available/up.conf")))
	b, err := source.Fetch(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, "load_module modules/x.so;", b.Files["modules-enabled/50-mod.conf"].Text)
	require.Equal(t, "server {}", b.Files["sites-enabled/default"].Text)
}

// A look at a tree that has not changed holds no more than a file's worth of it in memory.
func TestMemoryOfALook(t *testing.T) {
	dir := t.TempDir()
	files := bundletest.Files{}
	for i := range 16 {
		files[fmt.Sprint("f", i)] = strings.Repeat("x", 1<<20)
	}
	bundletest.Write(t, dir, files)
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = bundle.Reader{}.Digest(root.FS())
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	// A sparse file of 5 GiB is refused unread.
	require.NoError(t, os.Truncate(filepath.Join(dir, "f3"), 5<<30))
	runtime.ReadMemStats(&before)
	_, err = bundle.Read(root.FS(), bundle.Limits{})
	runtime.ReadMemStats(&after)
	require.ErrorContains(t, err, `file "f3": 5368709120 bytes, limit of one file is 67108864`)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}
