package web_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/examples/server/web"
	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// operation is one that changes something, or asks whether it may, with good values for each of its
// fields.
type operation struct {
	// with {field} where a field stands in the path
	method, path string
	// by name
	fields map[string]string
	// whether the fields that are not in the path are JSON, else query parameters
	json bool
	// JSON fields that are no strings, each after a comma
	more string
}

func (o operation) String() string { return o.method + " " + o.path }

// absent reports whether the operation may be asked for without the field.
func (o operation) absent(field string) bool {
	switch o.path {
	case "/builds":
		return field == "id" || field == "team" || field == "policy"
	case "/builds/{build}/events", "/builds/{build}/log":
		return field == "after" || field == "offset"
	case "/versions":
		return field == "digest"
	case "/explanation":
		return field == "expect"
	case "/quarantines", "/releases":
		return field == "cluster"
	}
	return false
}

// request is the request with the values.
func (o operation) request(values map[string]string) (path, body string) {
	path = o.path
	rest := map[string]string{}
	for name, value := range values {
		if strings.Contains(path, "{"+name+"}") {
			path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(value))
		} else {
			rest[name] = value
		}
	}
	if !o.json {
		query := url.Values{}
		for name, value := range rest {
			query.Set(name, value)
		}
		if len(query) > 0 {
			path += "?" + query.Encode()
		}
		return path, ""
	}
	fields := make([]string, 0, len(rest))
	for name, value := range rest {
		fields = append(fields, fmt.Sprintf("%q:%s", name, quoted(value)))
	}
	return path, "{" + strings.Join(fields, ",") + o.more + "}"
}

// quoted is a JSON string; bytes that are no UTF-8 stay as they are.
func quoted(s string) string {
	if !utf8.ValidString(s) {
		return `"` + s + `"`
	}
	data, _ := json.Marshal(s) // of a string: never fails
	return string(data)
}

// ready is a server with a version in test and sandbox, and a task; the operations are all good
// ones on it.
func ready(t *testing.T) (*servertest.Server, []operation) {
	s := servertest.Start(t, servertest.Config{Breakers: []string{"ann"},
		Adopters: []string{"ann"}})
	v1 := s.MustBuild(t, "hello_web", "v1")
	s.MustPromote(t, "hello_web", "v1", "test", "sandbox")
	_, err := s.Platform.StartTask(t.Context(), platform.TaskRequest{Task: "t1",
		Cluster: "hello_web", Version: "v1", Actor: "ann"})
	require.NoError(t, err)
	instance := s.Platform.Instances()[0].ID
	var change string
	var journal []platform.Entry
	s.Call(t, http.MethodGet, "/journal", nil, &journal)
	for _, e := range journal {
		if e.Kind == "started" {
			change = fmt.Sprintf("%s-%d", e.Cluster, e.Seq)
		}
	}
	s.Call(t, http.MethodGet, "/changes/"+change, nil, nil)
	freeze, err := s.Platform.Freeze(platform.FreezeRequest{Environments: []string{"stable"},
		Until: time.Now().Add(time.Hour), Actor: "ann", Reason: "a sale"})
	require.NoError(t, err)
	type fields = map[string]string
	return s, []operation{
		{"POST", "/builds", fields{"cluster": "hello_web", "version": "v7",
			"template": "go-static", "source": "hello_web-v1", "actor": "ann"}, true, ""},
		{"POST", "/builds", fields{"id": "mine", "cluster": "hello_web", "version": "v9",
			"template": "go-static", "source": "hello_web-v1", "team": "web", "policy": "serial",
			"actor": "ann"}, true, ""},
		{"DELETE", "/builds/{build}", fields{"build": v1.ID, "actor": "ann", "reason": "r"}, false,
			""},
		{"GET", "/builds/{build}/events", fields{"build": v1.ID, "after": "1"}, false, ""},
		{"GET", "/builds/{build}/log", fields{"build": v1.ID, "offset": "1"}, false, ""},
		{"POST", "/versions", fields{"cluster": "hello_web", "version": "v8",
			"digest": v1.Digest, "actor": "ann"}, true, ""},
		{"POST", "/promotions", fields{"cluster": "hello_web", "version": "v1",
			"environment": "test", "expect": v1.Digest, "actor": "ann", "reason": "r"}, true,
			`,"facts":{"ticket":"T-1"}`},
		{"POST", "/rollbacks", fields{"cluster": "hello_web", "environment": "test",
			"digest": v1.Digest, "expect": v1.Digest, "actor": "ann", "reason": "r"}, true, ""},
		{"POST", "/overrides", fields{"cluster": "hello_web", "version": "v1",
			"environment": "test", "expect": v1.Digest, "actor": "ann", "reason": "r"}, true, ""},
		{"POST", "/adoptions", fields{"cluster": "hello_web", "version": "v1",
			"environment": "test", "expect": v1.Digest, "actor": "ann", "reason": "r"}, true, ""},
		{"GET", "/explanation", fields{"cluster": "hello_web", "version": "v1",
			"environment": "test", "expect": v1.Digest, "actor": "ann"}, false, ""},
		{"DELETE", "/changes/{change}", fields{"change": change, "actor": "ann", "reason": "r"},
			false, ""},
		{"POST", "/changes/{change}/pause", fields{"change": change, "actor": "ann"}, false, ""},
		{"POST", "/changes/{change}/continue", fields{"change": change, "actor": "ann"}, false,
			""},
		{"POST", "/reviews", fields{"cluster": "hello_web", "version": "v1",
			"environment": "test", "actor": "ann", "reason": "r"}, true, `,"approve":true`},
		{"POST", "/tasks", fields{"task": "t2", "cluster": "hello_web", "version": "v1",
			"actor": "ann"}, true, ""},
		{"DELETE", "/tasks/{task}", fields{"task": "t1", "actor": "ann"}, false, ""},
		{"DELETE", "/sources/{source}", fields{"source": "hello_web-v1"}, false, ""},
		{"POST", "/instances/{instance}/restart", fields{"instance": instance,
			"actor": "ann"}, false, ""},
		{"POST", "/freezes", fields{"until": "2999-01-01T00:00:00Z", "actor": "ann",
			"reason": "r"}, true, `,"environments":["stable"]`},
		{"DELETE", "/freezes/{freeze}", fields{"freeze": freeze.ID, "actor": "ann"}, false, ""},
		{"POST", "/quarantines", fields{"cluster": "hello_web", "digest": v1.Digest,
			"actor": "ann", "reason": "r"}, true, ""},
		{"POST", "/releases", fields{"cluster": "hello_web", "digest": v1.Digest,
			"actor": "ann", "reason": "r"}, true, ""},
	}
}

