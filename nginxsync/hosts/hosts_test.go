package hosts_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/hosts"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

// away is a client of an agent that does not run. Hosts that run are tested in cmd/nginxsync.
func away(t *testing.T) *agenthttp.Client {
	t.Helper()
	c, err := agenthttp.NewRemoteClient(agenthttp.RemoteConfig{URL: "http://127.0.0.1:1",
		Token: "a-token-of-the-test"})
	require.NoError(t, err)
	return c
}

func TestConfig(t *testing.T) {
	t.Parallel()
	one := hosts.Host{Name: "a", Agent: away(t)}
	checktest.Run(t, nginxsync.ErrInvalid, hosts.Config{Hosts: []hosts.Host{one}},
		func(cfg hosts.Config) error { _, err := hosts.New(cfg); return err },
		map[string][]func(*hosts.Config){
			"Hosts": {
				func(cfg *hosts.Config) { cfg.Hosts = nil },
				func(cfg *hosts.Config) { cfg.Hosts = []hosts.Host{{Name: "a"}} },
				func(cfg *hosts.Config) { cfg.Hosts = []hosts.Host{{Agent: one.Agent}} },
				func(cfg *hosts.Config) { cfg.Hosts = []hosts.Host{one, one} },
			},
			"Quorum": {
				func(cfg *hosts.Config) { cfg.Quorum = 3 },
				func(cfg *hosts.Config) { cfg.Quorum = -1 },
			},
			"Timeout": {func(cfg *hosts.Config) { cfg.Timeout = -1 }},
		}, "Logger", "Now", "Observe")
}

func TestWaitReadyReturnsTheCause(t *testing.T) {
	t.Parallel()
	h, err := hosts.New(hosts.Config{Hosts: []hosts.Host{{Name: "a", Agent: away(t)},
		{Name: "b", Agent: away(t)}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	_, err = h.WaitReady(ctx, hosts.Want{VIP: netip.MustParseAddr("10.58.0.2"),
		Clusters: map[string]string{"a": "v1"}})
	require.ErrorIs(t, err, cause)
	require.ErrorContains(t, err, "wait for 2 hosts: 0 of 2 hosts are ready; a: ")
	_, err = h.WaitReady(t.Context(), hosts.Want{})
	require.ErrorIs(t, err, nginxsync.ErrInvalid)
	require.ErrorIs(t, h.Roll(ctx, hosts.Plan{Change: func(context.Context, hosts.Host) error {
		return nil
	}}), cause)
}
