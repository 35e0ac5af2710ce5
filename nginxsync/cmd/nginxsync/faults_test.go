//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// faults is a host whose agent follows three Consul servers through a link, under the requests of
// clients that check the version of every answer.
type faults struct {
	*bed
	cluster *consul.Cluster
	link    *link
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
	f.link = newLink(t, f.cluster.Members[0].Addr)
	f.grant()
	write(t, filepath.Join(f.dir, "token"), f.token.SecretID)
	f.configure(fmt.Sprintf("  - consul: {address: %q, tokenFile: %s/token, wait: 5s, "+
		"services: {hello_web: web, api: api}}", f.link.addr, f.dir))
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
			// A server keeps a write for 7 seconds while there is no leader: a call that is given up
			// before could overwrite the next version.
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

// Consul, the link to it, the agent's limits and its clock fail, one after the other, with clients
// that check every answer: no route is lost, no answer is of a wrong version, and the next version
// gets there afterwards. The shortened test has no lost service and no half open connections.
func TestFaultsOfConsul(t *testing.T) {
	t.Parallel()
	f := newFaults(t)
	f.deploys("nothing")

	leader := f.cluster.Leader(t)
	asked := f.cluster.Others(leader)[0]
	f.link.aim(asked.Addr)
	leader.Process.Kill()
	f.deploys("the leader is killed")
	f.cluster.Start(t)

	mark := len(f.agent.Log())
	asked.Process.Pause()
	f.logs(mark, "no answer in ")
	f.unharmed("the server that the agent asks hangs")
	asked.Process.Resume()
	f.deploys("the server that the agent asks hangs")

	snapshot := f.cluster.Leader(t).Snapshot(t)
	for i := range 20 {
		f.put("other", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1)), "v0")
	}
	mark = len(f.agent.Log())
	for _, m := range f.cluster.Members {
		m.Process.Kill()
	}
	f.logs(mark, "EOF", "connection reset", "broken pipe") // of the link
	f.unharmed("all servers are killed")
	f.cluster.Start(t)
	f.cluster.Leader(t).Restore(t, snapshot)
	f.deploys("all servers are killed, and restored from a snapshot")

	mark = len(f.agent.Log())
	f.revoke()
	f.logs(mark, "ACL not found")
	f.unharmed("the token is revoked")
	f.grant()
	f.deploys("the token is revoked, and granted again")

	if !soak.Whole() {
		return
	}
	mark = len(f.agent.Log())
	f.allow(reads("ap"))
	f.logs(mark, "the token may not read every instance")
	f.unharmed("the token loses a service")
	f.allow(reads(""))
	f.deploys("the token loses a service, and may read it again")

	f.link.silence(false)
	f.deploys("the connections to Consul are half open, and new ones work")
	mark = len(f.agent.Log())
	f.link.silence(true)
	f.logs(mark, "no answer in ")
	f.unharmed("all connections to Consul are half open")
	f.link.heal()
	f.deploys("all connections to Consul are half open")
}

func TestFaultsOfTheAgent(t *testing.T) {
	t.Parallel()
	f := newFaults(t)

	// Killed after each step of a start that brings a new version: state, routes, push, state,
	// file. The shortened test leaves out each second step.
	steps, each := 1, soak.Count(2, 1)
	for killed := true; killed && steps < 12; steps += each {
		f.agent.Kill()
		f.next()
		write(t, filepath.Join(f.dir, "kill"), strconv.Itoa(steps))
		f.agent.Start()
		done := f.agent.Done()
		nginxtest.Poll(t, "it is killed, or it is through", func() error {
			select {
			case <-done:
				return nil
			default:
				killed = f.serves() != nil
			}
			if killed {
				return errors.New("neither")
			}
			return nil
		})
		require.NoError(t, os.Remove(filepath.Join(f.dir, "kill")))
		f.agent.Kill() // one that is through counts on
		f.agent.Start()
		f.converges()
		f.unharmed(fmt.Sprint("the agent is killed after step ", steps))
	}
	require.Greater(t, steps-each, 5)
	f.deploys(fmt.Sprintf("the agent is killed after each of the steps before %d", steps-each))

	for _, off := range []string{"1h", "-1h", "0s"} {
		write(t, filepath.Join(f.dir, "clock"), off)
		f.deploys("the clock is off by " + off)
	}

	pid := f.agent.Pid()
	var before unix.Rlimit
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before))
	mark := len(f.agent.Log())
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max},
		nil))
	f.next()
	f.logs(mark, "too many open files")
	f.unharmed("no descriptor is left")
	require.NoError(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil))
	f.deploys("no descriptor is left")

	f.may.Store(true) // a connection of a worker that is killed is lost
	for _, worker := range f.Workers() {
		f.next()
		require.NoError(t, syscall.Kill(worker, syscall.SIGKILL))
		f.converges()
	}
	f.deploys("each worker is killed during a push")
	for range soak.Count(2, 5) {
		f.next()
		f.Nginx.Signal(syscall.SIGHUP)
		f.converges()
	}
	f.deploys("reloads during pushes")
}

