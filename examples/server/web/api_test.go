package web_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/examples/server/web"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// caller asks a server and holds every answer against the document.
type caller struct {
	*testing.T
	server   *servertest.Server
	document document
	called   map[string]bool // operations that were answered with success
}

// call asks path, which is of the operation METHOD TEMPLATE, and decodes the answer, which must
// have the status.
func (c *caller) call(operation, path, body string, status int, out any) {
	c.Helper()
	method, template, _ := strings.Cut(operation, " ")
	response, data := c.server.Do(c.T, method, path, strings.NewReader(body))
	require.Equal(c, status, response.StatusCode, "%s %s: %s", method, path, data)
	c.document.check(c.T, method, template, response, data)
	if status < 300 {
		c.called[operation] = true
	}
	if out != nil {
		require.NoError(c, json.Unmarshal(data, out))
	}
}

// refused asks for something that is refused with the status, and returns why.
func (c *caller) refused(operation, path, body string, status int) web.Problem {
	c.Helper()
	var problem web.Problem
	c.call(operation, path, body, status, &problem)
	require.Equal(c, status, problem.Status)
	return problem
}

// TestAPI goes through every operation on one server, from nothing to a finished task.
func TestAPI(t *testing.T) {
	t.Parallel()
	// events: TestStreams; overrides and adoptions, which need rights: TestAuthority
	c := &caller{t, servertest.Start(t, servertest.Config{}), readDocument(t),
		map[string]bool{"GET /events": true, "POST /overrides": true, "POST /adoptions": true}}
	c.empty()
	c.sources()
	v1 := c.builds()
	c.promotions(v1)
	c.tasks()
	c.instances()
	for path, operations := range at(map[string]any(c.document), "paths").(map[string]any) {
		for method := range operations.(map[string]any) {
			require.True(t, c.called[strings.ToUpper(method)+" "+path],
				"%s %s was never answered here", method, path)
		}
	}
}

func (c *caller) empty() {
	for _, path := range []string{"/builds", "/versions", "/tasks", "/journal", "/instances",
		"/sources"} {
		var all []any
		c.call("GET "+path, path, "", 200, &all)
		require.NotNil(c, all, "%s is [] and not null", path)
		require.Empty(c, all, path)
	}
	var health web.Health
	c.call("GET /health", "/health", "", 200, &health)
	require.True(c, health.Ready)
	c.call("GET /openapi.json", "/openapi.json", "", 200, nil)
	var templates []struct{ Name string }
	c.call("GET /templates", "/templates", "", 200, &templates)
	require.Contains(c, templates, struct{ Name string }{"go-static"})
	var overview platform.Overview
	c.call("GET /environments", "/environments", "", 200, &overview)
	require.Equal(c, []string{"test", "sandbox", "production", "stable"}, overview.Environments)
	require.Len(c, overview.Clusters, 2, "those of the Nginx configuration")
	var pools []platform.Pool
	c.call("GET /vips", "/vips", "", 200, &pools)
	require.EqualValues(c, 256, pools[0].Size)
	require.Zero(c, pools[0].Leased)
}

func (c *caller) sources() {
	const put, remove = "PUT /sources/{source}", "DELETE /sources/{source}"
	stored := func() (names []string) {
		c.call("GET /sources", "/sources", "", 200, &names)
		return names
	}
	c.refused(put, "/sources/Upper", "", 400)
	c.server.Upload(c, "hello_web", "v1")
	c.called[put] = true
	require.Equal(c, []string{"hello_web-v1"}, stored())
	before := c.tree("hello_web-v1")
	var whole bytes.Buffer
	w := tar.NewWriter(&whole)
	require.NoError(c, w.WriteHeader(&tar.Header{Name: "app", Typeflag: tar.TypeReg, Mode: 0o755}))
	end := whole.Len()
	require.NoError(c, w.Close())
	huge := tar.Header{Name: "app", Typeflag: tar.TypeReg, Size: 1 << 40}
	var large bytes.Buffer
	require.NoError(c, tar.NewWriter(&large).WriteHeader(&huge))
	for name, tc := range map[string]struct {
		body   string
		status int
	}{
		"nothing": {"", 400}, "no marker": {whole.String()[:end], 400},
		"text": {"this is no archive", 415},
		"zip":  {"PK\x03\x04", 415}, "too large": {large.String(), 413},
	} {
		for _, source := range []string{"hello_web-v1", "fresh"} {
			require.NotEmpty(c, c.refused(put, "/sources/"+source, tc.body, tc.status).Detail, name)
		}
		require.Equal(c, []string{"hello_web-v1"}, stored(), name)
		require.Equal(c, before, c.tree("hello_web-v1"), name)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(whole.Bytes())
	require.NoError(c, err)
	require.NoError(c, z.Close())
	c.call(put, "/sources/second", packed.String(), 200, nil)
	require.Equal(c, []string{"hello_web-v1", "second"}, stored())
	c.call(remove, "/sources/second", "", 200, nil)
	c.refused(remove, "/sources/second", "", 404)
	c.refused(remove, "/sources/Upper", "", 400)
	require.Equal(c, []string{"hello_web-v1"}, stored())
}

// sourceOf is an archive of the files: NAME=CONTENT, or NAME for a file with its name in it.
func sourceOf(t *testing.T, files ...string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range files {
		name, content, found := strings.Cut(name, "=")
		if !found {
			content = name
		}
		require.NoError(t, w.WriteHeader(&tar.Header{
			Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)),
		}))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return &b
}

