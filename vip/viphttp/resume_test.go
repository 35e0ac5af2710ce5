package viphttp_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// A client with the id of an event goes on after it. After a restart, also with an empty store,
// after too many events, and with another number, it is told to list again.
func TestWatchComesBack(t *testing.T) {
	t.Parallel()
	store := vip.NewMemStore()
	start := func(store vip.Store) (string, *vip.Allocator) {
		p, err := vip.ParsePool("p", "fd00::/64")
		require.NoError(t, err)
		a, err := vip.Open(t.Context(), vip.Config{Store: store, Pools: []vip.Pool{p}})
		require.NoError(t, err)
		handler, err := viphttp.New(viphttp.Config{Leases: a})
		require.NoError(t, err)
		s := httptest.NewServer(handler)
		t.Cleanup(s.Close)
		return s.URL + "/watch", a
	}
	lease := func(a *vip.Allocator, n int) {
		for i := range n {
			l, err := a.Allocate(t.Context(), vip.Request{Owner: vip.Owner{
				Task: fmt.Sprint("T", i)}})
			require.NoError(t, err)
			_, err = a.Release(t.Context(), l.ID, "")
			require.NoError(t, err)
		}
	}
	first, before := start(store)
	begins := before.Revision()
	lease(before, 3)
	last := before.Revision()
	restarted, after := start(store)
	lease(after, 3)
	emptied, anew := start(vip.NewMemStore())
	lease(anew, 3)
	long, many := start(vip.NewMemStore())
	old := many.Revision()
	lease(many, 17_000)

	for name, test := range map[string]struct {
		url   string
		after uint64
		kind  string // of the event after "hello"
	}{
		"goes on":                        {first, begins, "allocated"},
		"goes on in the middle":          {first, begins + 1, "ended"},
		"event to come":                  {first, last + 1, "reset"},
		"no event":                       {first, 0, "reset"},
		"largest number":                 {first, 1<<64 - 1, "reset"},
		"restarted":                      {restarted, last, "reset"},
		"restarted, from the beginning":  {restarted, begins, "reset"},
		"emptied":                        {emptied, last, "reset"},
		"emptied, from the beginning":    {emptied, begins, "reset"},
		"after too many events":          {long, old, "reset"},
		"after many events, and resumed": {long, many.Revision() - 30_000, "allocated"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", test.url, nil)
			require.NoError(t, err)
			req.Header.Set("Last-Event-ID", strconv.FormatUint(test.after, 10))
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			lines := bufio.NewReader(resp.Body)
			kind, _ := event(t, lines)
			require.Equal(t, "hello", kind)
			kind, id := event(t, lines)
			require.Equal(t, test.kind, kind)
			if kind != "reset" {
				require.Equal(t, strconv.FormatUint(test.after+1, 10), id)
			}
		})
	}
	for _, bad := range []string{"-1", "1.5", "x", "18446744073709551616"} {
		code, _ := call(t, "GET", first+"?after="+bad, "")
		require.Equal(t, http.StatusBadRequest, code, bad)
	}
}
