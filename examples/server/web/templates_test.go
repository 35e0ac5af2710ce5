package web_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

// TestTemplates builds from a template of a directory, and from its next version without a restart.
func TestTemplates(t *testing.T) {
	t.Parallel()
	dir, staged := t.TempDir(), t.TempDir()
	tmpl, err := builder.Default().Template("go-static")
	require.NoError(t, err)
	declaration, err := os.ReadFile("../../../builder/catalog/go-static/template.json")
	require.NoError(t, err)
	write := func(name, dockerfile string) {
		from := filepath.Join(staged, name)
		require.NoError(t, os.Mkdir(from, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(from, "Dockerfile"), []byte(dockerfile), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(from, "template.json"), declaration, 0o600))
		require.NoError(t, os.Rename(from, filepath.Join(dir, name)))
	}
	write("go-static", string(tmpl.Source()))
	s := servertest.Start(t, servertest.Config{Templates: dir})
	build := s.MustBuild(t, "hello_web", "v1")
	require.Equal(t, "go-static@1", build.Template)

	write("go-static@2", strings.Replace(string(tmpl.Source()), "USER ", "ENV NEW=1\nUSER ", 1))
	require.Eventually(t, func() bool {
		var all []*builder.Template
		s.Call(t, http.MethodGet, "/templates", nil, &all)
		return len(all) == 2 && all[1].Version == 2
	}, time.Minute, 20*time.Millisecond)
	build = s.MustBuild(t, "hello_web", "v2")
	require.Equal(t, "go-static@2", build.Template)
	require.Contains(t, build.Dockerfile, "ENV NEW=1")
}