// partial is a source that has the files that a build takes from it, and hides one.
func partial(t *testing.T) *bytes.Buffer {
	t.Helper()
	return sourceOf(t, "app", "envs/test/f", ".dockerignore=app\n")
}

// tree returns the contents of a source directory by file name.
func (c *caller) tree(source string) map[string]string {
	files := map[string]string{}
	tree := os.DirFS(filepath.Join(c.server.Dir, "sources", source))
	require.NoError(c, fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		files[name] = string(data)
		return err
	}))
	require.NotEmpty(c, files)
	return files
}

func (c *caller) builds() platform.Build {
	const operation = "POST /builds"
	c.refused(operation, "/builds", `{"cluster":`, 400)
	require.Contains(c, c.refused(operation, "/builds", `{"clutser":"hello_web"}`, 400).Detail,
		"clutser")
	c.refused(operation, "/builds", `{"cluster":"`+strings.Repeat("x", 1<<20)+`"}`, 413)
	good := func(changes ...string) string {
		return strings.NewReplacer(changes...).Replace(
			`{"cluster":"hello_web","version":"v1","template":"go-static","source":"hello_web-v1","actor":"ann"}`)
	}
	require.Contains(c, c.refused(operation, "/builds", good("go-static", "cobol"), 400).Detail,
		"cobol")
	require.Contains(c, c.refused(operation, "/builds", good("hello_web\"", "Hello Web\""),
		400).Detail, "Hello Web")
	require.Contains(c, c.refused(operation, "/builds",
		good(`"actor"`, `"params":{"UID":"zero"},"actor"`), 400).Detail, "UID")
	c.refused("GET /builds/{build}", "/builds/b999999", "", 404)
	c.refused("GET /builds/{build}/log", "/builds/b999999/log", "", 404)

	var build, failed platform.Build
	c.call(operation, "/builds", good(), 202, &build)
	require.Equal(c, platform.BuildQueued, build.State)
	_, err := c.server.Ended(c.Context(), build.ID)
	require.NoError(c, err)
	c.call("GET /builds/{build}", "/builds/"+build.ID, "", 200, &build)
	require.Equal(c, platform.BuildSucceeded, build.State, build.Error)
	c.call("GET /builds/{build}/log", "/builds/"+build.ID+"/log", "", 200, nil)
	_, log := c.server.Do(c, "GET", "/builds/"+build.ID+"/log", nil)
	require.Contains(c, string(log), build.Digest)
	response, rest := c.server.Do(c, "GET", "/builds/"+build.ID+"/log?offset=5", nil)
	require.Equal(c, string(log)[5:], string(rest))
	require.Equal(c, "complete", response.Header.Get("Sluice-Log-Verdict"))
	require.Equal(c, "0", response.Header.Get("Sluice-Log-Lost"))
	for _, offset := range []string{"-1", "x", "99999999", "99999999999999999999"} {
		c.refused("GET /builds/{build}/log", "/builds/"+build.ID+"/log?offset="+offset, "", 400)
	}
	c.buildEvents(build)
	var same platform.Build
	named := good(`{"cluster"`, `{"id":"mine","policy":"serial","team":"web","cluster"`)
	c.call(operation, "/builds", named, 202, &same)
	require.Equal(c, "mine", same.ID)
	response, _ = c.server.Do(c, "POST", "/builds", strings.NewReader(named))
	require.Equal(c, "/api/v1/builds/mine", response.Header.Get("Location"))
	_, err = c.server.Ended(c.Context(), "mine")
	require.NoError(c, err)
	c.call(operation, "/builds", named, 202, &same)
	require.Equal(c, platform.BuildSucceeded, same.State, same.Error)
	require.Equal(c, build.Digest, same.Digest)
	require.Contains(c, c.refused(operation, "/builds", strings.Replace(named, "serial", "parallel",
		1), 409).Detail, "take another id")

	require.Contains(c, c.refused(operation, "/builds", good("hello_web-v1", "nowhere"),
		404).Detail, "upload it first")
	image := "example.test/base:1@sha256:" + strings.Repeat("b", 64)
	for name, tc := range map[string]struct {
		files          []string
		template, want string
	}{
		"no binary":      {[]string{"other", "envs/test/f"}, "go-static", "lacks app"},
		"nothing":        {[]string{"other"}, "go-static", "lacks envs"},
		"RUN":            {[]string{"app", "envs/test/f"}, "node", "POST /api/v1/versions"},
		"another script": {[]string{"app", "envs/test/f"}, "python", "RUN"},
	} {
		source := sourceOf(c.T, tc.files...)
		require.NoError(c, c.server.Platform.PutSource("bad", source), name)
		changes := []string{"go-static", tc.template, "hello_web-v1", "bad"}
		if tc.template != "go-static" {
			changes = append(changes, `"actor"`, `"params":{"BASE_IMAGE":"`+image+`"},"actor"`)
		}
		detail := c.refused(operation, "/builds", good(changes...), 400).Detail
		require.Contains(c, detail, tc.want, name)
		require.NotContains(c, detail, c.server.Dir, name)
	}
	require.NoError(c, c.server.Platform.DeleteSource("bad"))
	require.NoError(c, c.server.Platform.PutSource("partial", partial(c.T)))
	c.call(operation, "/builds", good("hello_web-v1", "partial", `"v1"`, `"v0"`), 202, &failed)
	_, err = c.server.Ended(c.Context(), failed.ID)
	require.NoError(c, err)
	var all []platform.Build
	c.call("GET /builds", "/builds", "", 200, &all)
	require.Len(c, all, 3)
	require.Equal(c, []string{failed.ID, "mine", build.ID}, []string{all[0].ID, all[1].ID,
		all[2].ID}, "newest first")
	require.Equal(c, platform.BuildFailed, all[0].State)
	require.Contains(c, all[0].Error, "app")
	c.call("POST /versions", "/versions", `{"cluster":"greet_api","version":"v1","actor":"ann"}`,
		404, nil)
	c.call("POST /versions", "/versions", `{"cluster":"hello_web","version":"v1","digest":"`+
		build.Digest+`","actor":"bob"}`, 200, nil)
	const cancel = "DELETE /builds/{build}"
	c.refused(cancel, "/builds/b999999?actor=bob", "", 404)
	require.Contains(c, c.refused(cancel, "/builds/"+failed.ID+"?actor=bob", "", 409).Detail,
		"failed already")
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	defer silent.Close()
	base := strings.TrimPrefix(silent.URL, "http://") + "/base@sha256:" + strings.Repeat("b", 64)
	site := sourceOf(c.T, "site/index.html", "envs/test/f")
	require.NoError(c, c.server.Platform.PutSource("site", site))
	c.call(operation, "/builds", good("go-static", "static-site", "hello_web-v1", "site", `"v1"`,
		`"v-1"`, `"actor"`, `"params":{"BASE_IMAGE":"`+base+`"},"actor"`), 202, &failed)
	c.refused(cancel, "/builds/"+failed.ID+"?actor=bob&reason=a%0Ab", "", 400)
	c.call(cancel, "/builds/"+failed.ID+"?actor=bob&reason=wrong+base", "", 200, &failed)
	require.Equal(c, "bob", failed.CancelledBy)
	require.Equal(c, "wrong base", failed.Reason)

	var versions []platform.Version
	c.call("GET /versions", "/versions?cluster=hello_web", "", 200, &versions)
	require.Len(c, versions, 1)
	require.Equal(c, build.Digest, versions[0].Digest)
	c.call("GET /versions", "/versions?cluster=greet_api", "", 200, &versions)
	require.Empty(c, versions)
	return build
}

