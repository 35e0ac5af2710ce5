//go:build linux

package consulsource_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/consulsource"
)

// name is a name of a service that no other test has.
func name() string { return "sluice-test-" + strings.ToLower(rand.Text()) }

// register makes an instance of a service known; it is on 127.0.0.1.
func register(t *testing.T, client *api.Client, service, id string, port int, version string) {
	t.Helper()
	require.NoError(t, client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: service + "-" + id, Name: service, Address: "127.0.0.1", Port: port,
		Meta: map[string]string{"version": version}}))
	t.Cleanup(func() { _ = client.Agent().ServiceDeregister(service + "-" + id) })
}

// bed is a source that runs, with its last snapshot or error.
type bed struct {
	*consulsource.Source
	t *testing.T

	mu    sync.Mutex
	shown nginxsync.Snapshot
	count int // of the snapshots shown
	err   error
}

// follow runs a source and watches it, as an agent does.
func follow(t *testing.T, cfg consulsource.Config) *bed {
	t.Helper()
	s, err := consulsource.New(cfg)
	require.NoError(t, err)
	b := &bed{Source: s, t: t}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	wg.Go(func() {
		var after uint64
		for ctx.Err() == nil {
			snapshot, revision, err := s.Watch(ctx, after)
			b.mu.Lock()
			if b.err = err; err == nil {
				b.shown, after = snapshot, revision
				b.count++
			}
			b.mu.Unlock()
			if err != nil {
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	return b
}

// ids are the instances of a cluster as last shown, in the form id@port=version.
func (b *bed) ids(cluster string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []string{}
	for _, in := range b.shown.Baseline[cluster] {
		_, id, _ := strings.Cut(strings.TrimPrefix(in.ID, "sluice-test-"), "-")
		list = append(list, fmt.Sprintf("%s@%d=%s", id, in.Addr.Port(), in.Version))
	}
	return list
}

// shows waits until the source shows the instances of a cluster.
func (b *bed) shows(cluster string, want ...string) {
	b.t.Helper()
	testbed.Poll(b.t, fmt.Sprintf("%s is %v", cluster, want), func() error {
		if got := b.ids(cluster); !slices.Equal(got, want) {
			return fmt.Errorf("%v, status %+v", got, b.Status())
		}
		return nil
	})
}

// fails waits until the source reports an error, or no more.
func (b *bed) fails(want bool) {
	b.t.Helper()
	testbed.Poll(b.t, fmt.Sprintf("the source fails: %t", want), func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if (b.err != nil) != want {
			return fmt.Errorf("%w, status %+v", errors.Join(errors.New("error"), b.err), b.Status())
		}
		return nil
	})
}

func config(server *consul.Server, services ...string) consulsource.Config {
	cfg := consulsource.Config{Consul: &api.Config{Address: server.Addr},
		Services: map[string]string{}, Wait: 30 * time.Second, Every: 20 * time.Millisecond,
		Probe: 200 * time.Millisecond}
	for _, s := range services {
		cfg.Services[s] = s
	}
	return cfg
}

// front is an HTTP proxy before a Consul that changes its answers.
type front struct {
	addr string

	mu       sync.Mutex
	change   func(*http.Request, *http.Response) // nil for none
	requests map[string]int                      // by path
	now, max int                                 // requests at one time
}

func newFront(t *testing.T, server *consul.Server) *front {
	f := &front{requests: map[string]int{}}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Addr})
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	proxy.ModifyResponse = func(resp *http.Response) error {
		f.mu.Lock()
		change := f.change
		f.mu.Unlock()
		if change != nil {
			change(resp.Request, resp)
		}
		return nil
	}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) {
		w.WriteHeader(http.StatusBadGateway)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests[r.URL.Path]++
		waits := strings.HasPrefix(r.URL.Path, "/v1/health/service/")
		if waits {
			f.now++
			f.max = max(f.max, f.now)
		}
		f.mu.Unlock()
		if waits {
			defer func() { f.mu.Lock(); f.now--; f.mu.Unlock() }()
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	f.addr = s.Listener.Addr().String()
	return f
}

func (f *front) set(change func(*http.Request, *http.Response)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.change = change
}

func (f *front) asked(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[path]
}

// say puts an answer in the place of Consul's for the services whose names contain a text.
func say(contains string, status int, body string, header ...string) func(*http.Request,
	*http.Response) {
	return func(r *http.Request, resp *http.Response) {
		if !strings.Contains(r.URL.Path, contains) {
			return
		}
		resp.StatusCode = status
		if body != "" {
			resp.Body.Close()
			resp.Body = io.NopCloser(bytes.NewReader([]byte(body)))
			resp.ContentLength = int64(len(body))
			resp.Header.Set("Content-Length", fmt.Sprint(len(body)))
		}
		for i := 0; i+1 < len(header); i += 2 {
			resp.Header.Set(header[i], header[i+1])
		}
	}
}

// logged keeps the text of a log.
type logged struct {
	mu   sync.Mutex
	kept bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept.Write(p)
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept.String()
}
