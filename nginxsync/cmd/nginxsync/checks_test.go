//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// An instance whose check fails gets no request any more, without a reload, and the status says
// why; it returns when its check passes.
func TestAgentChecksInstances(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var bad atomic.Bool
	checked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && bad.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(checked.Close)
	write(t, filepath.Join(b.dir, "routes.json"), fmt.Sprintf(`{"baseline": {"hello_web": [
		{"id": "w1", "addr": %q, "version": "v1"}, {"id": "w2", "addr": %q, "version": "v2"}]}}`,
		nginxtest.Backend(t, "v1"), checked.Listener.Addr()))
	b.configure(b.fileSource())
	text, err := os.ReadFile(b.config())
	require.NoError(t, err)
	write(t, b.config(), string(text)+`health:
  checks:
    - http: {path: /healthz}
      every: 20ms
      timeout: 20s
`)
	b.agent.Start()
	b.answers(vipA, "/", "v1")
	b.answers(vipA, "/", "v2")
	workers := b.Workers()

	status := func(want string) string {
		var out string
		nginxtest.Poll(t, "the status has "+want, func() error {
			if out = b.ask("status"); !strings.Contains(out, want) {
				return errors.New(out)
			}
			return nil
		})
		return out
	}
	bad.Store(true)
	require.Contains(t, status("checks: 2 instances, 1 fail\n"),
		fmt.Sprintf("hello_web w2 at %s is out since ", checked.Listener.Addr()))
	require.Contains(t, status(": GET /healthz: "), "status 503, want 200 to 399\n")
	nginxtest.Poll(t, "the other instance answers alone", func() error {
		for range 20 {
			if _, got := b.answer(vipA, "/"); !strings.HasPrefix(got, "v1 ") {
				return errors.New(got)
			}
		}
		return nil
	})

	bad.Store(false)
	status("checks: 2 instances, 0 fail\n")
	b.answers(vipA, "/", "v2")
	require.Equal(t, workers, b.Workers())
}