// buildEvents reads the events of a build that has ended: all, those after a number, and as a
// stream, which goes on behind the last event that a client had.
func (c *caller) buildEvents(build platform.Build) {
	const operation = "GET /builds/{build}/events"
	path := "/builds/" + build.ID + "/events"
	c.refused(operation, "/builds/b999999/events", "", 404)
	c.refused(operation, path+"?after=-1", "", 400)
	var events, rest []platform.BuildEvent
	c.call(operation, path, "", 200, &events)
	require.Len(c, events, 3)
	require.Equal(c, "ann", events[0].Actor)
	require.Equal(c, build.Digest, events[2].Digest)
	c.call(operation, fmt.Sprint(path, "?after=", events[1].Seq), "", 200, &rest)
	require.Equal(c, events[2:], rest)
	c.call(operation, fmt.Sprint(path, "?after=", events[2].Seq), "", 200, &rest)
	require.Empty(c, rest)
	require.NotNil(c, rest, "[] and not null")
	var kinds []string
	for _, e := range readLog(follow(c.T, c.server, path)) {
		kinds = append(kinds, e.name)
	}
	require.Equal(c, []string{"submitted", "started", "succeeded"}, kinds)
	last := readLog(follow(c.T, c.server, fmt.Sprint(path, "?after=", events[1].Seq)))
	require.Len(c, last, 1)
	require.Contains(c, last[0].data, build.Digest)
}

