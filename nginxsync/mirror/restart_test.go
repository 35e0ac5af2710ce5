//go:build linux

package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/supervisor"
)

func limited(zones, body string) map[string]string {
	return map[string]string{"nginx.conf": "events { worker_connections 128; }\nhttp {\n" + zones +
		"\nupstream a { server 10.9.9.1:80; }\nserver { listen 80; location / { limit_req zone=b " +
		"burst=100; " + body + " } }\n}\n"}
}

// A zone that production adds in front of another one is carried over by a reload.
func TestReloadTakesAnotherZone(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	const zone = "limit_req_zone $arg_b zone=b:1m rate=100r/s;"
	require.NoError(t, s.mirror.Sync(t.Context(), bundleOf(t, limited(zone, "return 201;"))))
	require.NoError(t, s.mirror.Sync(t.Context(),
		bundleOf(t, limited("limit_req_zone $arg_a zone=a:1m rate=100r/s;\n"+zone, "return 202;"))))
	require.Equal(t, 202, s.status(t, "/"))
}

// daemon starts an Nginx in the background on the trees of a mirror.
func daemon(t *testing.T, restart bool, first map[string]string) *synced {
	path := testbed.NeedProgram(t, "nginx", "nginx")
	dir := nginxtest.Dir(t)
	s := &synced{port: nginxtest.Port(t), dir: filepath.Join(dir, "trees")}
	require.NoError(t, os.Mkdir(s.dir, 0o755))
	pid := filepath.Join(dir, "nginx.pid")
	s.cfg = luadriver.SnippetConfig{Socket: filepath.Join(dir, "admin.sock"), Memory: 1 << 20,
		StateFile: filepath.Join(dir, "routes")}
	var err error
	s.driver, err = luadriver.New(luadriver.Config{Socket: s.cfg.Socket})
	require.NoError(t, err)
	s.settings = syncSettings(s.dir, dir, pid, s.cfg.Socket, s.port, 1)
	s.settings.Rules.Snippets = luadriver.Snippets(s.cfg)
	delete(s.settings.Rules.Main, "daemon")
	s.settings.Source, s.settings.Driver = &bundle.DirSource{}, s.driver
	if restart {
		s.settings.Restart = s.settings.Nginx.(*mirror.ExecNginx)
	}
	s.mirror, err = mirror.New(s.settings)
	require.NoError(t, err)
	id, err := s.mirror.Stage(t.Context(), bundleOf(t, first))
	require.NoError(t, err)
	require.NoError(t, s.mirror.Switch(id))
	out, err := exec.CommandContext(t.Context(), path, "-p", dir, "-c",
		filepath.Join(s.dir, "current", "nginx.conf"), "-e",
		filepath.Join(dir, "error.log")).CombinedOutput()
	require.NoError(t, err, string(out))
	t.Cleanup(func() { // the new Nginx and the old one, whichever are there
		nginxtest.Poll(t, "nginx ends", func() (err error) {
			for _, name := range []string{pid + ".oldbin", pid} {
				text, _ := os.ReadFile(name)
				master, atoiErr := strconv.Atoi(strings.TrimSpace(string(text)))
				if atoiErr == nil && master > 1 && syscall.Kill(master, syscall.SIGTERM) == nil {
					err = fmt.Errorf("process %d is there", master)
				}
			}
			return err
		})
	})
	nginxtest.Poll(t, "workers report", func() error {
		state, err := s.driver.State(t.Context())
		if err == nil && !state.Runs(id) {
			err = fmt.Errorf("%+v", state)
		}
		return err
	})
	return s
}

// A change that a reload cannot carry over is reported, and Nginx stays on the tree before.
func TestSyncSaysThatARestartIsNeeded(t *testing.T) {
	t.Parallel()
	s := daemon(t, false, limited("limit_req_zone $arg_b zone=b:1m rate=100r/s;", "return 201;"))
	err := s.mirror.Sync(t.Context(), bundleOf(t, limited("limit_req_zone $host zone=b:1m "+
		"rate=100r/s;", "return 202;")))
	require.ErrorIs(t, err, mirror.ErrNeedsRestart)
	require.Contains(t, s.mirror.Status().Restart, `limit_req "b" uses the`)
	require.Equal(t, 201, s.status(t, "/"))
	require.NoError(t, s.mirror.Sync(t.Context(),
		bundleOf(t, limited("limit_req_zone $arg_b zone=b:1m rate=100r/s;", "return 203;"))))
	require.Equal(t, 203, s.status(t, "/"))
	require.Empty(t, s.mirror.Status().Restart)
}