// The machine loses its power: Nginx and the agent end at once, and the state file is not what was
// written last. Nginx alone serves a whole copy or answers 503, never an instance that no copy has;
// the agent brings the last version back.
func TestPowerIsLost(t *testing.T) {
	t.Parallel()
	f := newFaults(t)
	file := filepath.Join(f.dir, "routes")
	old, err := os.ReadFile(file)
	require.NoError(t, err)
	f.may.Store(true)
	for what, damage := range map[string]func(text []byte) (now, copied []byte){
		"cut":   func(text []byte) ([]byte, []byte) { return text[:len(text)/2], text },
		"empty": func(text []byte) ([]byte, []byte) { return nil, text },
		"zeros": func(text []byte) ([]byte, []byte) { return make([]byte, len(text)), text },
		"zeros at the end": func(text []byte) ([]byte, []byte) {
			return append(bytes.Clone(text[:len(text)-64]), make([]byte, 64)...), text
		},
		"old":      func([]byte) ([]byte, []byte) { return old, old },
		"two half": func(text []byte) ([]byte, []byte) { return text[:len(text)/2], text[:9] },
	} {
		if !soak.Whole() && what != "cut" && what != "old" && what != "two half" {
			continue
		}
		f.next()
		f.converges()
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		f.agent.Kill()
		f.Nginx.Kill()
		f.floor.Store(0) // what the disk kept may be old
		f.none.Store(what == "two half")
		now, copied := damage(text)
		require.NoError(t, os.WriteFile(file, now, 0o600))
		require.NoError(t, os.WriteFile(file+".1", copied, 0o600))
		require.NoError(t, os.RemoveAll(filepath.Join(f.dir, "admin.sock")))
		require.NoError(t, os.RemoveAll(filepath.Join(f.dir, "admin.sock.503")))
		f.Nginx.Start()
		if what != "two half" {
			nginxtest.Poll(t, what+": Nginx alone has routes", func() error {
				if status, body := f.answer(vipB, "/"); status != http.StatusOK {
					return errors.New(body)
				}
				return nil
			})
		}
		f.agent.Start()
		f.converges()
		f.none.Store(false)
		f.deploys("power is lost, state file " + what)
	}
}

// The disk of the state file is full: routes are served all the same, the status tells that they
// are not saved, and they are once there is room.
func TestAgentOnAFullDisk(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	small := filepath.Join(b.dir, "small")
	require.NoError(t, os.Mkdir(small, 0o755))
	b.configure(b.fileSource())
	text, err := os.ReadFile(b.config())
	require.NoError(t, err)
	write(t, b.config(), strings.Replace(string(text), b.dir+"/routes\n", small+"/routes\n", 1))
	routes := filepath.Join(b.dir, "routes.json")
	write(t, routes, fileRoutes(t, "v1", "v2"))
	path, err := exec.LookPath("nginxsync") // of testscript.Main
	require.NoError(t, err)
	// a disk of the agent's own, which ends with it
	b.agent = testbed.Prepare(t, testbed.Own(t).TestDir(t, "agent"), testbed.Command{
		Name: "agent", Path: testbed.NeedProgram(t, "unshare", "util-linux"),
		Args: []string{"-m", "--propagation", "private", "sh", "-c",
			`mount -t tmpfs -o size=64k none "$0" && exec "$@"`, small, path, "agent", "-config",
			b.config()}})
	b.agent.Start()
	client, err := agenthttp.NewClient(b.listen())
	require.NoError(t, err)
	saved := func(want bool) {
		t.Helper()
		nginxtest.Poll(t, fmt.Sprintf("verified, saved: %t", want), func() error {
			var s agenthttp.Status
			if err := client.Get(t.Context(), "/v1/status", nil, &s); err != nil {
				return err
			}
			a := s.Nginx[0].Agent
			if a.Verified != a.Desired || (a.Saved == a.Desired) != want {
				return fmt.Errorf("%+v", a)
			}
			return nil
		})
	}
	b.answers(vipA, "/", "v2")
	saved(true)
	disk := filepath.Join("/proc", strconv.Itoa(b.agent.Pid()), "root", small)
	before, err := os.ReadFile(filepath.Join(disk, "routes"))
	require.NoError(t, err)
	err = os.WriteFile(filepath.Join(disk, "full"), make([]byte, 128<<10), 0o600)
	require.ErrorIs(t, err, syscall.ENOSPC)
	write(t, routes, fileRoutes(t, "v3", "v4"))
	b.answers(vipA, "/", "v4")
	saved(false)
	nginxtest.Poll(t, "the reason is logged", func() error {
		if !strings.Contains(b.agent.Log(), "no space left on device") {
			return errors.New(b.agent.Log())
		}
		return nil
	})
	now, err := os.ReadFile(filepath.Join(disk, "routes"))
	require.NoError(t, err)
	require.Equal(t, before, now, "the file of before is whole")
	require.NoError(t, os.Remove(filepath.Join(disk, "full")))
	saved(true)
	b.answers(vipA, "/", "v4")
}
