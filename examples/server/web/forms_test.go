package web_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

// person sends forms as a browser without scripts does.
type person struct {
	*testing.T
	server *servertest.Server
	client *http.Client
}

func newPerson(t *testing.T, s *servertest.Server) *person {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &person{t, s, &http.Client{Jar: jar, CheckRedirect: func(*http.Request,
		[]*http.Request) error {
		return http.ErrUseLastResponse
	}}}
}

// send sends a form and returns the answer.
func (p *person) send(name string, fields url.Values) (status int, page string) {
	p.Helper()
	response, err := p.client.PostForm(p.server.URL+name, fields)
	require.NoError(p, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	require.NoError(p, err)
	return response.StatusCode, string(data)
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)

// confirm sends the fields of a confirmation page, as the person.
func (p *person) confirm(name, page, actor string) (status int, next string) {
	p.Helper()
	fields := url.Values{"actor": {actor}}
	for _, field := range hiddenField.FindAllStringSubmatch(page, -1) {
		fields.Add(field[1], field[2])
	}
	require.Equal(p, "yes", fields.Get("confirmed"), page)
	return p.send(name, fields)
}

func (p *person) journal() []platform.Entry {
	p.Helper()
	var entries []platform.Entry
	p.server.Call(p, "GET", "/journal", nil, &entries)
	return entries
}

func TestEveryActHasAName(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	s.MustBuild(t, "hello_web", "v1")
	_, err := s.Platform.StartTask(t.Context(), platform.TaskRequest{Task: "redesign",
		Cluster: "hello_web", Version: "v1", Actor: "ann"})
	require.NoError(t, err)
	instance := s.Platform.Instances()[0].ID
	before := newPerson(t, s).journal()
	forms := map[string]url.Values{
		"builds": {"cluster": {"hello_web"}, "version": {"v2"}, "template": {"go-static"},
			"source": {"hello_web-v1"}, "param.UID": {"70"}},
		"tasks":      {"task": {"other"}, "image": {"hello_web v1"}},
		"promotions": {"image": {"hello_web v1"}, "environment": {"test"}, "seen.hello_web": {""}},
		"restarts":   {"instance": {instance}},
		"finish":     {"task": {"redesign"}},
	}
	pages := map[string]string{}
	for name, fields := range forms {
		status, page := newPerson(t, s).send("/do/"+name, fields)
		require.Equal(t, http.StatusOK, status, name)
		require.Contains(t, page, "Say who you are first", name)
		pages[name] = page
	}
	require.Equal(t, before, newPerson(t, s).journal(), "nothing is done without a name")
	var builds []platform.Build
	s.Call(t, "GET", "/builds", nil, &builds)
	require.Len(t, builds, 1)

	for _, name := range []string{"builds", "tasks", "promotions", "restarts", "finish"} {
		who := newPerson(t, s)
		status, page := who.confirm("/do/"+name, pages[name], "wang.fang")
		require.Equal(t, http.StatusSeeOther, status, "%s: %s", name, page)
		if name == "builds" {
			continue // its journal entry comes with its end
		}
		entries := who.journal()
		require.Equal(t, "wang.fang", entries[len(entries)-1].Actor, name)
	}
	s.Call(t, "GET", "/builds", nil, &builds)
	require.Equal(t, "wang.fang", builds[0].Actor)
	require.Equal(t, map[string]string{"UID": "70"}, builds[0].Params, "what was typed is kept")
	for _, e := range newPerson(t, s).journal() {
		if e.Op == "restart" {
			require.Equal(t, "noted", e.Kind)
			require.Equal(t, "redesign", e.Task)
			require.Equal(t, "instance "+instance, e.Reason)
			return
		}
	}
	t.Error("the journal has no restart")
}

// TestABuildIsCancelledOnThePage holds builds with a base image whose registry does not answer.
func TestABuildIsCancelledOnThePage(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	t.Cleanup(silent.Close) // after the server, whose builds wait for it
	s := servertest.Start(t, servertest.Config{})
	require.NoError(t, s.Platform.PutSource("site", sourceOf(t, "site/index.html", "envs/test/f")))
	base := strings.TrimPrefix(silent.URL, "http://") + "/base@sha256:" + strings.Repeat("b", 64)
	var ids []string
	for _, version := range []string{"v1", "v2", "v3"} { // two run, one is queued
		b, err := s.Platform.SubmitBuild(t.Context(), platform.BuildRequest{
			Cluster: "help_pages", Version: version, Template: "static-site", Source: "site",
			Params: map[string]string{"BASE_IMAGE": base}, Actor: "ann",
		})
		require.NoError(t, err)
		ids = append(ids, b.ID)
	}
	who := newPerson(t, s)
	page := func(path string) string {
		response, err := who.client.Get(s.URL + path)
		require.NoError(t, err)
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return string(data)
	}
	for _, id := range ids {
		button := `aria-label="Cancel the build ` + id + `"`
		require.Contains(t, page("/"), button)
		require.Contains(t, page("/builds/"+id), button)
	}
	status, asked := who.send("/do/cancellations", url.Values{"build": {ids[2]}})
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, asked, "Say who you are first")
	status, _ = who.confirm("/do/cancellations", asked, "bob")
	require.Equal(t, http.StatusSeeOther, status)
	for _, id := range ids[:2] { // the name is known
		status, _ = who.send("/do/cancellations", url.Values{"build": {id}})
		require.Equal(t, http.StatusSeeOther, status)
	}
	for _, id := range ids {
		b, err := s.Ended(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, platform.BuildCancelled, b.State)
		require.Equal(t, "bob", b.CancelledBy)
		require.NotContains(t, page("/builds/"+id), "/do/cancellations")
	}
	queued := page("/builds/" + ids[2])
	require.Contains(t, queued, "cancelled by bob")
	require.NotContains(t, queued, "Took", "it has not run")
	for _, id := range []string{ids[0], "b999999", ""} {
		status, _ = who.send("/do/cancellations", url.Values{"build": {id}})
		require.Contains(t, []int{http.StatusConflict, http.StatusNotFound}, status, id)
	}
}