// state is the answers of the API and the names of files below the server's directory: every
// operation changes some of it.
func state(t *testing.T, s *servertest.Server) string {
	t.Helper()
	var b strings.Builder
	for _, path := range []string{"/sources", "/builds", "/versions", "/environments", "/journal",
		"/tasks", "/vips", "/instances", "/freezes"} {
		response, data := s.Do(t, http.MethodGet, path, nil)
		require.Equal(t, 200, response.StatusCode, path)
		fmt.Fprintf(&b, "%s: %s\n", path, data)
	}
	for _, sub := range []string{"sources", "builds", "instances", "registry/images"} {
		dir := filepath.Join(s.Dir, sub)
		require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry,
			err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			b.WriteString(path + "\n")
			if sub == "instances" && strings.Count(strings.TrimPrefix(path, dir), "/") > 1 {
				return fs.SkipDir
			}
			return err
		}))
	}
	return b.String()
}

// TestBadValues sends each operation each kind of bad value in each of its fields, and nothing
// changes.
func TestBadValues(t *testing.T) {
	t.Parallel()
	s, operations := ready(t)
	bad := map[string]string{
		"empty": "", "long": strings.Repeat("x", 300), "a NUL": "a\x00b", "a line break": "a\nb",
		"no UTF-8":    "a\xffb",
		"an override": "a\u202eb", "a way out": "../../etc", "a slash": "a/b",
		"very long": strings.Repeat("y", 100_000),
	}
	before := state(t, s)
	refused := 0
	for _, o := range operations {
		for _, field := range slices.Sorted(maps.Keys(o.fields)) {
			if field == "reason" {
				continue // free text: TestHostileRequests has it
			}
			for kind, value := range bad {
				if kind == "empty" && (o.absent(field) || strings.Contains(o.path, "{"+field+"}")) {
					continue // means something else
				}
				if field == "actor" && strings.HasPrefix(kind, "a ") &&
					strings.Contains(value, "/") {
					continue // a name may have one
				}
				values := maps.Clone(o.fields)
				values[field] = value
				path, body := o.request(values)
				response, answer := s.Do(t, o.method, path, strings.NewReader(body))
				require.True(t, response.StatusCode >= 400 && response.StatusCode < 500,
					"%s with %s as %s: %s: %s", o, kind, field, response.Status, answer)
				require.NotContains(t, string(answer), s.Dir, "%s with %s as %s", o, kind, field)
				refused++
			}
		}
		path, body := o.request(o.fields)
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		for name, sent := range map[string][2]string{
			"an unknown parameter": {path + sep + "force=1", body},
			"a bad escape":         {path + sep + "actor=%zz", body},
		} {
			response, answer := s.Do(t, o.method, sent[0], strings.NewReader(sent[1]))
			require.Equal(t, 400, response.StatusCode, "%s with %s: %s", o, name, answer)
		}
		if !o.json {
			continue
		}
		for name, body := range map[string]string{
			"trailing bytes": body + "x", "a second value": body + body,
			"an unknown field": `{"force":true,` + body[1:], "half": body[:len(body)/2],
			"nothing": "", "an array": "[" + body + "]",
			"a field twice":       body[:len(body)-1] + `,"actor":"ann"}`,
			"a field in capitals": strings.Replace(body, `"actor"`, `"Actor"`, 1),
		} {
			response, answer := s.Do(t, o.method, path, strings.NewReader(body))
			require.Equal(t, 400, response.StatusCode, "%s with %s: %s", o, name, answer)
		}
	}
	require.Greater(t, refused, 300)
	require.Equal(t, before, state(t, s))
}

