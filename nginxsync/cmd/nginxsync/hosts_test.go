//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/hosts"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	fleet "github.com/sluice-deploy/sluice/nginxsync/hosts"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
)

const token = "a-token-of-the-test"

var vipOut = netip.MustParseAddr("10.58.0.2")

// site is an Nginx host: a machine with an Nginx on all of its addresses, and its agent.
type site struct {
	*hosts.Host
	dir          string
	nginx, agent *testbed.Process
	client       *agenthttp.Client
}

// sites makes hosts whose Nginx runs; their agents are not started. All agents read one file of
// routes, which is returned.
func sites(t *testing.T, list []*hosts.Host) ([]*site, string) {
	t.Helper()
	routes := filepath.Join(nginxtest.Dir(t), "routes.json")
	program, err := exec.LookPath("nginxsync") // of testscript.Main
	require.NoError(t, err)
	out := make([]*site, len(list))
	for i, machine := range list {
		s := &site{Host: machine, dir: nginxtest.Dir(t)}
		write(t, filepath.Join(s.dir, "in", "nginx.conf"), strings.Replace(production,
			"server_name", "add_header X-Host "+machine.Name+" always;\n        server_name", 1))
		write(t, filepath.Join(s.dir, "token"), token+"\n")
		rules, err := json.Marshal(map[string]any{"listen": map[string]int{"80": 80},
			"main": map[string]string{"user": "",
				"pid": filepath.Join(s.dir, "nginx.pid"), "daemon": "off", "worker_processes": "2"},
			"tempDir": s.dir})
		require.NoError(t, err)
		write(t, filepath.Join(s.dir, "rules.json"), string(rules))
		var text bytes.Buffer
		require.Zero(t, run(t.Context(), []string{"transform", "-in", filepath.Join(s.dir, "in"),
			"-out", filepath.Join(s.dir, "conf"), "-rules", filepath.Join(s.dir, "rules.json"),
			"-q", "-socket", filepath.Join(s.dir, "admin.sock"), "-state",
			filepath.Join(s.dir, "routes")}, &text, &text), text.String())
		write(t, filepath.Join(s.dir, "agent.yaml"), fmt.Sprintf(`listen: unix:%[1]s/agent.sock
public: %[2]s:9181
remote: {listen: "%[2]s:9182", tokenFile: %[1]s/token}
drainFile: %[1]s/drained
nginx:
  - {socket: %[1]s/admin.sock, stateFile: %[1]s/routes, tree: %[1]s/conf/nginx.conf}
sources:
  - file: {path: %[3]s, every: 20ms}
`, s.dir, s.IP, routes))
		driver, err := luadriver.New(luadriver.Config{Socket: filepath.Join(s.dir, "admin.sock")})
		require.NoError(t, err)
		s.nginx = testbed.Start(t, testbed.DirIn(t, machine.Dir, "nginx"), testbed.Command{
			Name: "nginx on " + machine.Name, Path: testbed.NeedProgram(t, "nginx", "nginx"),
			Args: []string{"-p", s.dir, "-c", filepath.Join(s.dir, "conf", "nginx.conf"), "-e",
				filepath.Join(s.dir, "error.log")},
			Netns: machine.Name, Logs: []string{filepath.Join(s.dir, "error.log")},
			Ready: func(ctx context.Context) error {
				_, err := driver.State(ctx)
				return err
			}})
		s.agent = testbed.Prepare(t, testbed.DirIn(t, machine.Dir, "agent"), testbed.Command{
			Name: "agent on " + machine.Name, Path: program, Netns: machine.Name,
			Args: []string{"agent", "-config", filepath.Join(s.dir, "agent.yaml")}})
		s.client, err = agenthttp.NewRemoteClient(agenthttp.RemoteConfig{
			URL: "http://" + s.IP + ":9182", Token: token})
		require.NoError(t, err)
		out[i] = s
	}
	return out, routes
}

// set makes a set of the fleet.
func set(t *testing.T, list []*site) *fleet.Hosts {
	t.Helper()
	cfg := fleet.Config{}
	for _, s := range list {
		cfg.Hosts = append(cfg.Hosts, fleet.Host{Name: s.Name, Agent: s.client})
	}
	h, err := fleet.New(cfg)
	require.NoError(t, err)
	return h
}

// reachable is an instance on the network of the hosts, which says which one it is.
func reachable(t *testing.T, near *hosts.Host, id string) netip.AddrPort {
	t.Helper()
	prefix := netip.PrefixFrom(netip.MustParseAddr(near.IP), 24).Masked()
	l, err := net.Listen("tcp", netip.AddrPortFrom(prefix.Addr().Next(), 0).String())
	require.NoError(t, err)
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Instance-Id", id)
			fmt.Fprint(w, id)
		})}}
	s.Start()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(l.Addr().String())
}

// overlaid is a file of routes with one instance in the baseline and one on the VIP.
func overlaid(baseline, overlay netip.AddrPort, version string) string {
	return fmt.Sprintf(`{"baseline": {"hello_web": [{"id": "b", "addr": %q, "version": "v1"}]},
		"overlays": {%q: {"hello_web": [{"id": "o", "addr": %q, "version": %q}]}}}`, baseline,
		vipOut, overlay, version)
}