func (c *caller) promotions(v1 platform.Build) {
	v2 := c.server.MustBuild(c, "hello_web", "v2", "sandbox")
	promotion := func(version, environment, more string) string {
		if !strings.Contains(more, "expect") {
			more += `,"expect":"any"`
		}
		return `{"cluster":"hello_web","version":"` + version + `","environment":"` + environment +
			`","actor":"ann"` + more + `}`
	}
	const promote, rollback = "POST /promotions", "POST /rollbacks"
	c.refused(promote, "/promotions", promotion("v9", "test", ""), 404)
	c.refused(promote, "/promotions", promotion("v1", "moon", ""), 400)
	c.refused(promote, "/promotions", promotion("v1", "test", `,"expect":"sha"`), 400)
	c.refused(promote, "/promotions", promotion("v1", "test", `,"force":true`), 400)
	require.Contains(c, c.refused(promote, "/promotions", promotion("v1", "test", `,"expect":""`),
		400).Detail, `want the digest that is current, "none" for nothing, or "any"`)
	require.Contains(c, c.refused("POST /rollbacks", "/rollbacks", `{"cluster":"hello_web",`+
		`"environment":"test","digest":"`+v1.Digest+`","actor":"bob"}`, 400).Detail, "expect: empty")
	require.NotEmpty(c, c.refused(promote, "/promotions", promotion("v1", "stable", ""),
		422).Reasons)

	var deployed platform.Deployment
	c.call(promote, "/promotions", promotion("v1", "test", `,"expect":"none","reason":"the first"`),
		200, &deployed)
	require.Equal(c, v1.Digest, deployed.Digest)
	require.Contains(c, c.refused(promote, "/promotions", promotion("v2", "test", `,"expect":"`+
		v2.Digest+`"`), 409).Detail, "ann")
	require.Equal(c, http.StatusConflict, c.deployForm("hello_web v2", "test",
		v2.Digest).StatusCode)
	c.call(promote, "/promotions", promotion("v2", "test", `,"expect":"`+v1.Digest+`"`), 200, nil)
	require.Equal(c, []string{"app/conf/app.properties"}, c.refused(promote, "/promotions",
		promotion("v2", "sandbox", ""), 422).Missing)

	back := func(digest string) string {
		return `{"cluster":"hello_web","environment":"test","digest":"` +
			digest + `","expect":"any","actor":"bob"}`
	}
	c.refused(rollback, "/rollbacks", back("v1"), 400)
	c.call(rollback, "/rollbacks", back(v1.Digest), 200, &deployed)
	require.Equal(c, "v1", deployed.Version)

	c.changes(v1)
	c.freezes(v1)

	var overview platform.Overview
	c.call("GET /environments", "/environments", "", 200, &overview)
	require.Equal(c, v1.Digest, overview.Clusters[1].Deployments["test"][0].Digest)
	var journal []platform.Entry
	c.call("GET /journal", "/journal?cluster=hello_web", "", 200, &journal)
	require.Equal(c, "bob", journal[len(journal)-1].Actor)
}