// Where the mirror may, it puts a new Nginx in the place of the old one: no request is lost, the
// routes are there, and reloads go on.
func TestSyncRestartsNginx(t *testing.T) {
	t.Parallel()
	held, release := make(chan struct{}), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			close(held)
			<-release
		}
		fmt.Fprint(w, "v1")
	}))
	t.Cleanup(backend.Close)
	s := daemon(t, true, limited("limit_req_zone $arg_b zone=b:1m rate=100r/s;",
		"proxy_pass http://a;"))
	routes := nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
			netip.MustParseAddrPort(backend.Listener.Addr().String()))},
	})
	text, err := routes.MarshalText()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.cfg.StateFile, text, 0o644)) // as the agent does
	require.NoError(t, s.driver.Apply(t.Context(), routes.All()))
	answered := make(chan int, 1)
	go func() {
		status, _, _, _ := nginxtest.Get(t.Context(), netip.AddrPortFrom(plain, uint16(s.port)),
			"x", "/held")
		answered <- status
	}()
	<-held
	require.NoError(t, s.mirror.Sync(t.Context(),
		bundleOf(t, limited("limit_req_zone $host zone=b:1m rate=100r/s;",
			"add_header X-New yes; proxy_pass http://a;"))))
	s.answers(t, plain, "v1")
	require.Empty(t, s.mirror.Status().Restart)
	close(release)
	require.Equal(t, 200, <-answered, "the old Nginx finishes its requests")
	require.NoError(t, s.mirror.Sync(t.Context(),
		bundleOf(t, limited("limit_req_zone $host zone=b:1m rate=100r/s;", "return 204;"))))
	require.Equal(t, 204, s.status(t, "/"))
}

// A new Nginx that does not come up leaves the old one as it is.
func TestRestartThatFails(t *testing.T) {
	t.Parallel()
	s := daemon(t, true, limited("limit_req_zone $arg_b zone=b:1m rate=100r/s;", "return 201;"))
	hold := filepath.Join(s.dir, "hold") // a pipe that holds the workers up, and takes no time
	require.NoError(t, syscall.Mkfifo(hold, 0o666))
	files := limited(fmt.Sprintf("limit_req_zone $host zone=b:1m rate=100r/s; "+
		"init_worker_by_lua_block { io.open(%q) }", hold), "return 202;")
	settings := s.settings
	settings.VerifyTimeout = 10 * time.Second // the way back has as long, on a busy machine
	settings.Rules.TrustCode = true
	m, err := mirror.New(settings)
	require.NoError(t, err)
	err = m.Sync(t.Context(), bundleOf(t, files))
	require.ErrorContains(t, err, "restart: upgrade: no new nginx with workers")
	require.ErrorContains(t, err, "back on ")
	require.Equal(t, 201, s.status(t, "/"))
	require.Equal(t, 201, s.status(t, "/"))
}

