package web_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/promote"
)

// TestAuthority has a breaker deploy past the approvals, which come afterwards, and an adopter say
// what runs; the registry keeps the images of both.
func TestAuthority(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(path, []byte("version: 1\nrules:\n- {name: web, clusters: "+
		"[hello_*], approvals: {test: {count: 1}, stable: {count: 1}}}"), 0o600))
	s := servertest.Start(t, servertest.Config{Rules: path, Breakers: []string{"chief"},
		Adopters: []string{"carol"}})
	v1 := s.MustBuild(t, "hello_web", "v1")
	post := func(path, body string) (int, string) {
		response, answer := s.Do(t, http.MethodPost, path, strings.NewReader(body))
		return response.StatusCode, string(answer)
	}
	const target = `{"cluster":"hello_web","version":"v1","expect":"none","environment":`
	owed := func() (list []platform.Overridden) {
		s.Call(t, http.MethodGet, "/overrides", nil, &list)
		return list
	}
	status, answer := post("/overrides", target+`"test","actor":"intern","reason":"down"}`)
	require.Equal(t, 422, status)
	require.Contains(t, answer, "intern may not override gates")
	status, _ = post("/overrides", target+`"test","actor":"chief","reason":" "}`)
	require.Equal(t, 400, status)
	require.Empty(t, owed())
	status, answer = post("/overrides", target+`"test","actor":"chief","reason":"down"}`)
	require.Equal(t, 200, status, answer)
	list := owed()
	require.Len(t, list, 1)
	require.Equal(t, []any{"chief", "v1", 1, 0}, []any{list[0].Breaker, list[0].Version,
		list[0].Missing[0].Need, list[0].Missing[0].Have})
	var journal []platform.Entry
	s.Call(t, http.MethodGet, "/journal", nil, &journal)
	require.Contains(t, journal[1].Note, "override: down; not met: approval gate")
	require.Equal(t, list[0].Change, journal[1].Change)
	s.Call(t, http.MethodPost, "/reviews", platform.ReviewRequest{Cluster: "hello_web",
		Environment: "test", Version: "v1", Approve: true, Actor: "bob"}, nil)
	require.Empty(t, owed())

	status, answer = post("/adoptions", target+`"stable","actor":"intern","reason":"seen"}`)
	require.Equal(t, 422, status)
	require.Contains(t, answer, "intern may not say what runs")
	adoption := target + `"stable","actor":"carol","reason":"the old tool deployed it"}`
	status, answer = post("/adoptions", adoption)
	require.Equal(t, 422, status, "it needs an approval")
	require.Contains(t, answer, "stable needs 1 approvals")
	s.Call(t, http.MethodPost, "/reviews", platform.ReviewRequest{Cluster: "hello_web",
		Environment: "stable", Version: "v1", Approve: true, Actor: "bob"}, nil)
	var uses []platform.Use
	s.Call(t, http.MethodGet, "/uses", nil, &uses)
	require.Equal(t, []platform.Use{
		{Cluster: "hello_web", Environment: "test", Version: "v1", Digest: v1.Digest,
			Why: string(promote.UseApproved)},
		{Cluster: "hello_web", Environment: "test", Version: "v1", Digest: v1.Digest,
			Why: string(promote.UseCurrent)},
		{Cluster: "hello_web", Environment: "stable", Version: "v1", Digest: v1.Digest,
			Why: string(promote.UseApproved)},
	}, uses)
	status, answer = post("/adoptions", adoption)
	require.Equal(t, 200, status, answer)
	require.Contains(t, answer, v1.Digest)
	require.Len(t, s.Platform.Instances(), 1, "nothing was started for the adoption")

	request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete,
		"http://"+s.Registry+"/v2/hello_web/manifests/"+v1.Digest, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusForbidden, response.StatusCode)
}
