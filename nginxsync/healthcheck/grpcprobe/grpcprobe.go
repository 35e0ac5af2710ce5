// Package grpcprobe is a probe of package healthcheck for services that speak gRPC and serve
// grpc.health.v1.Health (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
package grpcprobe

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sluice-deploy/sluice/nginxsync/healthcheck"
)

// New returns a probe that asks about a service on a new connection. The empty name asks about the
// server as a whole. An instance works when the answer is SERVING. With config, which may be nil,
// the probe speaks TLS.
func New(service string, config *tls.Config) healthcheck.Probe {
	creds := insecure.NewCredentials()
	if config != nil {
		creds = credentials.NewTLS(config.Clone())
	}
	return func(ctx context.Context, addr netip.AddrPort) error {
		conn, err := grpc.NewClient("passthrough:///"+addr.String(), grpc.WithNoProxy(),
			grpc.WithDisableServiceConfig(), grpc.WithTransportCredentials(creds))
		if err != nil {
			return err
		}
		defer conn.Close()
		answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx,
			&grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			s := status.Convert(err)
			return fmt.Errorf("health of %q: %s: %s", service, s.Code(), s.Message())
		}
		if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("health of %q: %s", service, answer.GetStatus())
		}
		return nil
	}
}