// TestHostileRequests sends each operation random pieces of good and bad requests. No answer is a
// fault of the server, and a refused request changes nothing.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	s, operations := ready(t)
	random := rand.New(rand.NewPCG(1, 2))
	before := state(t, s)
	for _, o := range operations {
		for n := range soak.Count(40, 2000) {
			values := maps.Clone(o.fields)
			names := slices.Sorted(maps.Keys(values))
			for range 1 + random.IntN(2) {
				values[names[random.IntN(len(names))]] = hostile(random)
			}
			path, body := o.request(values)
			switch random.IntN(8) {
			case 0:
				body = body[:random.IntN(len(body)+1)]
			case 1:
				body += hostile(random)
			case 2:
				path += hostileQuery(random, path)
			}
			response, answer := s.Do(t, o.method, path, strings.NewReader(body))
			where := fmt.Sprintf("%s, input %d: %q %q: %s: %s", o, n, path, body, response.Status,
				answer)
			require.Less(t, response.StatusCode, 500, where)
			require.NotContains(t, string(answer), s.Dir, where)
			if response.StatusCode < 300 { // it was a good one after all
				for _, build := range buildsOf(t, s) {
					_, err := s.Ended(t.Context(), build.ID)
					require.NoError(t, err)
				}
				testbed.Poll(t, "the end of the builds", func() error {
					// their sources go after they have ended
					left, err := filepath.Glob(filepath.Join(s.Dir, "builds", "*.source"))
					if err == nil && len(left) > 0 {
						err = fmt.Errorf("%v is there", left)
					}
					return err
				})
				before = state(t, s)
				continue
			}
			var problem web.Problem
			if strings.Contains(response.Header.Get("Content-Type"), "problem+json") {
				require.NoError(t, json.Unmarshal(answer, &problem), where)
				require.NotEmpty(t, problem.Detail, where)
			}
			if n%20 == 0 {
				require.Equal(t, before, state(t, s), where)
			}
		}
		require.Equal(t, before, state(t, s), o.String())
	}
}

func buildsOf(t *testing.T, s *servertest.Server) (builds []platform.Build) {
	s.Call(t, http.MethodGet, "/builds", nil, &builds)
	return builds
}

// hostile is a text as people and programs send it by mistake, or on purpose.
func hostile(random *rand.Rand) string {
	pieces := []string{
		"", " ", "hello_web", "v1", "test", "none", "sha256:", "sha256:" + strings.Repeat("0", 64),
		strings.Repeat("a", 64), "..", "/", "\\", "%2e", "\x00",
		"\n", "\r\n", "\xff", "\u202e", "\u2028", "😀", "'", `"`, "<script>", "${x}", "$(id)",
		"{{.}}", "-", "_", ".", ":", "@", "#", "?", "&", "=", "+", ",",
		"-1", "9999999999999999999999", "null", "true", "[]", "{}", strings.Repeat("x", 5000), "A",
		"é",
	}
	var b strings.Builder
	for range 1 + random.IntN(4) {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	return b.String()
}

func hostileQuery(random *rand.Rand, path string) string {
	if strings.Contains(path, "?") {
		return "&" + url.QueryEscape(hostile(random)) + "=" + url.QueryEscape(hostile(random))
	}
	return "?" + url.QueryEscape(hostile(random)) + "=" + url.QueryEscape(hostile(random))
}
