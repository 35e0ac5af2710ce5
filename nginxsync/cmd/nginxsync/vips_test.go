//go:build linux

package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/viphttp"
)

// The agent follows the leases of a platform by TLS and with a token: a VIP shows the version
// that is bound to its lease, and says so when the lease has ended.
func TestAgentWithLeases(t *testing.T) {
	t.Parallel()
	pool, err := vip.ParsePool("p", "127.58.0.2-127.58.0.9")
	require.NoError(t, err)
	leases, err := vip.Open(t.Context(), vip.Config{Store: vip.NewMemStore(),
		Pools: []vip.Pool{pool}})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = leases.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	handler, err := viphttp.New(viphttp.Config{Leases: leases})
	require.NoError(t, err)
	platform := httptest.NewTLSServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer s3cret" {
				http.Error(w, "", http.StatusUnauthorized)
				return
			}
			handler.ServeHTTP(w, r)
		}))
	t.Cleanup(func() { platform.CloseClientConnections(); platform.Close() })

	b := newBed(t)
	write(t, filepath.Join(b.dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: platform.Certificate().Raw})))
	write(t, filepath.Join(b.dir, "token"), "s3cret\n")
	write(t, filepath.Join(b.dir, "routes.json"), fmt.Sprintf(`{"baseline": {
		"hello_web": [{"id": "s", "addr": %q, "version": "v1"}]},
		"branches": {"next": {"api": [{"id": "n", "addr": %q, "version": "v7"}]}}}`,
		nginxtest.Backend(t, "stable"), nginxtest.Backend(t, "next")))
	b.configure(b.fileSource() + fmt.Sprintf(`
  - vip:
      url: %s
      tokenFile: %[2]s/token
      tls: {ca: %[2]s/ca.pem, serverName: example.com}
      branches: [next]
`, platform.URL, b.dir))
	b.agent.Start()
	l, err := leases.Allocate(t.Context(), vip.Request{Owner: vip.Owner{Task: "T-1",
		Overrides: map[string]string{"hello_web": "v2"}}})
	require.NoError(t, err)
	_, err = leases.Bind(t.Context(), l.ID, []vip.Instance{{ID: "i", Cluster: "hello_web",
		Version: "v2", Addr: nginxtest.Backend(t, "tested")}})
	require.NoError(t, err)
	b.answers(l.Addr, "/", "v2")
	b.answers(l.Addr, "/api/", "v7")
	b.answers(netip.MustParseAddr("127.58.0.10"), "/", "v1")
	status := b.ask("status", "-json")
	require.Contains(t, status, `"connected": true`)
	require.NotContains(t, status+b.agent.Log(), "s3cret")

	_, err = leases.Release(t.Context(), l.ID, "done")
	require.NoError(t, err)
	gone := func(to netip.Addr, want string) {
		t.Helper()
		nginxtest.Poll(t, to.String()+" is 410", func() error {
			if status, got := b.answer(to, "/"); status != 410 || !strings.Contains(got, want) {
				return fmt.Errorf("status %d: %s, agent: %s", status, got, b.agent.Log())
			}
			return nil
		})
	}
	// The overlay goes on until the drain has ended.
	_, err = leases.Quarantine(t.Context(), l.Addr, "the drain is not waited for", 0)
	require.NoError(t, err)
	gone(l.Addr, "T-1")
	gone(netip.MustParseAddr("127.58.0.9"), "No task has the address")
}