// An Nginx that a supervisor looks after is replaced in the same way: the supervisor takes the new
// one for the one that it keeps, and starts no other.
func TestSyncRestartsNginxOfASupervisor(t *testing.T) {
	t.Parallel()
	program := testbed.NeedProgram(t, "nginx", "nginx")
	dir := nginxtest.Dir(t)
	s := &synced{port: nginxtest.Port(t), dir: filepath.Join(dir, "trees")}
	require.NoError(t, os.Mkdir(s.dir, 0o755))
	pid, log := filepath.Join(dir, "nginx.pid"), filepath.Join(dir, "error.log")
	s.cfg = luadriver.SnippetConfig{Socket: filepath.Join(dir, "admin.sock"), Memory: 1 << 20}
	var err error
	s.driver, err = luadriver.New(luadriver.Config{Socket: s.cfg.Socket})
	require.NoError(t, err)
	s.settings = syncSettings(s.dir, dir, pid, s.cfg.Socket, s.port, 1)
	s.settings.Rules.Snippets = luadriver.Snippets(s.cfg)
	s.settings.Rules.Main["daemon"] = "" // production's own Nginx runs in the foreground
	s.settings.Source, s.settings.Driver = &bundle.DirSource{}, s.driver
	s.settings.Restart = s.settings.Nginx.(*mirror.ExecNginx)
	s.mirror, err = mirror.New(s.settings)
	require.NoError(t, err)
	files := func(zones, body string) map[string]string {
		tree := limited(zones, body)
		tree["nginx.conf"] = "daemon off;\n" + tree["nginx.conf"]
		return tree
	}
	id, err := s.mirror.Stage(t.Context(), bundleOf(t, files(
		"limit_req_zone $arg_b zone=b:1m rate=100r/s;", "return 201;")))
	require.NoError(t, err)
	require.NoError(t, s.mirror.Switch(id))
	starts := make(chan error, 16)
	nginx, err := supervisor.New(supervisor.Config{Prefix: dir, Program: program, PIDFile: pid,
		Main: filepath.Join(s.dir, "current", "nginx.conf"), ErrorLog: log,
		CheckEvery: time.Millisecond,
		Before:     func() error { return luadriver.RemoveStaleSockets(s.cfg) },
		Observe: func(op string, _ time.Duration, err error) {
			if op == "start" {
				starts <- err
			}
		}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = nginx.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		require.NoError(t, nginx.Stop(context.Background()))
	})
	require.NoError(t, <-starts)
	s.synced(t, files("limit_req_zone $host zone=b:1m rate=100r/s;", "return 202;"), 202)
	s.synced(t, files("limit_req_zone $uri zone=b:1m rate=100r/s;", "return 203;"), 203)
	s.synced(t, files("limit_req_zone $uri zone=b:1m rate=100r/s;", "return 204;"), 204)
	require.Empty(t, starts, "the supervisor started another one")
	first, err := os.ReadFile(pid)
	require.NoError(t, err)
	master, err := strconv.Atoi(strings.TrimSpace(string(first)))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(master, syscall.SIGKILL))
	require.NoError(t, <-starts)
	require.Equal(t, 204, s.status(t, "/"))
}

// synced carries a tree over, and asks for the status that it answers with.
func (s *synced) synced(t *testing.T, files map[string]string, status int) {
	t.Helper()
	require.NoError(t, s.mirror.Sync(t.Context(), bundleOf(t, files)))
	require.Equal(t, status, s.status(t, "/"))
}

// In the foreground Nginx cannot be replaced: the error says so at once where its arguments do, and
// else when it takes no notice.
func TestRestartInTheForeground(t *testing.T) {
	t.Parallel()
	for _, arguments := range []bool{true, false} {
		dir := nginxtest.Dir(t)
		pid, main := filepath.Join(dir, "nginx.pid"), filepath.Join(dir, "nginx.conf")
		text := fmt.Sprintf("pid %s;\nworker_processes 1;\nevents {}\n", pid)
		var more []string
		if arguments {
			more = []string{"-g", "daemon off;"}
		} else {
			text += "daemon off;\n"
		}
		require.NoError(t, os.WriteFile(main, []byte(text), 0o600))
		cmd := exec.CommandContext(t.Context(), testbed.NeedProgram(t, "nginx", "nginx"),
			append([]string{"-p", dir, "-c", main, "-e", filepath.Join(dir, "error.log")},
				more...)...)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Wait() })
		n := &mirror.ExecNginx{Prefix: dir, PIDFile: pid, ErrorLog: filepath.Join(dir, "error.log")}
		nginxtest.Poll(t, "a worker runs", func() error {
			active, _, err := n.Workers()
			if err == nil && len(active) == 0 {
				err = errors.New("none")
			}
			return err
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if arguments {
			cancel() // it must not wait
			ctx = t.Context()
		}
		require.ErrorContains(t, n.Begin(ctx), "in the foreground (daemon off) nginx cannot")
		cancel()
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	}
}
