//go:build linux

package vipsource_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/sourcetest"
	"github.com/sluice-deploy/sluice/nginxsync/vipsource"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// platform is the process that has the allocator.
type platform struct {
	*httptest.Server
	handler atomic.Pointer[http.Handler] // of the allocator
	broken  atomic.Pointer[http.Handler] // in its place; nil for none
}

func (p *platform) serve(t *testing.T, a *vip.Allocator) {
	t.Helper()
	h, err := viphttp.New(viphttp.Config{Leases: a, KeepAlive: 50 * time.Millisecond})
	require.NoError(t, err)
	p.handler.Store(&h)
}

func (p *platform) fail(f http.HandlerFunc) {
	h := http.Handler(f)
	p.broken.Store(&h)
	p.CloseClientConnections()
}

func startPlatform(t *testing.T, a *vip.Allocator) *platform {
	t.Helper()
	p := &platform{}
	p.serve(t, a)
	p.Server = httptest.NewServer(http.StripPrefix("/vip", http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if broken := p.broken.Load(); broken != nil {
				(*broken).ServeHTTP(w, r)
				return
			}
			(*p.handler.Load()).ServeHTTP(w, r)
		})))
	t.Cleanup(func() { p.CloseClientConnections(); p.Close() })
	return p
}

// remote is a source of the platform that runs until the test ends.
func (p *platform) remote(t *testing.T, cfg vipsource.RemoteConfig) *vipsource.Remote {
	t.Helper()
	cfg.URL = p.URL + "/vip/"
	if cfg.Client == nil {
		cfg.Client = p.Client()
	}
	r, err := vipsource.NewRemote(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

// away is the answer of a proxy whose platform does not run.
func away(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "away", http.StatusServiceUnavailable)
}

// until watches, past errors, until the source supplies the snapshot of the leases.
func until(t *testing.T, r *vipsource.Remote, after uint64, want func() nginxsync.Snapshot) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		snapshot, revision, err := r.Watch(ctx, after)
		require.NoError(t, ctx.Err())
		if err != nil {
			continue
		}
		require.NotEqual(t, after, revision)
		if snapshot.Equal(want()) {
			return revision
		}
		after = revision
	}
}

func TestRemoteSource(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Harness {
		a := allocator(t)
		l := allocate(t, a, "task", "a")
		r := startPlatform(t, a).remote(t, vipsource.RemoteConfig{})
		return &sourcetest.Harness{Source: only{r}, Set: func(next nginxsync.Snapshot) {
			var bound []vip.Instance
			for _, in := range next.Baseline["a"] {
				bound = append(bound, vip.Instance{ID: in.ID, Addr: in.Addr, Cluster: "a",
					Version: in.Version})
			}
			_, err := a.Bind(t.Context(), l.ID, bound)
			require.NoError(t, err)
		}}
	})
}

