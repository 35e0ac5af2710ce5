//go:build linux

package relay_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
	"github.com/sluice-deploy/sluice/nginxsync/relay"
	"github.com/sluice-deploy/sluice/nginxsync/sourcetest"
)

const secret = "0123456789abcdef"

func token() (string, error) { return secret, nil }

// running runs something until the test ends or the function is called.
func running(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// handle makes a handler of a source that runs.
func handle(t *testing.T, cfg relay.HandlerConfig) (h *relay.Handler, stop func()) {
	t.Helper()
	cfg.Token = secret
	h, err := relay.NewHandler(cfg)
	require.NoError(t, err)
	return h, running(t, h.Run)
}

// serve serves a handler.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server
}

// follow makes a source of a relay's URL, which runs.
func follow(t *testing.T, cfg relay.Config, servers ...*httptest.Server) *relay.Source {
	t.Helper()
	cfg.Token = token
	for _, s := range servers {
		cfg.URLs = append(cfg.URLs, s.URL)
	}
	cfg.Client = servers[0].Client() // all have the certificate of package httptest
	s, err := relay.New(cfg)
	require.NoError(t, err)
	running(t, s.Run)
	return s
}

// baseline is a snapshot of one cluster with one instance.
func baseline(cluster, version string) nginxsync.Snapshot {
	return nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{cluster: {{ID: "i",
		Addr: netip.MustParseAddrPort("127.0.0.1:8001"), Version: version}}}}
}

// supplies waits until a source supplies the snapshot, and returns the revision.
func supplies(t *testing.T, source nginxsync.Source, want nginxsync.Snapshot) (revision uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		got, next, err := source.Watch(ctx, revision)
		if ctx.Err() != nil {
			t.Fatalf("no snapshot %+v: %v", want, err)
		}
		if err == nil {
			if revision = next; got.Equal(want) {
				return revision
			}
		}
	}
}

// fails waits until a source that has nothing newer returns an error with the text.
func fails(t *testing.T, source nginxsync.Source, revision uint64, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	for err == nil || !strings.Contains(err.Error(), want) {
		_, next, failed := source.Watch(ctx, revision)
		require.NoError(t, ctx.Err(), "want %q, got %v", want, err)
		if err = failed; err == nil {
			revision = next
		}
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Harness {
		origin := nginxsync.NewStaticSource(nginxsync.Snapshot{})
		h, _ := handle(t, relay.HandlerConfig{Source: origin})
		return &sourcetest.Harness{Source: follow(t, relay.Config{}, serve(t, h)),
			Set: func(s nginxsync.Snapshot) { origin.Set(s) }}
	})
}

// A relay that dies takes nothing away; the next one that answers is followed.
func TestRelayDies(t *testing.T) {
	t.Parallel()
	origin := nginxsync.NewStaticSource(baseline("a", "v1"))
	h, _ := handle(t, relay.HandlerConfig{Source: origin})
	first := serve(t, h)
	second := httptest.NewUnstartedServer(http.NotFoundHandler())
	s := follow(t, relay.Config{}, first, &httptest.Server{URL: "https://" +
		second.Listener.Addr().String()})
	revision := supplies(t, s, baseline("a", "v1"))
	require.True(t, s.Status().Connected)
	first.CloseClientConnections()
	first.Close()
	fails(t, s, revision, "relay https://127.0.0.1:")
	got, at, err := s.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, revision, at)
	require.True(t, got.Equal(baseline("a", "v1")))
	require.False(t, s.Status().Connected)
	require.NotContains(t, s.Status().Error, secret)

	origin.Set(baseline("a", "v2"))
	second.Config.Handler = h
	second.StartTLS()
	t.Cleanup(func() { second.CloseClientConnections(); second.Close() })
	supplies(t, s, baseline("a", "v2"))
	require.Equal(t, relay.Status{Relay: second.URL, Connected: true, Since: s.Status().Since},
		s.Status())
}

