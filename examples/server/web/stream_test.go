package web_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

// event is one server-sent event.
type event struct{ name, data string }

// follow opens a stream below /api/v1 and returns a function that gives its next event; at its end
// that is the zero value.
func follow(t *testing.T, s *servertest.Server, path string) func() event {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/api/v1"+path, nil)
	require.NoError(t, err)
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	lines := bufio.NewScanner(response.Body)
	return func() (e event) {
		for lines.Scan() && lines.Text() != "" {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				e.name = value
			case "data":
				e.data = value
			}
		}
		return e
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	next := follow(t, s, "/events") // open before anything has happened
	source := s.Upload(t, "hello_web", "v1")
	first := next()
	require.Equal(t, "change", first.name)
	s.Upload(t, "hello_web", "v2")
	second := next()
	require.Equal(t, "change", second.name)
	require.NotEqual(t, first.data, second.data)

	build, err := s.Platform.SubmitBuild(t.Context(), platform.BuildRequest{
		Cluster: "hello_web", Version: "v1", Template: "go-static", Source: source, Actor: "ann"})
	require.NoError(t, err)
	live := readLog(follow(t, s, "/builds/"+build.ID+"/log"))
	require.Equal(t, event{"end", "succeeded"}, live[len(live)-1])
	require.Equal(t, live, readLog(follow(t, s, "/builds/"+build.ID+"/log")),
		"the stream of an ended build is the whole log")

	_, text := s.Do(t, "GET", "/builds/"+build.ID+"/log", nil)
	var lines []string
	require.Equal(t, "verdict", live[len(live)-2].name)
	require.Contains(t, live[len(live)-2].data, `"verdict":"complete"`)
	for _, e := range live[:len(live)-2] {
		require.Equal(t, "line", e.name)
		lines = append(lines, e.data)
	}
	require.Equal(t, strings.TrimSuffix(string(text), "\n"), strings.Join(lines, "\n"))

	require.NoError(t, s.Platform.PutSource("partial", partial(t)))
	failing, err := s.Platform.SubmitBuild(t.Context(), platform.BuildRequest{Cluster: "hello_web",
		Version: "v2", Template: "go-static", Source: "partial", Actor: "ann"})
	require.NoError(t, err)
	log := readLog(follow(t, s, "/builds/"+failing.ID+"/log"))
	require.Equal(t, event{"end", "failed"}, log[len(log)-1])
	require.Contains(t, log[len(log)-3].data, "app")
}

// readLog reads a build's stream to its end.
func readLog(next func() event) (events []event) {
	for {
		e := next()
		if e.name == "" {
			return events
		}
		events = append(events, e)
	}
}
