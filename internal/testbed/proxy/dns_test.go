//go:build linux

package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/bind"
	"github.com/sluice-deploy/sluice/internal/testbed/proxy"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/provision/rfc2136"
)

// The driver of DNS updates stands here because the proxy's module may not be a requirement of the
// library. A server that is slow is waited for; one that is too slow, cut off in the middle of an
// answer or not there is an error, and the next call puts the names right.
func TestDNSUpdatesToASlowServer(t *testing.T) {
	t.Parallel()
	s := bind.Start(t, bind.Zone{Name: "test.example"})
	p := proxy.Start(t, s.Addr)
	open := func(timeout time.Duration) *rfc2136.Driver {
		d, err := rfc2136.New(rfc2136.Config{
			Server: p.Addr, Zone: "test.example", Owner: "sluice-test", Timeout: timeout,
			Key: rfc2136.Key{Name: bind.KeyName, Secret: bind.KeySecret},
		})
		require.NoError(t, err)
		return d
	}
	r := &net.Resolver{PreferGo: true}
	r.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
	}
	has := func(want map[string]string) error {
		for _, name := range []string{"t-1", "t-2", "t-3"} {
			found, err := r.LookupHost(t.Context(), name+".test.example.")
			var no *net.DNSError
			if err != nil && (!errors.As(err, &no) || !no.IsNotFound) {
				return err
			}
			if at, wanted := want[name]; wanted && fmt.Sprint(found) != "["+at+"]" ||
				!wanted && len(found) > 0 {
				return fmt.Errorf("%s is at %s", name, found)
			}
		}
		return nil
	}
	lease := func(task, addr string) vip.Lease {
		return vip.Lease{ID: task, Addr: netip.MustParseAddr(addr), State: vip.Leased,
			Owner: vip.Owner{Task: task}}
	}
	one, two := lease("t-1", "10.0.0.1"), lease("t-2", "10.0.0.2")
	three := lease("t-3", "10.0.0.3")

	patient := open(time.Minute)
	p.Delay(50 * time.Millisecond)
	_, err := patient.ApplyLeases(t.Context(), []vip.Lease{one})
	require.NoError(t, err)
	require.NoError(t, has(map[string]string{"t-1": "10.0.0.1"}))

	// an update that is held up arrives when the driver has gone on
	p.Heal()
	hasty := open(time.Second)
	testbed.Poll(t, "read of the zone", func() error {
		_, err := hasty.ApplyLeases(t.Context(), []vip.Lease{one})
		return err
	})
	p.Stall()
	_, err = hasty.ApplyLeases(t.Context(), []vip.Lease{one, two})
	require.ErrorContains(t, err, "no answer within 1s")
	require.NoError(t, has(map[string]string{"t-1": "10.0.0.1"}))
	p.Heal()
	testbed.Poll(t, "names after the stall", func() error {
		if _, err := hasty.ApplyLeases(t.Context(), []vip.Lease{three}); err != nil {
			return err
		}
		return has(map[string]string{"t-3": "10.0.0.3"})
	})

	for _, bytes := range []int{0, 1, 40} {
		p.CutAfter(bytes)
		_, err = patient.ApplyLeases(t.Context(), []vip.Lease{two})
		require.Error(t, err, "%d bytes of the answer", bytes)
		p.Heal()
		_, err = patient.ApplyLeases(t.Context(), []vip.Lease{three})
		require.NoError(t, err)
		require.NoError(t, has(map[string]string{"t-3": "10.0.0.3"}))
	}
	p.Cut()
	_, err = patient.ApplyLeases(t.Context(), nil)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	p.Heal()
	_, err = patient.ApplyLeases(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, has(nil))
}
