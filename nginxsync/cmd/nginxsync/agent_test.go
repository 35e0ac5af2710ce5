//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/supervisor"
)

const production = `
user www-data;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    upstream hello_web { server 10.9.9.1:80; }
    upstream api { server 10.9.9.3:80; }
    server {
        listen 80 default_server;
        server_name www.example;
        location / { proxy_pass http://hello_web; }
        location /api/ { proxy_pass http://api; }
    }
}
`

const host = "www.example"

var (
	vipA = netip.MustParseAddr("127.58.0.2")
	vipB = netip.MustParseAddr("127.58.0.3")
)

// bed is a host: an Nginx on a transformed tree, and the agent as a process.
type bed struct {
	*nginxtest.Nginx
	t      *testing.T
	dir    string
	port   int
	public string
	agent  *testbed.Process
}

func write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
}

// newBed starts Nginx. The agent is not started yet.
func newBed(t *testing.T) *bed {
	t.Helper()
	dir := nginxtest.Dir(t)
	b := &bed{t: t, dir: dir, port: nginxtest.Port(t),
		public: fmt.Sprintf("127.0.0.1:%d", nginxtest.Port(t))}
	write(t, filepath.Join(dir, "in", "nginx.conf"), production)
	rules, err := json.Marshal(map[string]any{"listen": map[string]int{"80": b.port},
		"main": map[string]string{"user": "", "pid": filepath.Join(dir, "nginx.pid"),
			"daemon": "off", "worker_processes": "2"}, "tempDir": dir})
	require.NoError(t, err)
	write(t, filepath.Join(dir, "rules.json"), string(rules))
	b.run("transform", "-in", filepath.Join(dir, "in"), "-out", filepath.Join(dir, "conf"),
		"-rules", filepath.Join(dir, "rules.json"), "-q", "-socket", filepath.Join(dir,
			"admin.sock"), "-state", filepath.Join(dir, "routes"))
	b.Nginx = nginxtest.Start(t, dir, filepath.Join(dir, "conf", "nginx.conf"))
	path, err := exec.LookPath("nginxsync") // of testscript.Main
	require.NoError(t, err)
	b.agent = testbed.Prepare(t, testbed.Own(t).TestDir(t, "agent"), testbed.Command{
		Name: "nginxsync", Path: path, Args: []string{"agent", "-config", b.config()}})
	return b
}

func (b *bed) config() string { return filepath.Join(b.dir, "agent.yaml") }
func (b *bed) listen() string { return "unix:" + filepath.Join(b.dir, "agent.sock") }

// configure writes the configuration file; sources are its YAML list, without indentation.
func (b *bed) configure(sources string) {
	b.t.Helper()
	write(b.t, b.config(), fmt.Sprintf(`listen: %s
public: %s
lag: 2s
drainFile: %[3]s/drained
nginx:
  - socket: %[3]s/admin.sock
    stateFile: %[3]s/routes
    tree: %[3]s/conf/nginx.conf
sources:
%s
`, b.listen(), b.public, b.dir, sources))
}

