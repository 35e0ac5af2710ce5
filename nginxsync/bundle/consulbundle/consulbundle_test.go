package consulbundle_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/bundletest"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/consulbundle"
)

// faulty answers as Consul's KV endpoint does, with the faults that a healthy Consul cannot be made
// to show.
type faulty struct {
	mu      sync.Mutex
	index   uint64
	pairs   map[string]string
	changed chan struct{}
	answer  func(w http.ResponseWriter) bool // answers in the place of the store; nil does not
	asked   []string                         // the index of each query
}

func serve(t *testing.T) (*faulty, *api.Client) {
	f := &faulty{index: 100, pairs: map[string]string{}, changed: make(chan struct{})}
	s := httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(s.Close)
	client, err := api.NewClient(&api.Config{Address: s.URL, Token: "geheim"})
	require.NoError(t, err)
	return f, client
}

func (f *faulty) set(index uint64, pairs map[string]string, answer func(http.ResponseWriter) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index, f.pairs, f.answer = index, pairs, answer
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *faulty) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	f.asked = append(f.asked, r.URL.Query().Get("index"))
	if f.answer == nil && r.URL.Query().Get("index") == fmt.Sprint(f.index) {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		case <-time.After(wait):
		}
		f.mu.Lock()
	}
	if f.answer != nil && f.answer(w) {
		return
	}
	w.Header().Set("X-Consul-Index", fmt.Sprint(f.index))
	consul(w)
	var list api.KVPairs
	for name, text := range f.pairs {
		list = append(list, &api.KVPair{Key: "tree/" + name, Value: []byte(text)})
	}
	if len(list) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	json.NewEncoder(w).Encode(list)
}

func newSource(t *testing.T, client *api.Client) *consulbundle.Source {
	source, err := consulbundle.New(consulbundle.Config{Client: client, Prefix: "tree",
		Settle: 10 * time.Millisecond, Interval: time.Millisecond, Limits: bundletest.Limits})
	require.NoError(t, err)
	return source
}

func one(text string) map[string]string { return map[string]string{"nginx.conf": text} }

// With each fault of Consul, the bundle is the right one or there is an error.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		answer     func(w http.ResponseWriter) bool
	}{
		{"no leader", "status 500: No cluster leader", func(w http.ResponseWriter) bool {
			http.Error(w, "No cluster leader", http.StatusInternalServerError)
			return true
		}},
		{"leader not known", "knows no leader", func(w http.ResponseWriter) bool {
			w.Header().Set("X-Consul-Index", "200")
			consul(w)
			w.Header().Set("X-Consul-KnownLeader", "false")
			fmt.Fprint(w, "[]")
			return true
		}},
		{"token revoked", "status 403", func(w http.ResponseWriter) bool {
			http.Error(w, "Permission denied", http.StatusForbidden)
			return true
		}},
		{"half an answer", "unexpected EOF", func(w http.ResponseWriter) bool {
			consul(w)
			w.Header().Set("X-Consul-Index", "200")
			fmt.Fprint(w, `[{"Key":"tree/nginx.c`)
			return true
		}},
		{"empty", "no files", func(w http.ResponseWriter) bool {
			consul(w)
			w.Header().Set("X-Consul-Index", "200")
			w.WriteHeader(http.StatusNotFound)
			return true
		}},
	} {
		f, client := serve(t)
		f.set(100, one("1"), nil)
		source := newSource(t, client)
		b, err := source.Fetch(t.Context(), "")
		require.NoError(t, err)
		f.set(101, one("1"), c.answer)
		_, err = source.Fetch(t.Context(), b.Digest)
		require.ErrorContains(t, err, c.want, c.name)
		require.NotContains(t, err.Error(), "geheim", c.name)
		f.set(102, one("2"), nil)
		b, err = source.Fetch(t.Context(), b.Digest)
		require.NoError(t, err, c.name)
		require.Equal(t, "2", b.Files["nginx.conf"].Text)
	}
}

// An index that grows without a change of the tree is no change; one that goes back, as after a
// restore, does not stop the watch.
func TestIndex(t *testing.T) {
	t.Parallel()
	f, client := serve(t)
	f.set(100, one("1"), nil)
	source := newSource(t, client)
	b, err := source.Fetch(t.Context(), "")
	require.NoError(t, err)
	got := make(chan *bundle.Bundle)
	go func() {
		b, err := source.Fetch(t.Context(), b.Digest)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	wait := func(index uint64) {
		t.Helper()
		require.Eventually(t, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.asked) > 0 && f.asked[len(f.asked)-1] == fmt.Sprint(index)
		}, time.Minute, time.Millisecond)
	}
	wait(100)
	f.set(101, one("1"), nil)
	wait(101)
	f.set(7, one("1"), nil)
	wait(7)
	f.mu.Lock()
	require.Contains(t, strings.Join(f.asked, " "), "101  7", "after an index that went back the "+
		"next query does not wait")
	f.mu.Unlock()
	f.set(3, one("2"), nil)
	require.Equal(t, "2", (<-got).Files["nginx.conf"].Text)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"../etc/passwd": "want a relative path",
		"a//b": "want a relative path", "a/": "want a relative path", "a\nb": "control characters",
		strings.Repeat("x", 1025): "longer than"} {
		f, client := serve(t)
		f.set(100, map[string]string{name: "x"}, nil)
		_, err := newSource(t, client).Fetch(t.Context(), "")
		require.ErrorIs(t, err, bundle.ErrInvalid)
		require.ErrorContains(t, err, want)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, client := serve(t)
	for _, cfg := range []consulbundle.Config{{}, {Client: client}, {Client: client, Prefix: "/"},
		{Client: client, Prefix: "/x"}, {Prefix: "x"}, {Client: client, Prefix: "x",
			Wait: time.Hour}} {
		_, err := consulbundle.New(cfg)
		require.ErrorContains(t, err, "consulbundle: ")
	}
}

// consul sets the headers of every answer.
func consul(w http.ResponseWriter) {
	w.Header().Set("X-Consul-KnownLeader", "true")
	w.Header().Set("X-Consul-LastContact", "0")
}
