package grpcprobe_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-deploy/sluice/nginxsync/healthcheck/grpcprobe"
)

// serve runs a gRPC server with the health service, unless that is nil.
func serve(t *testing.T, h *health.Server, options ...grpc.ServerOption) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer(options...)
	if h != nil {
		grpc_health_v1.RegisterHealthServer(s, h)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestProbe(t *testing.T) {
	t.Parallel()
	h := health.NewServer()
	addr := serve(t, h)
	whole := grpcprobe.New("", nil)
	shop := grpcprobe.New("shop", nil)
	require.NoError(t, whole(t.Context(), addr))
	require.ErrorContains(t, shop(t.Context(), addr), `health of "shop": NotFound: unknown service`)
	h.SetServingStatus("shop", grpc_health_v1.HealthCheckResponse_SERVING)
	require.NoError(t, shop(t.Context(), addr))
	h.SetServingStatus("shop", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	require.ErrorContains(t, shop(t.Context(), addr), `health of "shop": NOT_SERVING`)
	require.NoError(t, whole(t.Context(), addr))
	h.Shutdown()
	require.ErrorContains(t, whole(t.Context(), addr), "NOT_SERVING")
}

func TestProbeWithoutHealthService(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, grpcprobe.New("", nil)(t.Context(), serve(t, nil)),
		"Unimplemented")
}

func TestProbeRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := netip.MustParseAddrPort(l.Addr().String())
	require.NoError(t, l.Close())
	require.ErrorContains(t, grpcprobe.New("", nil)(t.Context(), addr), "refused")
}

func TestProbeTLS(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	addr := serve(t, health.NewServer(), grpc.Creds(credentials.NewServerTLSFromCert(
		&web.TLS.Certificates[0])))
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	require.NoError(t, grpcprobe.New("", &tls.Config{ServerName: "example.com",
		RootCAs: roots})(t.Context(), addr))
	require.Error(t, grpcprobe.New("", &tls.Config{})(t.Context(), addr))
	require.Error(t, grpcprobe.New("", nil)(t.Context(), addr))
}
