package bundle_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

func TestBundleRefuses(t *testing.T) {
	t.Parallel()
	file := bundle.File{Mode: 0o644, Text: "0123456789"}
	for _, c := range []struct {
		files map[string]bundle.File
		want  string
	}{
		{map[string]bundle.File{"../a": file}, `file "../a": want a relative path`},
		{map[string]bundle.File{"/a": file}, "want a relative path"},
		{map[string]bundle.File{"a/./b": file}, "want a relative path"},
		{map[string]bundle.File{"": file}, "want a relative path"},
		{map[string]bundle.File{"a\nb": file}, "control characters"},
		{map[string]bundle.File{strings.Repeat("a", 1025): file}, "longer than 1024"},
		{map[string]bundle.File{"a": file, "b": file, "c": file}, "3 files, limit is 2"},
		{map[string]bundle.File{"a": file, "b": file}, "more than 15 bytes"},
	} {
		_, err := bundle.New(c.files, bundle.Limits{Files: 2, Bytes: 15})
		require.ErrorIs(t, err, bundle.ErrInvalid)
		require.ErrorContains(t, err, c.want)
	}
	_, err := bundle.Read(fstest.MapFS{"a": {Mode: fs.ModeSymlink}}, bundle.Limits{})
	require.ErrorIs(t, err, bundle.ErrInvalid)
}

func TestBundleDigest(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, m := range []fstest.MapFS{
		{"a": {Data: []byte("x"), Mode: 0o644}},
		{"a": {Data: []byte("x"), Mode: 0o600}},
		{"b": {Data: []byte("x"), Mode: 0o644}},
		{"a": {Data: []byte("y"), Mode: 0o644}},
		{"a": {Data: []byte("x"), Mode: 0o644}, "b": {Mode: 0o644}},
	} {
		b, err := bundle.Read(m, bundle.Limits{})
		require.NoError(t, err)
		again, err := bundle.New(b.Files, bundle.Limits{})
		require.NoError(t, err)
		require.Equal(t, b.Digest, again.Digest)
		require.False(t, seen[b.Digest])
		seen[b.Digest] = true
	}
}

func TestBundleFSIsReadAsATree(t *testing.T) {
	t.Parallel()
	b, err := bundle.Read(fstest.MapFS{
		"nginx.conf":      {Data: []byte("http { include */*.conf; }")},
		"conf.d/b.conf":   {Data: []byte("gzip on;")},
		"conf.d/a.conf":   {Data: []byte("gzip off;")},
		"conf.d/x/c.conf": {Data: []byte("not read")},
	}, bundle.Limits{})
	require.NoError(t, err)
	tree, err := conf.Parse(b.FS(), "nginx.conf")
	require.NoError(t, err)
	var names []string
	for _, f := range tree.Files() {
		names = append(names, f.Name)
	}
	require.Equal(t, []string{"conf.d/a.conf", "conf.d/b.conf", "nginx.conf"}, names)
	_, err = fs.ReadFile(b.FS(), "conf.d/none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = conf.Parse(b.FS(), "conf.d")
	require.ErrorContains(t, err, "not a regular file")
}

func TestDirSourceEndsWithTheContext(t *testing.T) {
	t.Parallel()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err := (&bundle.DirSource{FS: fstest.MapFS{}}).Fetch(ctx, "")
	require.ErrorIs(t, err, cause)
}
