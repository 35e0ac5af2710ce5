package edge_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// TestCertificatesAreRenewed takes a certificate away: the next look issues another one, and Nginx
// serves it without a restart. A look that finds all of them in order changes nothing.
func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	port := testbed.Port(t)
	e := openBoth(t, t.TempDir(), testbed.Port(t), port, production())
	require.NoError(t, e.Start(t.Context()))
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(e.CA.PEM()))
	served := func() string {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{
			ServerName: "bj.city.example", RootCAs: roots})
		require.NoError(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := served()
	require.NoError(t, e.Renew(t.Context()))
	require.Equal(t, first, served())
	for _, c := range e.Result.Certificates {
		require.NoError(t, os.Remove(c.File))
	}
	require.NoError(t, e.Renew(t.Context()))
	require.NotEqual(t, first, served())
}

func TestTreeWithoutTLSHasNoAuthority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, dir, testbed.Port(t), answering("one"))
	require.Nil(t, e.CA)
	require.NoFileExists(t, dir+"/ca.pem")
	require.NoError(t, e.Start(t.Context()))
	require.NoError(t, e.Renew(t.Context()))
}
