package bundle_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/bundletest"
)

// A VerifiedSource with nothing to verify is its source.
func TestSuite(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(bundle.Source) bundle.Source{
		"DirSource": func(s bundle.Source) bundle.Source { return s },
		"VerifiedSource": func(s bundle.Source) bundle.Source {
			return &bundle.VerifiedSource{Source: s}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bundletest.Run(t, func(t *testing.T) *bundletest.Harness {
				parent := t.TempDir()
				dir, away := filepath.Join(parent, "tree"), filepath.Join(parent, "away")
				require.NoError(t, os.Mkdir(dir, 0o755))
				source := &bundle.DirSource{
					FS: os.DirFS(dir), Every: time.Millisecond, Settle: 20 * time.Millisecond,
					Limits: bundletest.Limits,
				}
				return &bundletest.Harness{
					Source: wrap(source),
					Set:    func(f bundletest.Files) { bundletest.Write(t, dir, f) },
					Away:   func() { require.NoError(t, os.Rename(dir, away)) },
					Back:   func() { require.NoError(t, os.Rename(away, dir)) },
				}
			})
		})
	}
}
