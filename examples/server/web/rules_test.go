package web_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

// TestRules asks for an approval by rules of a file, and takes a new file without a restart.
func TestRules(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write := func(rules string) {
		require.NoError(t, os.WriteFile(path+".new", []byte("version: 1\nrules:\n"+rules), 0o600))
		require.NoError(t, os.Rename(path+".new", path))
	}
	write("- {name: web, clusters: [hello_*], approvals: {test: {count: 1, notBuilder: true}}}")
	s := servertest.Start(t, servertest.Config{Rules: path})
	s.MustBuild(t, "hello_web", "v1")
	explain := func() (e platform.Explanation) {
		s.Call(t, http.MethodGet,
			"/explanation?cluster=hello_web&environment=test&version=v1&actor=dave", nil, &e)
		return e
	}
	e := explain()
	require.False(t, e.Passes)
	require.Equal(t, []any{"approval", 1, 0},
		[]any{e.Unmet[0].Gate, e.Unmet[0].Need, e.Unmet[0].Have})
	const promotion = `{"cluster":"hello_web","environment":"test","version":"v1",` +
		`"expect":"none","actor":"dave"}`
	response, _ := s.Do(t, http.MethodPost, "/promotions", strings.NewReader(promotion))
	require.Equal(t, 422, response.StatusCode)
	s.Call(t, http.MethodPost, "/reviews", platform.ReviewRequest{Cluster: "hello_web",
		Environment: "test", Version: "v1", Approve: true, Actor: "erin"}, nil)
	require.True(t, explain().Passes)

	write("- {name: web, clusters: [hello_*], approvals: {test: {count: 2}}}")
	require.Eventually(t, func() bool { return !explain().Passes }, time.Minute,
		20*time.Millisecond)
	require.Equal(t, 2, explain().Unmet[0].Need)
	write("- {name: web, clusters: [other]}")
	require.Eventually(t, func() bool { return explain().Passes }, time.Minute, 20*time.Millisecond)
	response, answer := s.Do(t, http.MethodPost, "/promotions", strings.NewReader(promotion))
	require.Equal(t, 200, response.StatusCode, string(answer))
}