// command runs a command of nginxsync and returns its exit code and output.
func (b *bed) command(args ...string) (code int, stdout, stderr string) {
	b.t.Helper()
	var out, errs bytes.Buffer
	code = run(b.t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// run runs a command that has to succeed.
func (b *bed) run(args ...string) string {
	b.t.Helper()
	code, out, errs := b.command(args...)
	require.Zero(b.t, code, "%v: %s%s", args, out, errs)
	return out
}

// ask runs a command that asks the agent, and has to succeed.
func (b *bed) ask(command string, args ...string) string {
	b.t.Helper()
	words := strings.Fields(command)
	return b.run(append(append(words, "-agent", b.listen()), args...)...)
}

// answer is the body that Nginx answers with on an address.
func (b *bed) answer(to netip.Addr, path string) (int, string) {
	status, header, body, err := nginxtest.Get(b.t.Context(), netip.AddrPortFrom(to,
		uint16(b.port)), host, path)
	if err != nil {
		return 0, err.Error()
	}
	return status, header.Get("X-Sluice-Version") + " " + body
}

// url is a URL of the test Nginx.
func (b *bed) url(path string) string { return fmt.Sprintf("http://%s:%d%s", host, b.port, path) }

// answers waits until Nginx answers with a version.
func (b *bed) answers(to netip.Addr, path, version string) {
	b.t.Helper()
	nginxtest.Poll(b.t, path+" on "+to.String()+" is answered by "+version, func() error {
		if status, got := b.answer(to, path); !strings.HasPrefix(got, version+" ") {
			return fmt.Errorf("status %d: %s, agent: %s", status, got, b.agent.Log())
		}
		return nil
	})
}

// explains waits until the agent's explanation of a request on a VIP has the text.
func (b *bed) explains(vip netip.Addr, want string) {
	b.t.Helper()
	nginxtest.Poll(b.t, "the explanation has "+want, func() error {
		code, out, errs := b.command("explain", "-agent", b.listen(), "-vip", vip.String(),
			b.url("/x"))
		if !strings.Contains(out, want) {
			return fmt.Errorf("code %d: %s%s", code, out, errs)
		}
		return nil
	})
}

// healthz waits for a status of the public health check, and returns the reasons.
func (b *bed) healthz(want int) (health agenthttp.Health) {
	b.t.Helper()
	nginxtest.Poll(b.t, fmt.Sprintf("/healthz is %d", want), func() error {
		resp, err := http.Get("http://" + b.public + "/healthz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != want {
			return fmt.Errorf("status %d: %s, %w", resp.StatusCode, text, err)
		}
		return json.Unmarshal(text, &health)
	})
	return health
}

// register makes an instance known to Consul.
func (b *bed) register(server *consul.Server, service, version string) string {
	b.t.Helper()
	addr := nginxtest.Backend(b.t, version)
	id := service + "-" + version
	require.NoError(b.t, server.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: service, Address: addr.Addr().String(), Port: int(addr.Port()),
		Tags: []string{"sluice"}, Meta: map[string]string{"version": version}}))
	b.t.Cleanup(func() { _ = server.Client.Agent().ServiceDeregister(id) })
	return id
}

// fileRoutes is a file source's text: a baseline of one instance a cluster, and an overlay.
func fileRoutes(t *testing.T, baseline, overlay string) string {
	one := func(version string) string {
		return fmt.Sprintf(`[{"id": "i-%s", "addr": %q, "version": %q}]`, version,
			nginxtest.Backend(t, version), version)
	}
	return fmt.Sprintf(`{"baseline": {"hello_web": %s, "api": %s},
		"overlays": {%q: {"hello_web": %s}}}`, one(baseline), one(baseline), vipA, one(overlay))
}

func (b *bed) fileSource() string {
	return fmt.Sprintf("  - file: {path: %s/routes.json, every: 20ms}", b.dir)
}

