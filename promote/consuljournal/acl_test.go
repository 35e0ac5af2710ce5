//go:build linux

package consuljournal_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/consuljournal"
)

// rights are the rights that the package's comment asks for.
const rights = `key_prefix "sluice/journal/" { policy = "write" }
session_prefix "" { policy = "write" }`

// guarded returns a client whose token has these rights, and a function that revokes the token.
func guarded(t *testing.T, server *consul.Member) (*api.Client, func()) {
	t.Helper()
	acl := server.Client.ACL()
	var policy *api.ACLPolicy
	testbed.Poll(t, "access control", func() (err error) {
		policy, _, err = acl.PolicyCreate(&api.ACLPolicy{Name: fmt.Sprint("journal-",
			time.Now().UnixNano()), Rules: rights}, nil)
		return err
	})
	token, _, err := acl.TokenCreate(&api.ACLToken{
		Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	require.NoError(t, err)
	client, err := api.NewClient(&api.Config{Address: server.Addr, Token: token.SecretID})
	require.NoError(t, err)
	return client, func() {
		_, err := acl.TokenDelete(token.AccessorID, nil)
		require.NoError(t, err)
	}
}

const ownPrefix = "sluice/journal/"

// TestToken: the rights that the documentation names are enough for every call, and for no other
// prefix.
func TestToken(t *testing.T) {
	t.Parallel()
	client, _ := guarded(t, consul.StartGuarded(t, 1).Members[0])
	j := open(t, client, consuljournal.Config{Prefix: ownPrefix})
	for seq := uint64(1); seq <= 3; seq++ {
		_, err := j.Append(t.Context(), bindingEntry("web", seq))
		require.NoError(t, err)
	}
	require.NoError(t, j.Wait(t.Context(), 0))
	require.NoError(t, j.Trim(t.Context(), "web", 1))
	entries, err := j.Read(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	owners, err := consuljournal.NewOwners(consuljournal.OwnersConfig{Client: client,
		Prefix: ownPrefix})
	require.NoError(t, err)
	_, err = owners.Join(t.Context(), "a")
	require.NoError(t, err)
	lives, err := owners.Lives(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, lives)
	require.NoError(t, owners.Leave(t.Context(), "a"))

	other := open(t, client, consuljournal.Config{Prefix: "sluice/other/"})
	_, err = other.Append(t.Context(), bindingEntry("web", 1))
	require.ErrorIs(t, err, promote.ErrUnavailable)
	require.ErrorContains(t, err, "Permission denied")
	require.ErrorContains(t, err, "give the token its rights")
}

// blocking is a Deployer whose calls wait.
type blocking struct{ entered, release chan struct{} }

func (b blocking) Deploy(ctx context.Context, _ promote.Deployment) error {
	b.entered <- struct{}{}
	select {
	case <-b.release:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (blocking) Remove(context.Context, promote.Deployment) error { return nil }

// TestTokenIsRevoked in the middle of a change: it stays open, and is finished by a promoter with
// another token.
func TestTokenIsRevoked(t *testing.T) {
	t.Parallel()
	server := consul.StartGuarded(t, 1).Members[0]
	client, revoke := guarded(t, server)
	b := blocking{make(chan struct{}), make(chan struct{})}
	p, err := promote.New(promote.Config{Deployer: b, Retry: time.Millisecond,
		Journal: open(t, client, consuljournal.Config{Prefix: ownPrefix})})
	require.NoError(t, err)
	require.NoError(t, p.Bind(t.Context(), binding("web", 1)))
	request := promote.Request{Target: promote.Target{Cluster: "web", Environment: "test"},
		Version: "v1", Expect: promote.None, Actor: "ann"}
	ended := make(chan error, 1)
	go func() {
		_, err := p.Promote(context.WithoutCancel(t.Context()), request)
		ended <- err
	}()
	<-b.entered
	revoke()
	close(b.release)
	err = <-ended
	require.ErrorIs(t, err, promote.ErrUnavailable)
	require.ErrorContains(t, err, "the outcome is not written down")
	_, err = p.Start(t.Context(), request)
	require.ErrorIs(t, err, promote.ErrUnavailable)

	client, _ = guarded(t, server)
	next := promoter(t, open(t, client, consuljournal.Config{Prefix: ownPrefix}))
	entries, err := next.Open(t.Context())
	require.NoError(t, err)
	require.Len(t, entries, 1)
	recovered, err := next.Recover(t.Context())
	require.NoError(t, err)
	require.Len(t, recovered, 1)
	require.Equal(t, promote.Succeeded, recovered[0].Kind)
}

// TestTenureWithoutConsul: an owner that cannot renew its session stops before anybody may take its
// changes over, also when Consul comes back.
func TestTenureWithoutConsul(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	if server.Process == nil {
		require.Fail(t, "the test needs a server of its own: unset CONSUL_HTTP_ADDR")
	}
	cfg := consuljournal.OwnersConfig{Client: server.Client, TTL: 10 * time.Second}
	owners, err := consuljournal.NewOwners(cfg)
	require.NoError(t, err)
	tenure, err := owners.Join(t.Context(), "a")
	require.NoError(t, err)
	other, err := consuljournal.NewOwners(cfg)
	require.NoError(t, err)
	server.Process.Kill()
	<-tenure.Done()
	require.ErrorIs(t, context.Cause(tenure), promote.ErrUnavailable)
	require.ErrorContains(t, context.Cause(tenure), "has not renewed its session")
	server.Process.Start()
	lives, err := other.Lives(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, lives, "Consul counts the time of the session anew")
	again, err := owners.Join(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, again.Err(), "it may work again")
	require.NoError(t, owners.Leave(t.Context(), "a"))
	lives, err = other.Lives(t.Context(), "a")
	require.NoError(t, err)
	require.False(t, lives)
}