func TestWhatOthersSeeIsConfirmed(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	v1 := s.MustBuild(t, "hello_web", "v1")
	v2 := s.MustBuild(t, "hello_web", "v2")
	s.MustPromote(t, "hello_web", "v1", "test", "sandbox", "production")
	s.MustPromote(t, "hello_web", "v2", "test", "sandbox")
	who := newPerson(t, s)
	promotion := url.Values{"image": {"hello_web v2"}, "environment": {"production"},
		"actor": {"ann"}, "reason": {"the release"}, "expect": {v1.Digest}}
	before := who.journal()

	status, page := who.send("/do/promotions", promotion)
	require.Equal(t, http.StatusOK, status)
	for _, want := range []string{"<h1>Deploy hello_web v2 to production</h1>", v2.Digest,
		v1.Digest, "v1, deployed by ann", "the release"} {
		require.Contains(t, page, want)
	}
	require.Equal(t, before, who.journal(), "nothing is done before")
	status, _ = who.confirm("/do/promotions", page, "ann")
	require.Equal(t, http.StatusSeeOther, status)
	status, page = who.confirm("/do/promotions", page, "ann")
	require.Equal(t, http.StatusConflict, status, "the confirmation is about what it named as "+
		"current")
	require.Contains(t, page, "current is v2")

	status, page = who.send("/do/promotions", url.Values{"image": {"hello_web v2"},
		"environment": {"stable"}})
	require.Equal(t, http.StatusOK, status, "the name is known from before")
	require.Contains(t, page, "this is the baseline")
	require.Contains(t, page, "nothing")
	status, page = who.send("/do/promotions", url.Values{"image": {"hello_web v1"},
		"environment": {"stable"}, "expect": {v2.Digest}})
	require.Equal(t, http.StatusConflict, status, "a refusal is said before, not after")
	require.NotContains(t, page, "confirmed")

	status, page = who.send("/do/rollbacks", url.Values{"target": {"hello_web production " +
		v2.Digest}, "digest": {v1.Digest}})
	require.Equal(t, http.StatusOK, status)
	for _, want := range []string{"<h1>Roll hello_web back in production</h1>", v2.Digest,
		v1.Digest} {
		require.Contains(t, page, want)
	}
	status, _ = who.confirm("/do/rollbacks", page, "bob")
	require.Equal(t, http.StatusSeeOther, status)
	entries := who.journal()
	require.Equal(t, "rollback", entries[len(entries)-1].Op)
	require.Equal(t, "bob", entries[len(entries)-1].Actor)
}
