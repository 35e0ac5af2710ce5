//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/internal/link"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// faults is a host whose agent follows three Consul servers through a link, under the requests of
// clients that check the version of every answer.
type faults struct {
	*bed
	cluster *consul.Cluster
	link    *link.Link
	client  *agenthttp.Client
	token   *api.ACLToken
	policy  *api.ACLPolicy

	serial   int             // of the last version
	floor    atomic.Int64    // the oldest version that a request may be answered by
	answered atomic.Int64    // requests
	lost     atomic.Int64    // connections that ended without an answer
	may      atomic.Bool     // connections end: Nginx is killed
	none     atomic.Bool     // Nginx has no routes and answers 503
	bad      chan string     // answers that are wrong
	took     []time.Duration // from the end of each fault to a new version on all workers
}

func newFaults(t *testing.T) *faults {
	t.Helper()
	f := &faults{bed: newBed(t), cluster: consul.StartGuarded(t, 3), bad: make(chan string, 16)}
	f.link = link.New(t, f.cluster.Members[0].Addr)
	f.grant()
	write(t, filepath.Join(f.dir, "token"), f.token.SecretID)
	f.configure(fmt.Sprintf("  - consul: {address: %q, tokenFile: %s/token, wait: 5s, "+
		"services: {hello_web: web, api: api}}", f.link.Addr, f.dir))
	path, err := exec.LookPath("nginxsync") // of testscript.Main
	require.NoError(t, err)
	f.agent = testbed.Prepare(t, testbed.Own(t).TestDir(t, "agent"), testbed.Command{
		Name: "agent", Path: "/usr/bin/env",
		Args: []string{hooksEnv + "=" + f.dir, path, "agent", "-config", f.config()}})
	f.client, err = agenthttp.NewClient(f.listen())
	require.NoError(t, err)
	f.put("api", nginxtest.Backend(t, "v0"), "v0")
	f.next()
	f.agent.Start()
	f.converges()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				f.request(ctx)
				<-pace.C
			}
		})
	}
	t.Cleanup(func() { stop(); wg.Wait() })
	return f
}

// grant makes the token of the agent; it has the same secret each time.
func (f *faults) grant() {
	f.t.Helper()
	if f.token == nil {
		f.token = &api.ACLToken{SecretID: "6f2b5c1e-8d39-4f0a-9a55-000000000001"}
		f.policy = &api.ACLPolicy{Name: "agent", Rules: reads("")}
	}
	testbed.Poll(f.t, "the token is granted", func() (err error) {
		acl := f.cluster.Members[0].Client.ACL()
		// A call that fails in an election may have had its effect.
		if f.policy.ID == "" {
			made, _, err := acl.PolicyReadByName(f.policy.Name, nil)
			if err != nil || made == nil {
				made, _, err = acl.PolicyCreate(f.policy, nil)
			}
			if err != nil {
				return err
			}
			f.policy = made
		}
		made, _, err := acl.TokenReadSelf(&api.QueryOptions{Token: f.token.SecretID})
		if err != nil {
			made, _, err = acl.TokenCreate(&api.ACLToken{SecretID: f.token.SecretID,
				Policies: []*api.ACLLink{{ID: f.policy.ID}}}, nil)
		}
		if err == nil {
			f.token = made
		}
		return err
	})
}

// revoke takes the token of the agent away.
func (f *faults) revoke() {
	f.t.Helper()
	acl := f.cluster.Members[1].Client.ACL()
	testbed.Poll(f.t, "the token is revoked", func() error {
		_, err := acl.TokenDelete(f.token.AccessorID, nil)
		if err == nil {
			return nil
		}
		// A call that fails in an election may have had its effect.
		_, _, self := acl.TokenReadSelf(&api.QueryOptions{Token: f.token.SecretID})
		if self != nil && strings.Contains(self.Error(), "ACL not found") {
			return nil
		}
		return err
	})
}

// allow gives the token of the agent other rules.
func (f *faults) allow(rules string) {
	f.t.Helper()
	f.policy.Rules = rules
	testbed.Poll(f.t, "the policy has other rules", func() error {
		_, _, err := f.cluster.Members[1].Client.ACL().PolicyUpdate(f.policy, nil)
		return err
	})
}

// reads are the rules to read services whose names have a prefix.
func reads(prefix string) string {
	return fmt.Sprintf(`service_prefix %q {policy = "read"} node_prefix "" {policy = "read"}`,
		prefix)
}