// A relay that starts again, perhaps with other routes, is followed from the beginning. While it
// has not heard its own source, nothing changes.
func TestRelayStartsAgain(t *testing.T) {
	t.Parallel()
	h, stop := handle(t, relay.HandlerConfig{Source: nginxsync.NewStaticSource(baseline("a",
		"v1"))})
	var now atomic.Pointer[relay.Handler]
	now.Store(h)
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now.Load().ServeHTTP(w, r)
	}))
	s := follow(t, relay.Config{}, server)
	revision := supplies(t, s, baseline("a", "v1"))
	deaf := make(chan struct{})
	again, _ := handle(t, relay.HandlerConfig{Source: late{deaf,
		nginxsync.NewStaticSource(baseline("b", "v2"))}})
	now.Store(again)
	stop()
	fails(t, s, revision, "the relay has ended the stream")
	_, at, err := s.Watch(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, revision, at)
	close(deaf)
	supplies(t, s, baseline("b", "v2"))
}

// late is a source that says nothing before the channel is closed.
type late struct {
	until <-chan struct{}
	nginxsync.Source
}

func (l late) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	select {
	case <-l.until:
		return l.Source.Watch(ctx, after)
	case <-ctx.Done():
		return nginxsync.Snapshot{}, 0, context.Cause(ctx)
	}
}

// read reads a stream up to the line with the text, and returns the lines without signs of life.
func read(t *testing.T, server *httptest.Server, query url.Values, until string) (lines []string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"?"+
		query.Encode(), nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := server.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		if in.Text() != "" {
			lines = append(lines, in.Text())
		}
		if strings.Contains(in.Text(), until) {
			return lines
		}
	}
	t.Fatalf("no line with %s: %v", until, lines)
	return nil
}

// A follower that was away gets the changes since, or everything when it names a stream of another
// relay.
func TestStreamGoesOn(t *testing.T) {
	t.Parallel()
	origin := nginxsync.NewStaticSource(nginxsync.Snapshot{Baseline: map[string][]nginxsync.
		Instance{"a": {{ID: "i"}}, "b": {{ID: "i"}}}})
	h, _ := handle(t, relay.HandlerConfig{Source: origin})
	server := serve(t, h)
	all := read(t, server, nil, `"end"`)
	require.Len(t, all, 4)
	stream := strings.Split(all[0], `"`)[5]
	require.Equal(t, fmt.Sprintf(`{"hello":{"stream":"%s","after":0}}`, stream), all[0])
	require.Contains(t, all[1:3], `{"row":{"cluster":"b","instances":[{"id":"i","addr":""}]}}`)
	require.Contains(t, all[3], `{"end":{"revision":1,"sum":"`)

	origin.Set(nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{"a": {{ID: "i"}}}})
	since := url.Values{"stream": {stream}, "after": {"1"}}
	some := read(t, server, since, `"end":{"revision":2,`)
	require.Equal(t, []string{fmt.Sprintf(`{"hello":{"stream":"%s","after":1}}`, stream),
		`{"row":{"cluster":"b","gone":true}}`}, some[:2])
	require.Len(t, some, 3)
	since.Set("stream", "another")
	require.Len(t, read(t, server, since, `"end"`), 3)

	since.Set("stream", stream)
	require.Contains(t, read(t, server, since, `"end"`)[0], `"after":1`)
}

// A relay that does not hear its own source says so, and says when it does again.
func TestRelayHearsNothing(t *testing.T) {
	t.Parallel()
	origin := &moody{StaticSource: nginxsync.NewStaticSource(baseline("a", "v1")),
		changed: make(chan struct{})}
	h, _ := handle(t, relay.HandlerConfig{Source: origin})
	server := serve(t, h)
	s := follow(t, relay.Config{}, server)
	revision := supplies(t, s, baseline("a", "v1"))
	origin.turn(errors.New("consul is away"))
	fails(t, s, revision, "does not hear its source: consul is away")
	late := follow(t, relay.Config{}, server)
	supplies(t, late, baseline("a", "v1"))
	require.False(t, late.Status().Connected)
	origin.turn(nil)
	origin.Set(baseline("a", "v1")) // another revision of the same
	for _, s := range []*relay.Source{s, late} {
		testbed.Poll(t, "the source is heard again", func() error {
			if status := s.Status(); !status.Connected {
				return errors.New(status.Error)
			}
			return nil
		})
	}
	if supplies(t, s, baseline("a", "v1")) == revision {
		t.Error("the watchers do not learn that the source is heard again")
	}
}

