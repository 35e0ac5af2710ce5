package viphttp_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// afterFirst calls then when the first text has been written.
type afterFirst struct {
	http.ResponseWriter
	then func()
}

func (w afterFirst) Write(text []byte) (int, error) {
	n, err := w.ResponseWriter.Write(text)
	w.then()
	return n, err
}

func (w afterFirst) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A client hears of each change of the pools since "hello", also of one at that moment.
func TestWatchTellsOfPools(t *testing.T) {
	t.Parallel()
	p, err := vip.ParsePool("p", "10.0.0.1")
	require.NoError(t, err)
	a, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(), Pools: []vip.Pool{p}})
	require.NoError(t, err)
	handler, err := viphttp.New(viphttp.Config{Leases: a})
	require.NoError(t, err)
	set := func(ranges string) error {
		p, err := vip.ParsePool("p", ranges)
		if err != nil {
			return err
		}
		return a.SetPools(t.Context(), []vip.Pool{p})
	}
	changed := make(chan error, 1)
	change := sync.OnceFunc(func() { changed <- set("10.0.0.1-10.0.0.2") })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(afterFirst{w, change}, r)
	}))
	t.Cleanup(s.Close)
	resp, err := http.Get(s.URL + "/watch")
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"hello", "pools"} {
		kind, _ := event(t, lines)
		require.Equal(t, want, kind)
	}
	require.NoError(t, <-changed)
	require.NoError(t, set("10.0.0.1-10.0.0.3"))
	kind, _ := event(t, lines)
	require.Equal(t, "pools", kind)
}