// put makes the one instance of a service another one.
func (f *faults) put(service string, addr netip.AddrPort, version string) {
	f.t.Helper()
	entry := &api.CatalogRegistration{Node: "machine", Address: addr.Addr().String(),
		Service: &api.AgentService{ID: service, Service: service, Port: int(addr.Port()),
			Meta: map[string]string{"version": version}}}
	testbed.Poll(f.t, service+" is registered", func() (err error) {
		for _, m := range f.cluster.Members { // one may be away
			// A server keeps a write for 7 seconds while there is no leader: a call that is given
			// up before could overwrite the next version.
			ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
			_, err = m.Client.Catalog().Register(entry, (&api.WriteOptions{}).WithContext(ctx))
			cancel()
			if err == nil {
				return nil
			}
		}
		return err
	})
}

// next registers the next version.
func (f *faults) next() {
	f.t.Helper()
	f.serial++
	version := "v" + strconv.Itoa(f.serial)
	f.put("web", nginxtest.Backend(f.t, version), version)
}

// converges waits until the agent says that every worker serves the last version. From then on no
// answer may have an older one.
func (f *faults) converges() {
	f.t.Helper()
	start := time.Now()
	nginxtest.Poll(f.t, fmt.Sprintf("v%d is served", f.serial), func() error {
		if err := f.serves(); err != nil {
			return fmt.Errorf("%w, agent: %s", err, last(f.agent.Log(), 2000))
		}
		return nil
	})
	f.took = append(f.took, time.Since(start))
	f.floor.Store(int64(f.serial))
}

// serves is nil when the agent says that every worker serves the last version.
func (f *faults) serves() error {
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
	defer cancel()
	e, err := f.client.Serves(ctx, vipB, "hello_web", "")
	if err != nil {
		return err
	}
	var s agenthttp.Status
	if err := f.client.Get(ctx, "/v1/status", nil, &s); err != nil {
		return err
	}
	a := s.Nginx[0].Agent
	if want := "v" + strconv.Itoa(f.serial); len(e.Versions) != 1 || e.Versions[0] != want ||
		a.Verified != a.Desired || a.Saved != a.Desired {
		return fmt.Errorf("versions %v, want %s, desired %s, verified %s, saved %s, sources %+v",
			e.Versions, want, a.Desired, a.Verified, a.Saved, s.Sources)
	}
	return nil
}

func last(text string, n int) string { return text[max(0, len(text)-n):] }

// request sends one request, to one of the two clusters, and checks its answer.
func (f *faults) request(ctx context.Context) {
	n, floor, none := f.answered.Add(1), f.floor.Load(), f.none.Load()
	path, to := "/", vipB
	if n%4 == 0 {
		path, to = "/api/", vipA
	}
	status, header, body, err := nginxtest.Get(ctx, netip.AddrPortFrom(to, uint16(f.port)), host,
		path)
	// A request that began before the machine lost its power may end after that.
	floor, none = min(floor, f.floor.Load()), none || f.none.Load()
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		f.lost.Add(1)
		if f.may.Load() {
			return
		}
	case status == http.StatusServiceUnavailable && none:
		return
	case status == http.StatusOK:
		version := header.Get("X-Sluice-Version")
		got, err := strconv.ParseInt(strings.TrimPrefix(version, "v"), 10, 64)
		if err == nil && strings.HasPrefix(body, version+" ") &&
			(path == "/" && got >= floor || path == "/api/" && got == 0) {
			return
		}
	}
	select {
	case f.bad <- fmt.Sprintf("%s: status %d, version %q, body %.100q, want v%d or later: %v", path,
		status, header.Get("X-Sluice-Version"), body, floor, err):
	default:
	}
}

// unharmed waits for more answers, and ends the test when one was wrong.
func (f *faults) unharmed(what string) {
	f.t.Helper()
	before := f.answered.Load()
	testbed.Poll(f.t, "requests are answered", func() error {
		select {
		case bad := <-f.bad:
			f.t.Fatalf("%s: %s\nagent: %s\nnginx: %s", what, bad, last(f.agent.Log(), 3000),
				last(f.Errors(), 1000))
		default:
		}
		if f.answered.Load() < before+100 {
			return errors.New("they are not")
		}
		return nil
	})
}

// deploys says that a fault is over: the next version gets there.
func (f *faults) deploys(what string) {
	f.t.Helper()
	f.unharmed(what)
	f.next()
	f.converges()
	f.unharmed(what)
	f.t.Logf("%s: %d requests, %d connections lost, the next version after %s", what,
		f.answered.Swap(0), f.lost.Swap(0), f.took[len(f.took)-1].Round(time.Millisecond))
}

// logs waits until the agent has logged one of the texts since the mark, a length of its log.
func (f *faults) logs(mark int, want ...string) {
	f.t.Helper()
	nginxtest.Poll(f.t, fmt.Sprintf("the agent logs one of %q", want), func() error {
		text := f.agent.Log()[mark:]
		if !slices.ContainsFunc(want, func(w string) bool { return strings.Contains(text, w) }) {
			return errors.New(last(text, 2000))
		}
		return nil
	})
}