// moody is a source that fails while an error is set.
type moody struct {
	*nginxsync.StaticSource
	mu      sync.Mutex
	err     error
	changed chan struct{}
}

func (m *moody) turn(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *moody) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	m.mu.Lock()
	err, changed := m.err, m.changed
	m.mu.Unlock()
	if err != nil {
		return nginxsync.Snapshot{}, 0, err
	}
	own, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-changed:
			stop(errors.New("turned"))
		case <-own.Done():
		}
	}()
	return m.StaticSource.Watch(own, after)
}

// spare is a fallback that counts how many of its kind run.
type spare struct {
	*nginxsync.StaticSource
	running *atomic.Int64
}

func (s spare) Run(ctx context.Context) error {
	s.running.Add(1)
	defer s.running.Add(-1)
	<-ctx.Done()
	return context.Cause(ctx)
}

// While no relay is heard, the fallback is followed; a relay that is heard counts again.
func TestFallback(t *testing.T) {
	t.Parallel()
	origin := nginxsync.NewStaticSource(baseline("a", "v1"))
	h, stop := handle(t, relay.HandlerConfig{Source: origin})
	var now atomic.Pointer[relay.Handler]
	now.Store(h)
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now.Load().ServeHTTP(w, r)
	}))
	own := nginxsync.NewStaticSource(baseline("a", "v2"))
	var made, running atomic.Int64
	s := follow(t, relay.Config{FallbackAfter: 300 * time.Millisecond,
		Fallback: func() (relay.Fallback, error) {
			if made.Add(1) == 1 {
				return nil, errors.New("not yet")
			}
			return spare{own, &running}, nil
		}}, server)
	supplies(t, s, baseline("a", "v1"))
	require.False(t, s.Status().Fallback)
	stop() // ends all streams
	supplies(t, s, baseline("a", "v2"))
	require.True(t, s.Status().Fallback)
	own.Set(baseline("a", "v3"))
	supplies(t, s, baseline("a", "v3"))
	again, _ := handle(t, relay.HandlerConfig{Source: origin})
	now.Store(again)
	supplies(t, s, baseline("a", "v1"))
	testbed.Poll(t, "the fallback ends", func() error {
		if running.Load() != 0 || s.Status().Fallback {
			return fmt.Errorf("%d run, %+v", running.Load(), s.Status())
		}
		return nil
	})
	own.Set(baseline("a", "v4"))
	origin.Set(baseline("a", "v5"))
	supplies(t, s, baseline("a", "v5"))
}

// A relay whose lines do not add up, or are none that this release knows, is not believed.
func TestRelayThatCannotBeBelieved(t *testing.T) {
	t.Parallel()
	const hello = `{"hello":{"stream":"s","after":0}}` + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"sum": {hello + `{"row":{"cluster":"a"}}` + "\n" +
			`{"end":{"revision":1,"sum":"00"}}`, "revision 1: the sum is "},
		"no hello": {`{"row":{"cluster":"a"}}`, "want hello first"},
		"changes": {`{"hello":{"stream":"s","after":7}}`,
			"changes after revision 7, want after 0"},
		"another line": {hello + `{"colour":"red"}`, `line "{\"colour\":\"red\"}"`},
		"no JSON":      {hello + "<html>", `line "<html>"`},
		"no line":      {hello + "{}", "want a line that this release knows"},
		"revision":     {hello + `{"end":{"revision":0,"sum":"0"}}`, "revision 0: comes after"},
		"endless line": {strings.Repeat("x", 17<<20), "token too long"},
		"half":         {hello + `{"row":{"cluster":"a"}}`, "the relay has ended the stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(c.text + "\n"))
			}))
			fails(t, follow(t, relay.Config{}, server), 0, c.want)
		})
	}
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	fails(t, follow(t, relay.Config{Silence: 50 * time.Millisecond}, server), 0,
		"no sign of life for 50ms")
}