// freezes holds test up, asks why, and thaws it.
func (c *caller) freezes(v1 platform.Build) {
	const add, all, thaw = "POST /freezes", "GET /freezes", "DELETE /freezes/{freeze}"
	const explain = "GET /explanation"
	const question = "/explanation?cluster=hello_web&version=v1&actor=ann&environment="
	c.refused(add, "/freezes", `{"actor":"ann","reason":"sale"}`, 400)
	c.refused(add, "/freezes", `{"actor":"ann","reason":" ","until":"2999-01-01T00:00:00Z"}`, 400)
	c.refused(add, "/freezes", `{"reason":"sale","until":"2999-01-01T00:00:00Z"}`, 400)
	c.refused(add, "/freezes", `{"actor":"ann","reason":"sale","until":"2999-01-01T00:00:00Z",`+
		`"environments":["moon"]}`, 400)
	var f platform.Freeze
	c.call(add, "/freezes", `{"actor":"ann","reason":"sale","until":"2999-01-01T00:00:00Z",`+
		`"environments":["test"]}`, 200, &f)
	promotion := `{"cluster":"hello_web","environment":"test","version":"v1","expect":"any",` +
		`"actor":"bob"}`
	require.Contains(c, c.refused("POST /promotions", "/promotions", promotion, 422).Detail, "sale")
	var list []platform.Freeze
	c.call(all, "/freezes", "", 200, &list)
	require.Equal(c, []platform.Freeze{f}, list)

	var e platform.Explanation
	c.call(explain, question+"test&expect="+v1.Digest, "", 200, &e)
	require.False(c, e.Passes)
	require.Equal(c, []string{"freeze", ""}, []string{e.Unmet[0].Gate, e.Conflict})
	c.call(explain, question+"test&expect=none", "", 200, &e)
	require.Contains(c, e.Conflict, "v1")
	c.call(explain, question+"stable", "", 200, &e)
	require.Equal(c, "order", e.Unmet[0].Gate)
	c.refused(explain, question+"moon", "", 400)
	c.refused(explain, "/explanation?cluster=hello_web&version=v9&actor=a&environment=test", "",
		404)

	c.refused(thaw, "/freezes/"+f.ID, "", 400)
	c.call(thaw, "/freezes/"+f.ID+"?actor=bob", "", 200, nil)
	c.refused(thaw, "/freezes/"+f.ID+"?actor=bob", "", 404)
	c.refused(thaw, "/freezes/f9?actor=bob", "", 404)
	c.call(all, "/freezes", "", 200, &list)
	require.Empty(c, list)
	c.call("POST /promotions", "/promotions", promotion, 200, nil)
	var now platform.Explanation
	c.call(explain, question+"test", "", 200, &now)
	require.True(c, now.Passes)

	const review = "POST /reviews"
	c.refused(review, "/reviews", `{"cluster":"hello_web","environment":"test","version":"v1"}`, 400)
	c.refused(review, "/reviews", `{"cluster":"hello_web","environment":"test","version":"v9",`+
		`"actor":"bob"}`, 404)
	c.call(review, "/reviews", `{"cluster":"hello_web","environment":"test","version":"v1",`+
		`"approve":true,"actor":"bob","reason":"read it"}`, 200, nil)
}

