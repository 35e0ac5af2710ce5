//go:build linux

package bind_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed/bind"
)

func TestNamedServesAZone(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: "test.example", Records: "web A 192.0.2.7"})
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn,
		error) {
		return new(net.Dialer).DialContext(ctx, network, s.Addr)
	}}
	found, err := r.LookupHost(t.Context(), "web.test.example.")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.7"}, found)
}
