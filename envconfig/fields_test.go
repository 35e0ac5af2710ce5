package envconfig

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestActivatorFields(t *testing.T) {
	t.Parallel()
	files := map[string]string{"envs/test/opt/a": "x"}
	bad := func(change func(f *File)) *Manifest {
		f := File{Path: "opt/a", Source: "envs/test/opt/a", SHA256: strings.Repeat("0", 64),
			Mode: 0o644}
		change(&f)
		return &Manifest{Environments: map[string]*Environment{"test": {Name: "test",
			Files: []File{f}}}}
	}
	for name, c := range map[string]struct {
		change func(a *Activator)
		want   error
		text   string
	}{
		"Source": {
			func(a *Activator) { a.Source += "/absent" }, ErrIncomplete, "source directory: ",
		},
		"Root": {
			func(a *Activator) { a.Root += "/absent" }, ErrTarget, "root: ",
		},
		"Manifest path": {
			func(a *Activator) { a.Manifest = bad(func(f *File) { f.Path = "../a" }) },
			ErrInvalid, "Activator.Manifest: ",
		},
		"Manifest mode": {
			func(a *Activator) { a.Manifest = bad(func(f *File) { f.Mode = 0o4755 }) },
			ErrInvalid, "Activator.Manifest: ",
		},
		"Manifest sum": {
			func(a *Activator) { a.Manifest = bad(func(f *File) { f.SHA256 = "" }) },
			ErrInvalid, "Activator.Manifest: ",
		},
		"Manifest environment": {
			func(a *Activator) {
				a.Manifest = &Manifest{Environments: map[string]*Environment{"Test": {}}}
			},
			ErrInvalid, "Activator.Manifest: ",
		},
	} {
		b := newBox(t, files)
		a := b.activator()
		c.change(a)
		before := b.tree()
		_, err := a.Activate(t.Context(), "test")
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.text, name)
		_, err = a.Preview(t.Context(), "test")
		require.ErrorIs(t, err, c.want, name)
		require.Equal(t, before, b.tree(), name)
	}
	t.Run("state that cannot be a directory", func(t *testing.T) {
		t.Parallel()
		b := newBox(t, files)
		b.write("file", "", 0o644)
		a := b.activator()
		a.State = filepath.Join(b.root, "file")
		_, err := a.Activate(t.Context(), "test")
		require.NoError(t, err)
		require.Contains(t, b.tree(), "opt/"+besideName)
	})
}

// Manifest may change between two activations; without one the source directory counts again.
func TestManifestChanges(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/opt/a": "x"})
	a := b.activator()
	_, err := a.Choose("test", true)
	require.NoError(t, err)
	other := File{Path: "opt/a", Source: "envs/other/opt/a", SHA256: strings.Repeat("0", 64),
		Mode: 0o644}
	a.Manifest = &Manifest{Environments: map[string]*Environment{"other": {Name: "other",
		Files: []File{other}}}}
	_, err = a.Choose("other", true)
	require.NoError(t, err)
	a.Manifest = nil
	_, err = a.Choose("other", true)
	require.ErrorIs(t, err, ErrUnknownEnvironment)
	_, err = a.Choose("test", true)
	require.NoError(t, err)
}

func TestCancelledBeforeTheStart(t *testing.T) {
	t.Parallel()
	b := newBox(t, map[string]string{"envs/test/opt/a": "x"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("cause")
	cancel(cause)
	before := b.tree()
	_, err := b.activator().Activate(ctx, "test")
	require.ErrorIs(t, err, cause)
	_, err = b.activator().Preview(ctx, "test")
	require.ErrorIs(t, err, cause)
	require.Equal(t, before, b.tree())
}