// pauses holds a change that begin starts, and lets it go on.
func (c *caller) pauses(begin func(n int) string, ended func(string) platform.Change) {
	const pause, goOn = "POST /changes/{change}/pause", "POST /changes/{change}/continue"
	for n := 0; ; n++ { // a change that was faster than its pause has another one follow it
		path := begin(n)
		var response *http.Response
		refusal := ""
		require.Eventually(c, func() bool { // before its rollout has begun it is refused, too
			var body []byte
			response, body = c.server.Do(c.T, "POST", path+"/pause?actor=carol", nil)
			c.document.check(c.T, "POST", "/changes/{change}/pause", response, body)
			var problem web.Problem
			_ = json.Unmarshal(body, &problem)
			refusal = problem.Detail
			return !strings.Contains(problem.Detail, "has not begun")
		}, time.Minute, time.Millisecond)
		held := false
		require.Eventually(c, func() bool {
			var events []platform.Entry
			c.call("GET /changes/{change}/events", path+"/events", "", 200, &events)
			held = slices.ContainsFunc(events, func(e platform.Entry) bool {
				return e.Op == string(rollout.EventPaused)
			})
			last := events[len(events)-1].Kind
			return held || last == "succeeded" || last == "failed"
		}, time.Minute, 20*time.Millisecond)
		if !held {
			require.Less(c, n, 20, refusal)
			require.Equal(c, "done", ended(path).State)
			continue
		}
		require.Equal(c, 200, response.StatusCode)
		c.called[pause] = true
		var now platform.Change
		c.call("GET /changes/{change}", path, "", 200, &now)
		require.Equal(c, "deploying", now.State)
		c.refused(goOn, path+"/continue", "", 400)
		c.call(pause, path+"/pause?actor=dave", "", 200, &now) // twice is once
		require.Equal(c, "deploying", now.State)
		c.call(goOn, path+"/continue?actor=carol", "", 200, nil)
		// It is paused no more: it goes on all the same, and may have ended.
		response, body := c.server.Do(c.T, "POST", path+"/continue?actor=carol", nil)
		c.document.check(c.T, "POST", "/changes/{change}/continue", response, body)
		require.Contains(c, []int{200, 409}, response.StatusCode, string(body))
		require.Equal(c, "done", ended(path).State)
		c.refused(pause, path+"/pause?actor=carol", "", 409)
		c.refused(goOn, path+"/continue?actor=carol", "", 409)
		break
	}
	c.refused(pause, "/changes/hello_web-99999/pause?actor=carol", "", 404)
	c.refused(pause, "/changes/nothing/pause?actor=carol", "", 400)
	c.refused(pause, "/changes/nothing/pause", "", 400)
	var journal []platform.Entry
	c.call("GET /journal", "/journal?cluster=hello_web", "", 200, &journal)
	require.True(c, slices.ContainsFunc(journal, func(e platform.Entry) bool {
		return e.Op == "pause" && e.Actor == "carol"
	}))
}

// changes promotes without waiting, follows that, and aborts in time and too late.
func (c *caller) changes(v1 platform.Build) {
	const one, abort = "GET /changes/{change}", "DELETE /changes/{change}"
	digest := `{"cluster":"hello_web","digest":"` + v1.Digest + `","actor":"sec","reason":"CVE-1"}`
	c.refused("POST /quarantines", "/quarantines", `{"digest":"v1","actor":"sec"}`, 400)
	c.call("POST /quarantines", "/quarantines", digest, 200, nil)
	promotion := `{"cluster":"hello_web","environment":"test","version":"v1","expect":"any",` +
		`"actor":"bob"}`
	require.Contains(c, c.refused("POST /promotions", "/promotions", promotion, 422).Detail,
		"CVE-1")
	c.call("POST /releases", "/releases", digest, 200, nil)

	begin := func(version string) (path string) {
		response, body := c.server.DoWith(c.T, http.Header{"Prefer": {"wait=1, Respond-Async"}},
			"POST", "/promotions", strings.NewReader(strings.Replace(promotion, "v1", version, 1)))
		require.Equal(c, 202, response.StatusCode, string(body))
		c.document.check(c.T, "POST", "/promotions", response, body)
		require.Equal(c, "respond-async", response.Header.Get("Preference-Applied"))
		var begun platform.Change
		require.NoError(c, json.Unmarshal(body, &begun))
		require.Equal(c, "/api/v1/changes/"+begun.ID, response.Header.Get("Location"))
		return "/changes/" + begun.ID
	}
	ended := func(path string) (now platform.Change) {
		require.Eventually(c, func() bool {
			c.call(one, path, "", 200, &now)
			return !now.Ended.IsZero()
		}, time.Minute, 20*time.Millisecond)
		return now
	}
	path := begin("v1")
	now := ended(path)
	require.Equal(c, []string{"done", v1.Digest}, []string{now.State, now.Digest})

	// v2 was rolled back, so it is released first.
	var versions []platform.Version
	c.call("GET /versions", "/versions?cluster=hello_web", "", 200, &versions)
	at := slices.IndexFunc(versions, func(v platform.Version) bool { return v.Version == "v2" })
	c.call("POST /releases", "/releases", strings.Replace(digest, v1.Digest, versions[at].Digest,
		1), 200, nil)
	for n := 0; ; n++ { // a change that was faster than its abort has another one follow it
		stopped := begin([]string{"v2", "v1"}[n%2])
		response, body := c.server.Do(c.T, "DELETE", stopped+"?actor=carol&reason=wrong+build", nil)
		c.document.check(c.T, "DELETE", "/changes/{change}", response, body)
		now = ended(stopped)
		if response.StatusCode == 409 && n < 20 {
			require.Equal(c, "done", now.State)
			continue
		}
		require.Equal(c, 200, response.StatusCode, string(body))
		require.Equal(c, []string{"undone", "carol", "wrong build"},
			[]string{now.State, now.AbortedBy, now.AbortReason})
		break
	}
	c.called[abort] = true
	c.pauses(func(n int) string { return begin([]string{"v2", "v1"}[n%2]) }, ended)
	c.call("POST /promotions", "/promotions", promotion, 200, nil)

	c.refused(one, "/changes/hello_web-99999", "", 404)
	c.refused(one, "/changes/nothing", "", 400)
	c.refused("GET /changes/{change}/events", "/changes/nothing/events", "", 400)
	c.call("GET /changes/{change}/events", path+"/events", "", 200, nil)
	c.call("GET /overrides", "/overrides", "", 200, nil)
	c.call("GET /uses", "/uses", "", 200, nil)
	c.refused(abort, path+"?actor=bob", "", 400)
	c.refused(abort, path+"?reason=late", "", 400)
	c.refused(abort, path+"?actor=bob&reason=late", "", 409)
}