// A stream lasts longer than its server lets a request take.
func TestStreamOutlivesReadTimeout(t *testing.T) {
	t.Parallel()
	h, _ := handle(t, relay.HandlerConfig{Source: nginxsync.NewStaticSource(baseline("a", "v1")),
		Beat: 20 * time.Millisecond})
	server := httptest.NewUnstartedServer(h)
	server.Config.ReadTimeout = 50 * time.Millisecond
	server.Start()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+secret)
	var resp *http.Response
	testbed.Poll(t, "the server reads the request in its time", func() (err error) {
		resp, err = server.Client().Do(req)
		return err
	})
	defer resp.Body.Close()
	in, beats := bufio.NewScanner(resp.Body), 0
	for beats < 20 && in.Scan() {
		if in.Text() == "" {
			beats++
		}
	}
	require.NoError(t, in.Err())
	require.Equal(t, 20, beats)
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	h, _ := handle(t, relay.HandlerConfig{Followers: 1, Source: nginxsync.NewStaticSource(
		baseline("a", "v1"))})
	server := serve(t, h)
	ask := func(method, token, query string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+query, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", token)
		resp, err := server.Client().Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Content-Type")
	}
	const problem = "application/problem+json"
	for _, c := range []struct {
		method, token, query string
		status               int
	}{
		{"GET", "", "", http.StatusUnauthorized},
		{"GET", "Bearer 0123456789abcdeg", "", http.StatusUnauthorized},
		{"GET", secret, "", http.StatusUnauthorized},
		{"POST", "Bearer " + secret, "", http.StatusBadRequest},
	} {
		status, kind := ask(c.method, c.token, c.query)
		require.Equal(t, c.status, status, "%+v", c)
		require.Equal(t, problem, kind)
	}
	s := follow(t, relay.Config{}, server)
	supplies(t, s, baseline("a", "v1"))
	status, _ := ask("GET", "Bearer "+secret, "")
	require.Equal(t, http.StatusServiceUnavailable, status)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	checktest.Run(t, nginxsync.ErrInvalid, relay.Config{URLs: []string{"https://a"}, Token: token},
		func(c relay.Config) error { _, err := relay.New(c); return err },
		map[string][]func(*relay.Config){
			"URLs": {func(c *relay.Config) { c.URLs = nil },
				func(c *relay.Config) { c.URLs = []string{"https://a", "a:1"} },
				func(c *relay.Config) { c.URLs = []string{"https://user:s3cret@a"} }},
			"Token":         {func(c *relay.Config) { c.Token = nil }},
			"Silence":       {func(c *relay.Config) { c.Silence = -1 }},
			"FallbackAfter": {func(c *relay.Config) { c.FallbackAfter = -1 }},
			"Client":        {func(c *relay.Config) { c.Client = &http.Client{Timeout: 1} }},
		}, "Fallback", "Logger", "Now", "Observe")
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
	checktest.Run(t, nginxsync.ErrInvalid, relay.HandlerConfig{Source: source, Token: secret},
		func(c relay.HandlerConfig) error { _, err := relay.NewHandler(c); return err },
		map[string][]func(*relay.HandlerConfig){
			"Source": {func(c *relay.HandlerConfig) { c.Source = nil }},
			"Token": {func(c *relay.HandlerConfig) { c.Token = "short" },
				func(c *relay.HandlerConfig) { c.Token = "0123456789 abcdef" }},
			"Beat":         {func(c *relay.HandlerConfig) { c.Beat = -1 }},
			"WriteTimeout": {func(c *relay.HandlerConfig) { c.WriteTimeout = -1 }},
			"Followers":    {func(c *relay.HandlerConfig) { c.Followers = -1 }},
		}, "Logger", "Observe")
}