func TestSeveralHosts(t *testing.T) {
	t.Parallel()
	list, routes := sites(t, hosts.Start(t, 3))
	for _, s := range list { // the VIPs are addresses of every host
		require.NoError(t, s.Command("ip", "route", "add", "local", "10.58.0.0/24", "dev",
			"lo").Run())
	}
	baseline, overlay := reachable(t, list[0].Host, "b"), reachable(t, list[0].Host, "o")
	write(t, routes, overlaid(baseline, overlay, "v2"))
	h := set(t, list)
	want := fleet.Want{VIP: vipOut, URL: "http://" + host + "/", Instances: []string{"o"},
		Clusters: map[string]string{"hello_web": "v2"}}
	look := func(want fleet.Want) fleet.Report {
		t.Helper()
		report, err := h.Look(t.Context(), want)
		require.NoError(t, err)
		return report
	}
	// says waits until the first host gives a reason: a busy machine may give another one before.
	says := func(want fleet.Want, reason string) {
		t.Helper()
		testbed.Poll(t, "a host says "+reason, func() error {
			if why := look(want)[list[0].Name]; !strings.Contains(why, reason) {
				return errors.New(why)
			}
			return nil
		})
	}
	everywhere := func() {
		t.Helper()
		testbed.Poll(t, "all hosts are ready", func() error {
			if report := look(want); report.Ready() != len(list) {
				return errors.New(report.String())
			}
			return nil
		})
	}

	// A quorum is enough; a host that joins late counts once it has the routes.
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	_, err := h.WaitReady(ctx, want)
	cancel()
	require.ErrorIs(t, err, cause)
	require.ErrorContains(t, err, "wait for 2 hosts: 0 of 3 hosts are ready; "+list[0].Name)
	list[0].agent.Start()
	list[1].agent.Start()
	report, err := h.WaitReady(t.Context(), want)
	require.NoError(t, err)
	require.Contains(t, report[list[2].Name], "the agent does not answer")
	list[2].agent.Start()
	everywhere()

	// Neither routes nor answers of others count.
	other := want
	other.Clusters = map[string]string{"hello_web": "v9"}
	says(other, `served by versions ["v2"], want "v9"`)
	other = want
	other.Instances = []string{"x"}
	says(other, `answered by instance "o", want one of ["x"]`)
	other = want
	other.VIP = netip.MustParseAddr("10.58.0.9") // the baseline answers there, by no lease
	other.Clusters = map[string]string{"hello_web": "v1"}
	says(other, "the routes have no VIP 10.58.0.9: not found")

	// An instance that is gone: the routes alone are no proof.
	nobody, err := net.Listen("tcp", overlay.Addr().String()+":0")
	require.NoError(t, err)
	require.NoError(t, nobody.Close())
	write(t, routes, overlaid(baseline, netip.MustParseAddrPort(nobody.Addr().String()), "v3"))
	other = want
	other.Clusters = map[string]string{"hello_web": "v3"}
	says(other, "status 502")
	write(t, routes, overlaid(baseline, overlay, "v2"))
	everywhere()

	testRoll(t, h, list, everywhere)
	everywhere()
	testToken(t, list[0])
}

// testRoll changes the configuration of one host after another. everywhere waits until all are
// ready.
func testRoll(t *testing.T, h *fleet.Hosts, list []*site, everywhere func()) {
	byName := map[string]*site{}
	for _, s := range list {
		byName[s.Name] = s
	}
	var changed []string
	reload := func(ctx context.Context, host fleet.Host) error {
		s := byName[host.Name]
		health, err := host.Agent.Health(ctx)
		if err != nil || health.OK {
			return fmt.Errorf("the host is not drained: %v, %w", health, err)
		}
		out, err := s.Command("nginx", "-t", "-q", "-p", s.dir, "-c", filepath.Join(s.dir, "conf",
			"nginx.conf"), "-e", filepath.Join(s.dir, "error.log")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		changed = append(changed, host.Name)
		s.nginx.Signal(syscall.SIGHUP)
		return nil
	}
	plan := fleet.Plan{Change: reload, By: "ops", Settle: time.Millisecond}
	require.NoError(t, h.Roll(t.Context(), plan))
	require.Equal(t, []string{list[0].Name, list[1].Name, list[2].Name}, changed)

	// nginx -t refuses the second host's tree: it is put back as it was, and the third is left
	// alone.
	changed = nil
	main := filepath.Join(list[1].dir, "conf", "nginx.conf")
	good, err := os.ReadFile(main)
	require.NoError(t, err)
	write(t, main, "mistake;\n")
	err = h.Roll(t.Context(), plan)
	var failed *fleet.RollError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, list[1].Name, failed.Host)
	require.Equal(t, "change", failed.Step)
	require.Equal(t, []string{list[0].Name}, failed.Done)
	require.False(t, failed.Drained)
	require.ErrorContains(t, err, `unknown directive "mistake"`)
	require.Equal(t, []string{list[0].Name}, changed)
	write(t, main, string(good))

	// A host that does not work after its change stays drained. All have to be healthy within the
	// patience before, on a busy machine too.
	everywhere()
	plan.Patience = 15 * time.Second
	plan.Change = func(context.Context, fleet.Host) error { list[0].nginx.Kill(); return nil }
	require.ErrorAs(t, h.Roll(t.Context(), plan), &failed)
	require.Equal(t, "verify", failed.Step)
	require.True(t, failed.Drained)
	require.ErrorContains(t, failed, "it stays drained, 0 hosts before it have the change")
	require.NoError(t, luadriver.RemoveStaleSockets(luadriver.SnippetConfig{
		Socket: filepath.Join(list[0].dir, "admin.sock")}))
	list[0].nginx.Start()
	_, err = list[0].client.Undrain(t.Context(), "ops")
	require.NoError(t, err)
	require.ErrorIs(t, h.Roll(t.Context(), fleet.Plan{}), nginxsync.ErrInvalid)
}

// testToken asks without the token.
func testToken(t *testing.T, s *site) {
	for _, value := range []string{"", "Bearer", "Bearer ", "Bearer another-token-of-16",
		"Basic " + token} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			"http://"+s.IP+":9182/v1/status", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", value)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode, value)
	}
}