// deployForm sends the fields of the page's form; seen is the digest that the page showed as
// current.
func (c *caller) deployForm(image, environment, seen string) *http.Response {
	cluster, _, _ := strings.Cut(image, " ")
	form := url.Values{"actor": {"ann"}, "image": {image}, "environment": {environment}, "seen." +
		cluster: {environment + "=" + seen}}
	r, err := http.NewRequestWithContext(c.Context(), "POST", c.server.URL+"/do/promotions",
		strings.NewReader(form.Encode()))
	require.NoError(c, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultTransport.RoundTrip(r) // which follows no redirect
	require.NoError(c, err)
	require.NoError(c, response.Body.Close())
	return response
}

func (c *caller) tasks() {
	const start, one = "POST /tasks", "GET /tasks/{task}"
	request := func(task, version string) string {
		return `{"task":"` + task + `","cluster":"hello_web","version":"` +
			version + `","actor":"bob"}`
	}
	c.refused(start, "/tasks", request("Bad Name", "v2"), 400)
	c.refused(start, "/tasks", request("redesign", "v9"), 404)
	c.refused(one, "/tasks/redesign", "", 404)
	var started, again platform.Task
	c.call(start, "/tasks", request("redesign", "v2"), 200, &started)
	require.Len(c, started.Instances, 1)
	c.call(start, "/tasks", request("redesign", "v2"), 200, &again)
	require.Equal(c, started.VIP, again.VIP, "the same request again is the same VIP")
	c.refused(start, "/tasks", request("redesign", "v1"), 409)
	c.call(one, "/tasks/redesign", "", 200, nil)
	c.call("GET /tasks/{task}/reach", "/tasks/redesign/reach", "", 200, nil)
	c.refused("GET /tasks/{task}/reach", "/tasks/nobody/reach", "", 404)
	c.call("GET /tasks", "/tasks", "", 200, nil)
	c.refused("GET /vips/{vip}", "/vips/somewhere", "", 400)
	c.refused("GET /vips/{vip}", "/vips/127.60.0.200", "", 404)
	c.call("GET /vips/{vip}", "/vips/"+started.VIP.String(), "", 200, &again)
	require.Equal(c, "redesign", again.Task)

	c.call("DELETE /tasks/{task}", "/tasks/redesign?actor=bob", "", 200, &again)
	require.Equal(c, "cooling", again.State.String())
	// again: the answer may have been lost
	c.call("DELETE /tasks/{task}", "/tasks/redesign?actor=bob", "", 200, nil)
	c.refused("DELETE /tasks/{task}", "/tasks/nobody?actor=bob", "", 404)
	c.refused("DELETE /tasks/{task}", "/tasks/redesign", "", 400)
	var left []platform.Task
	c.call("GET /tasks", "/tasks", "", 200, &left)
	require.Len(c, left, 1)
	require.False(c, left[0].CoolUntil.IsZero())
}

func (c *caller) instances() {
	var before, after []web.Instance
	c.call("GET /instances", "/instances", "", 200, &before)
	require.Len(c, before, 1)
	c.refused("GET /instances/{instance}/log", "/instances/nobody/log", "", 404)
	c.call("GET /instances/{instance}/log", "/instances/"+before[0].ID+"/log", "", 200, nil)
	_, log := c.server.Do(c, "GET", "/instances/"+before[0].ID+"/log", nil)
	require.NotEmpty(c, log, "a service says where it listens")
	c.refused("POST /instances/{instance}/restart", "/instances/nobody/restart?actor=ann", "", 404)
	c.refused("POST /instances/{instance}/restart", "/instances/"+before[0].ID+"/restart", "", 400)
	var fresh web.Instance
	c.call("POST /instances/{instance}/restart", "/instances/"+before[0].ID+"/restart?actor=bob",
		"", 200, &fresh)
	require.NotEqual(c, before[0].Addr, fresh.Addr)
	c.call("GET /instances", "/instances", "", 200, &after)
	require.Equal(c, []web.Instance{fresh}, after)
	var nginx platform.NginxStatus
	c.call("GET /nginx", "/nginx", "", 200, &nginx)
	require.Equal(c, c.server.NginxPort, nginx.Port)
	require.NotEmpty(c, nginx.Changes)
	for _, worker := range nginx.Workers {
		require.True(c, worker.Verified)
	}
}

// TestHangUp has the client go away while its promotion and its task are being carried out.
func TestHangUp(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	s.MustBuild(t, "hello_web", "v1")
	for n, path := range []string{"/promotions", "/tasks"} {
		body := []string{
			`{"cluster":"hello_web","environment":"test","version":"v1","expect":"none",` +
				`"actor":"ann"}`,
			`{"task":"t1","cluster":"hello_web","version":"v1","actor":"ann"}`}[n]
		ctx, hangUp := context.WithCancel(t.Context())
		gone := make(chan bool)
		go func() {
			defer close(gone)
			r, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/api/v1"+path,
				strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			if response, err := http.DefaultClient.Do(r); err == nil {
				response.Body.Close()
			}
		}()
		last := func() platform.Entry {
			var entries []platform.Entry
			s.Call(t, "GET", "/journal", nil, &entries)
			return entries[len(entries)-1]
		}
		require.Eventually(t, func() bool {
			return last().Kind != "bound" && (n == 0 ||
				last().Task == "t1")
		}, time.Minute, time.Millisecond, "%s has begun", path)
		hangUp()
		<-gone
		require.Eventually(t, func() bool { return last().Kind == "succeeded" }, time.Minute,
			10*time.Millisecond, "%s has gone on", path)
	}
	require.Eventually(t, func() bool {
		var task platform.Task
		s.Call(t, "GET", "/tasks/t1", nil, &task)
		return len(task.Instances) == 1
	}, time.Minute, 10*time.Millisecond)
}

// TestHangUpAfter202 has the client go away as soon as it has the answer that its change has begun.
func TestHangUpAfter202(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	v1 := s.MustBuild(t, "hello_web", "v1")
	s.MustBuild(t, "hello_web", "v2")
	s.MustPromote(t, "hello_web", "v1", "test", "sandbox")
	s.MustPromote(t, "hello_web", "v2", "test")
	const target = `{"cluster":"hello_web","actor":"ann","environment":`
	for _, request := range []struct{ path, body string }{
		{"/rollbacks", target + `"test","expect":"any","digest":"` + v1.Digest + `"}`},
		{"/promotions", target + `"production","expect":"none","version":"v1"}`},
		{"/tasks", `{"cluster":"hello_web","actor":"ann","task":"t1","version":"v1"}`},
	} {
		ctx, hangUp := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/api/v1"+request.path,
			strings.NewReader(request.body))
		require.NoError(t, err)
		r.Header.Set("Prefer", "respond-async")
		connection := &http.Transport{} // of this request alone
		response, err := connection.RoundTrip(r)
		require.NoError(t, err)
		hangUp() // before the body is read
		require.NoError(t, response.Body.Close())
		connection.CloseIdleConnections()
		require.Equal(t, 202, response.StatusCode, request.path)
		change := strings.TrimPrefix(response.Header.Get("Location"), "/api/v1")
		var now platform.Change
		require.Eventually(t, func() bool {
			s.Call(t, "GET", change, nil, &now)
			return !now.Ended.IsZero()
		}, time.Minute, 10*time.Millisecond, "%s goes on", request.path)
		require.Equal(t, []string{"done", v1.Digest, ""},
			[]string{now.State, now.Digest, now.Error}, request.path)
		var events []platform.Entry
		s.Call(t, "GET", change+"/events", nil, &events)
		require.Equal(t, []string{"started", "succeeded", now.ID},
			[]string{events[0].Kind, events[1].Kind, events[1].Change}, request.path)
	}
	require.Eventually(t, func() bool {
		var task platform.Task
		s.Call(t, "GET", "/tasks/t1", nil, &task)
		return len(task.Instances) == 1
	}, time.Minute, 10*time.Millisecond, "the task serves")
}