// The story of an operator's day, with a real Consul and a real Nginx.
func TestAgentWithConsul(t *testing.T) {
	t.Parallel()
	server := consul.Start(t)
	if server.Process == nil {
		t.Skip("not run: this test pauses Consul, and CONSUL_HTTP_ADDR names another's")
	}
	service := strings.ToLower(fmt.Sprintf("sluice-test-%d", os.Getpid()))
	b := newBed(t)
	overlay := nginxtest.Backend(t, "v9")
	write(t, filepath.Join(b.dir, "routes.json"), fmt.Sprintf(
		`{"overlays": {%q: {"hello_web": [{"id": "i9", "addr": %q, "version": "v9"}]}}}`, vipA,
		overlay))
	b.configure(fmt.Sprintf("  - consul: {address: %q, services: {hello_web: %s}}\n%s",
		server.Addr, service, b.fileSource()))
	first := b.register(server, service, "v1")
	b.agent.Start()
	b.answers(vipB, "/", "v1")
	b.answers(vipA, "/", "v9")
	b.healthz(http.StatusOK)
	nginxtest.Poll(t, "status is healthy", func() error { // Nginx has two seconds for each look
		code, out, errs := b.command("status", "-agent", b.listen())
		if code != 0 || !strings.HasPrefix(out, "healthy\nsource consul (consul): 1 services, "+
			"0 not heard\n") {
			return fmt.Errorf("code %d: %s%s", code, out, errs)
		}
		return nil
	})

	// register, and it answers on the VIP
	b.register(server, service, "v2")
	require.NoError(t, server.Client.Agent().ServiceDeregister(first))
	b.explains(vipB, "the baseline has 1 instances of cluster hello_web\n"+
		"answer: cluster hello_web, version v2 (baseline, generation ")
	b.explains(vipA, "version v9 (overlay")
	b.answers(vipB, "/", "v2")

	// killed, and started while Consul does not answer: nothing is wiped
	b.agent.Kill()
	server.Process.Pause()
	b.agent.Start()
	nginxtest.Poll(t, "the agent resumes", func() error {
		code, out, errs := b.command("status", "-agent", b.listen())
		if !strings.Contains(out, "resumed: no source has spoken yet") {
			return fmt.Errorf("code %d: %s%s", code, out, errs)
		}
		return nil
	})
	b.answers(vipB, "/", "v2")
	b.answers(vipA, "/", "v9")
	b.healthz(http.StatusOK) // the last routes are better than none
	server.Process.Resume()
	b.register(server, service, "v3")
	require.NoError(t, server.Client.Agent().ServiceDeregister(service+"-v2"))
	b.explains(vipB, "cluster hello_web, version v3 (baseline")

	// the last instance goes without a plan: held, until an operator says so
	require.NoError(t, server.Client.Agent().ServiceDeregister(service+"-v3"))
	nginxtest.Poll(t, "the change is held", func() error {
		if out := b.ask("held"); !strings.HasPrefix(out, "baseline/hello_web\t") {
			return fmt.Errorf("%q", out)
		}
		return nil
	})
	b.answers(vipB, "/", "v3")
	require.Equal(t, "released baseline/hello_web on nginx nginx\n", b.ask("release",
		"baseline/hello_web"))
	nginxtest.Poll(t, "503", func() error {
		if status, body := b.answer(vipB, "/"); status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	require.Empty(t, b.ask("held"))
	code, _, errs := b.command("release", "-agent", b.listen(), "baseline/hello_web")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "not found")
}

func TestAgentHealthAndDrain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	write(t, filepath.Join(b.dir, "routes.json"), fileRoutes(t, "v1", "v2"))
	b.configure(b.fileSource())
	b.agent.Start()
	b.answers(vipA, "/", "v2")
	b.healthz(http.StatusOK)

	// Nginx may have the routes before the agent has looked
	nginxtest.Poll(t, "the metrics say that the routes are verified", func() error {
		resp, err := http.Get("http://" + b.public + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		for _, want := range []string{"sluice_agent_verified{nginx=\"nginx\"} 1\n",
			"sluice_agent_call_duration_seconds_count{of=\"nginx\",op=\"apply\"}"} {
			if !strings.Contains(string(text), want) {
				return fmt.Errorf("want %q: %s", want, text)
			}
		}
		return err
	})

	require.Contains(t, b.ask("agent drain", "-by", "ops", "-wait", "1m"), "drained by ops since ")
	require.Contains(t, b.healthz(http.StatusServiceUnavailable).Reasons[0], "drained by ops")
	b.answers(vipA, "/", "v2")
	b.agent.Kill()
	b.agent.Start()
	b.healthz(http.StatusServiceUnavailable) // it outlives the agent
	code, out, _ := b.command("status", "-agent", b.listen())
	require.Equal(t, 1, code)
	require.Contains(t, out, "unhealthy: drained by ops since ")
	require.Equal(t, "not drained\n", b.ask("agent undrain"))
	b.healthz(http.StatusOK)

	// a worker that hangs with the routes of before: unhealthy once the lag is over
	worker := b.Workers()[0]
	require.NoError(t, syscall.Kill(worker, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(worker, syscall.SIGCONT) })
	write(t, filepath.Join(b.dir, "routes.json"), fileRoutes(t, "v1", "v3"))
	b.healthz(http.StatusServiceUnavailable)
	require.NoError(t, syscall.Kill(worker, syscall.SIGCONT))
	b.healthz(http.StatusOK)
	b.answers(vipA, "/", "v3")

	b.Nginx.Kill()
	require.Contains(t, b.healthz(http.StatusServiceUnavailable).Reasons[0], "nginx: nginx at ")
}

func TestAgentReadsItsConfigurationAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	write(t, filepath.Join(b.dir, "routes.json"), fileRoutes(t, "v1", "v2"))
	b.configure(b.fileSource())
	b.agent.Start()
	b.answers(vipB, "/", "v1")

	b.configure("  - fil: {}\n  - file: {path: relative}")
	b.agent.Signal(syscall.SIGHUP)
	nginxtest.Poll(t, "the problem is logged", func() error {
		if !strings.Contains(b.agent.Log(), `agent.yaml:10: unknown key`) {
			return fmt.Errorf("%s", b.agent.Log())
		}
		return nil
	})
	b.answers(vipB, "/", "v1")
	b.healthz(http.StatusOK)

	write(t, filepath.Join(b.dir, "other.json"), fileRoutes(t, "v3", "v4"))
	b.configure(fmt.Sprintf("  - file: {path: %s/other.json}", b.dir))
	b.agent.Signal(syscall.SIGHUP)
	b.answers(vipB, "/", "v3")
	b.answers(vipA, "/", "v4")
	b.healthz(http.StatusOK)

	b.agent.Signal(syscall.SIGTERM)
	<-b.agent.Done()
	require.Contains(t, b.agent.Log(), "goes on with its routes")
	b.answers(vipA, "/", "v4")
}

