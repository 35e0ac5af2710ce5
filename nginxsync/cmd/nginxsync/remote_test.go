//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// The door for other machines speaks TLS alone, wants the token, and takes the next certificate
// when the file is read again.
func TestRemoteOverTLS(t *testing.T) {
	t.Parallel()
	dir := nginxtest.Dir(t)
	const token = "a-token-of-the-test"
	write(t, filepath.Join(dir, "token"), token+"\n")
	at := fmt.Sprintf("127.0.0.1:%d", testbed.Port(t))
	config := filepath.Join(dir, "agent.yaml")
	write(t, config, fmt.Sprintf(`listen: unix:%[1]s/agent.sock
drainFile: %[1]s/drained
remote: {listen: "%[2]s", tokenFile: %[1]s/token, cert: %[1]s/pair.pem, key: %[1]s/pair.pem}
nginx: [{socket: %[1]s/admin.sock, stateFile: %[1]s/routes}]
sources: [{file: {path: %[1]s/routes.json}}]
`, dir, at))
	var d doors
	t.Cleanup(d.close)
	serve := func() *x509.CertPool {
		t.Helper()
		pair, err := os.ReadFile(nginxtest.Pair(t, dir))
		require.NoError(t, err)
		f, err := readAgentFile(config)
		require.NoError(t, err)
		a, err := assemble(t.Context(), f, io.Discard)
		require.NoError(t, err)
		require.NoError(t, d.open(a))
		d.serve(a)
		pool := x509.NewCertPool()
		require.True(t, pool.AppendCertsFromPEM(bytes.TrimSpace(pair)))
		return pool
	}
	ask := func(scheme, token string, pool *x509.CertPool) error {
		t.Helper()
		client, err := agenthttp.NewRemoteClient(agenthttp.RemoteConfig{URL: scheme + "://" + at,
			Token: token, TLS: &tls.Config{RootCAs: pool, ServerName: "a.x"}})
		require.NoError(t, err)
		var status agenthttp.Status
		err = client.Get(t.Context(), "/v1/status", nil, &status)
		if err == nil {
			require.Len(t, status.Nginx, 1)
		}
		return err
	}
	first := serve()
	require.NoError(t, ask("https", token, first))
	require.Error(t, ask("http", token, first))
	require.ErrorContains(t, ask("https", "another-token-of-it", first), "unauthenticated")
	require.ErrorContains(t, ask("https", token, x509.NewCertPool()), "certificate")
	second := serve()
	require.NoError(t, ask("https", token, second))
	require.ErrorContains(t, ask("https", token, first), "certificate")
}