// A source of another process has the snapshot of a list of the leases after any events, lost
// connections and restarts of the platform.
func TestRemoteFollowsLeases(t *testing.T) {
	t.Parallel()
	store := vip.NewMemStore()
	open := func() (*vip.Allocator, func()) {
		pool, err := vip.ParsePool("p", "10.0.0.0/24")
		require.NoError(t, err)
		pool.CoolDown = time.Nanosecond
		a, err := vip.Open(t.Context(), vip.Config{Store: store, Pools: []vip.Pool{pool}})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = a.Run(ctx) })
		return a, func() { stop(); wg.Wait() }
	}
	a, stop := open()
	defer func() { stop() }()
	p := startPlatform(t, a)
	r := p.remote(t, vipsource.RemoteConfig{})
	revision := until(t, r, 0, func() nginxsync.Snapshot { return want(a) })
	random := rand.New(rand.NewPCG(1, 2))
	leases := map[string]vip.Lease{}
	for n := range 60 {
		switch random.IntN(6) {
		case 0:
			p.CloseClientConnections()
		case 1:
			p.fail(away)
		case 2:
			stop()
			a, stop = open()
			p.serve(t, a)
			p.CloseClientConnections()
		}
		for range random.IntN(5) + 1 {
			task := fmt.Sprint("t", random.IntN(20))
			l, ok := leases[task]
			var err error
			switch {
			case !ok:
				leases[task] = allocate(t, a, task, "web", "api")
			case random.IntN(2) == 0:
				_, err = a.Release(t.Context(), l.ID, "done")
				delete(leases, task)
			default:
				_, err = a.Bind(t.Context(), l.ID, []vip.Instance{{ID: fmt.Sprint("i", n),
					Cluster: "web", Version: "v1", Addr: netip.AddrPortFrom(
						netip.MustParseAddr("127.0.0.1"), uint16(n+1))}})
			}
			require.NoError(t, err)
		}
		p.broken.Store(nil)
		allocate(t, a, fmt.Sprint("last", n)) // so that there is a change to wait for
		revision = until(t, r, revision, func() nginxsync.Snapshot { return want(a) })
	}
	// The snapshot of a list comes a moment before the connection counts.
	testbed.Poll(t, "the events come", func() error {
		if s := r.Status(); !s.Connected || s.Error != "" || s.Leases != len(want(a).Overlays) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// Pools that change are a snapshot, on a stream that is open and after one that was lost.
func TestRemotePools(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	p := startPlatform(t, a)
	r := p.remote(t, vipsource.RemoteConfig{Tasks: true})
	allocate(t, a, "t")
	revision := until(t, r, 0, func() nginxsync.Snapshot {
		s := want(a)
		s.Tasks = map[string]netip.Addr{"t": a.List(vip.Query{Task: "t"})[0].Addr}
		return s
	})
	for _, lose := range []bool{false, true} {
		for _, ranges := range []string{"10.0.0.0/23", "10.0.0.0/24"} {
			pool, err := vip.ParsePool("p", ranges)
			require.NoError(t, err)
			if lose {
				p.fail(away)
			}
			require.NoError(t, a.SetPools(t.Context(), []vip.Pool{pool}))
			p.broken.Store(nil)
			expected := vipsource.Pools([]vip.Pool{pool})
			revision = until(t, r, revision, func() nginxsync.Snapshot {
				s := want(a)
				s.Pools = expected
				s.Tasks = map[string]netip.Addr{"t": a.List(vip.Query{Task: "t"})[0].Addr}
				return s
			})
		}
	}
}

// With any answer of the platform the last snapshot stays, the error names the fault, and the
// source comes back by itself.
func TestRemoteFaults(t *testing.T) {
	t.Parallel()
	says := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, body)
			w.(http.Flusher).Flush()
			if strings.HasSuffix(r.URL.Path, "/watch") {
				<-r.Context().Done()
			}
		}
	}
	const hello = "event: hello\nid: 7\ndata: {}\n\n"
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"detail": "want a token"}`)
		}, "401 Unauthorized: want a token"},
		"a page":   {says("<html>"), "no sign of life"},
		"hangs":    {says(""), "no sign of life"},
		"no hello": {says("event: leased\nid: 7\ndata: {}\n\n"), `want "hello" first`},
		"a bad id": {says("event: hello\nid: x\n\n"), `event id "x": want a number`},
		"no JSON":  {says(hello), "invalid character"},
		"ends":     {func(http.ResponseWriter, *http.Request) {}, "EOF"},
		"a redirect, away": {http.RedirectHandler("http://127.0.0.1:1/",
			http.StatusFound).ServeHTTP, "refused"},
	} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprint(strings.ReplaceAll(name, " ", "_"), "/", known), func(t *testing.T) {
				t.Parallel()
				a := allocator(t)
				allocate(t, a, "t", "web")
				p := startPlatform(t, a)
				if !known {
					p.fail(tc.answer)
				}
				r := p.remote(t, vipsource.RemoteConfig{Silence: time.Second})
				revision := uint64(0)
				if known {
					revision = until(t, r, 0, func() nginxsync.Snapshot { return want(a) })
					p.fail(tc.answer)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for { // a connection that the test has closed may be the first error
					snapshot, _, err := r.Watch(ctx, revision)
					require.NoError(t, ctx.Err())
					require.Error(t, err, "%+v", snapshot)
					if strings.Contains(err.Error(), tc.want) {
						break
					}
				}
				require.False(t, r.Status().Connected)
				require.NotEmpty(t, r.Status().Error)
				if known {
					snapshot, _, err := r.Watch(ctx, 0)
					require.NoError(t, err)
					require.True(t, snapshot.Equal(want(a)))
				}
				p.broken.Store(nil)
				p.CloseClientConnections()
				allocate(t, a, "u", "web")
				until(t, r, revision, func() nginxsync.Snapshot { return want(a) })
			})
		}
	}
}

// Each request carries the token as it is then, and an error does not show it.
func TestRemoteToken(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	p := startPlatform(t, a)
	inner := *p.handler.Load()
	guarded := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer new" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	p.handler.Store(&guarded)
	var token atomic.Pointer[string]
	set := func(s string) { token.Store(&s) }
	set("secret-old")
	r := p.remote(t, vipsource.RemoteConfig{Token: func() (string, error) {
		if s := *token.Load(); s != "" {
			return s, nil
		}
		return "", errors.New("the file is away")
	}})
	_, _, err := r.Watch(t.Context(), 0)
	require.ErrorContains(t, err, "401")
	require.NotContains(t, err.Error(), "secret")
	set("")
	for !strings.Contains(r.Status().Error, "token: the file is away") {
		_, _, _ = r.Watch(t.Context(), 0)
	}
	set("new")
	until(t, r, 0, func() nginxsync.Snapshot { return want(a) })
}

// A record that cannot be read, in the list or as an event, leaves the others as they are.
func TestRemoteSetsAside(t *testing.T) {
	t.Parallel()
	a := allocator(t)
	bad, good := allocate(t, a, "bad", "web"), allocate(t, a, "good", "web")
	p := startPlatform(t, a)
	inner := *p.handler.Load()
	damaged := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(&damaging{w}, r)
	}))
	p.handler.Store(&damaged)
	r := p.remote(t, vipsource.RemoteConfig{})
	shown := func(task string, n int) func() nginxsync.Snapshot {
		return func() nginxsync.Snapshot {
			s := want(a)
			for _, l := range a.List(vip.Query{Task: "bad"}) {
				delete(s.Overlays, l.Addr)
			}
			require.Len(t, s.Overlays, n, task)
			return s
		}
	}
	revision := until(t, r, 0, shown("good", 1))
	require.Positive(t, r.Status().SetAside)
	before := r.Status().SetAside
	_, err := a.Renew(t.Context(), bad.ID, time.Hour)
	require.NoError(t, err)
	allocate(t, a, "next", "web")
	revision = until(t, r, revision, shown("next", 2))
	require.Greater(t, r.Status().SetAside, before)
	_, err = a.Release(t.Context(), good.ID, "done")
	require.NoError(t, err)
	until(t, r, revision, shown("next", 1))
	require.True(t, r.Status().Connected)
}

// damaging spoils the address of the task "bad" in answers.
type damaging struct{ http.ResponseWriter }

func (d *damaging) Write(text []byte) (int, error) {
	spoilt := strings.ReplaceAll(string(text), `"addr":"10.0.0.1"`, `"addr":"10.0.0.x"`)
	_, err := d.ResponseWriter.Write([]byte(spoilt))
	return len(text), err
}

func (d *damaging) Unwrap() http.ResponseWriter { return d.ResponseWriter }

func TestRemoteConfig(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"", "deploy.example", "ftp://a/", "http://", "https://u:p@a/",
		"http://a/?x=1"} {
		_, err := vipsource.NewRemote(vipsource.RemoteConfig{URL: at})
		require.ErrorIs(t, err, nginxsync.ErrInvalid, at)
		require.ErrorContains(t, err, "vipsource: Config.URL: ")
	}
	_, err := vipsource.NewRemote(vipsource.RemoteConfig{URL: "http://a", Silence: -1,
		KeepEnded: -1, Client: &http.Client{Timeout: 1}})
	for _, field := range []string{"Silence", "KeepEnded", "Client"} {
		require.ErrorContains(t, err, "Config."+field+": ")
	}
	r, err := vipsource.NewRemote(vipsource.RemoteConfig{URL: "http://127.0.0.1:1"})
	require.NoError(t, err)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, _, err = r.Watch(ctx, 0)
	require.ErrorIs(t, err, cause)
	require.ErrorIs(t, r.Run(ctx), cause)
}