// The agent starts Nginx, starts it again with the last routes after a crash, and takes it over
// after its own.
func TestAgentStartsNginx(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Nginx.Kill()
	write(t, filepath.Join(b.dir, "routes.json"), fileRoutes(t, "v1", "v2"))
	b.configure(b.fileSource())
	text, err := os.ReadFile(b.config())
	require.NoError(t, err)
	write(t, b.config(), strings.Replace(string(text), "sources:\n", fmt.Sprintf(
		"    start: {prefix: %[1]s, errorLog: %[1]s/error.log}\nsources:\n", b.dir), 1))
	nginx, err := supervisor.New(supervisor.Config{Prefix: b.dir,
		ErrorLog: filepath.Join(b.dir, "error.log")})
	require.NoError(t, err)
	t.Cleanup(func() {
		b.agent.Stop() // it would start Nginx again
		require.NoError(t, nginx.Stop(context.Background()))
	})
	pid := func() int { // 0 while Nginx writes the file
		text, _ := os.ReadFile(filepath.Join(b.dir, "nginx.pid"))
		n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return n
	}
	b.agent.Start()
	b.answers(vipA, "/", "v2")
	b.healthz(http.StatusOK)
	first := pid()
	require.NotZero(t, first)

	b.agent.Kill()
	b.answers(vipA, "/", "v2")
	require.NoError(t, os.Remove(filepath.Join(b.dir, "routes.json"))) // the source is away
	b.agent.Start()
	b.healthz(http.StatusOK)
	require.Equal(t, first, pid(), "taken over")

	require.NoError(t, syscall.Kill(first, syscall.SIGKILL)) // its workers keep the ports
	nginxtest.Poll(t, "another Nginx runs", func() error {
		if now := pid(); now == 0 || now == first {
			return errors.New(b.agent.Log())
		}
		return nil
	})
	b.answers(vipA, "/", "v2")
	b.answers(vipB, "/api/", "v1")
	b.healthz(http.StatusOK)
}
