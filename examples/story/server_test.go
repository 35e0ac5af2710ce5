package story_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/examples/story"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// binaries builds the server and envconfig, once, as `make binaries` makes them, and returns their
// directory, which the sweeper removes.
var binaries = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "sluice-story-test-*"); err != nil {
		return "", err
	}
	for name, path := range map[string]string{"server": "../server",
		"envconfig": "github.com/sluice-deploy/sluice/envconfig/cmd/envconfig"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), path)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("go build %s: %w: %s", path, err, out)
		}
	}
	return dir, nil
})

// server is an example server that runs as a process of its own, on a directory and ports of its
// own.
type server struct {
	t         *testing.T
	programs  string // from binaries
	dir, url  string
	args      []string
	cmd       *exec.Cmd
	nginxPort string
}

// newServer starts a server. At the end of the test nothing of it runs.
func newServer(t *testing.T, pool string) *server {
	t.Helper()
	listen := "127.0.0.1:" + port(t)
	programs, err := binaries()
	if programs != "" {
		servertest.Sweep(t, programs)
	}
	require.NoError(t, err)
	s := &server{t: t, programs: programs, dir: t.TempDir(), url: "http://" + listen,
		nginxPort: port(t)}
	s.args = []string{"-data", s.dir, "-listen", listen, "-registry", "127.0.0.1:" + port(t),
		"-nginx-port", s.nginxPort, "-nginx-tls-port", port(t), "-pool", pool, "-door", servertest.Doors.Ports,
		"-door-shared", servertest.Doors.Shared}
	servertest.Sweep(t, s.dir)
	t.Cleanup(s.end)
	s.start()
	return s
}

func (s *server) start() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY,
		0o644)
	require.NoError(s.t, err)
	defer log.Close()
	s.cmd = exec.Command(filepath.Join(s.programs, "server"), s.args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	require.NoError(s.t, s.cmd.Start())
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	require.NoError(s.t, story.WaitReady(ctx, s.url), "see the server's log")
}

// kill ends the server as a crash does.
func (s *server) kill() {
	require.NoError(s.t, s.cmd.Process.Kill())
	_ = s.cmd.Wait() // "signal: killed"
	s.cmd = nil
}

// end ends the server as an operator does, and the remains of a killed one, and checks that nothing
// is left.
func (s *server) end() {
	defer func() {
		if s.t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "server.log"))
			s.t.Logf("the server's log:\n%s", log)
		}
	}()
	if s.cmd != nil {
		require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(s.t, s.cmd.Wait())
		require.Empty(s.t, processes(s.dir), "the server has ended everything that it started")
	}
	out, err := exec.Command(filepath.Join(s.programs, "server"), "-data", s.dir,
		"-stop").CombinedOutput()
	require.NoError(s.t, err, string(out))
	require.Empty(s.t, processes(s.dir))
}

// call asks the API.
func (s *server) call(method, path string, in, out any) error {
	body := &bytes.Buffer{}
	switch in := in.(type) {
	case nil:
	case *bytes.Buffer:
		body = in
	default:
		if err := json.NewEncoder(body).Encode(in); err != nil {
			return err
		}
	}
	// the kill ends it
	request, err := http.NewRequestWithContext(context.Background(), method, s.url+"/api/v1"+path,
		body)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// get asks for something that must be there.
func get[T any](s *server, path string) (out T) {
	s.t.Helper()
	require.NoError(s.t, s.call(http.MethodGet, path, nil, &out))
	return out
}

// processes returns the processes that have a file below dir open, by pid: instances and Nginx
// write their logs there.
func processes(dir string) map[int]string {
	found := map[int]string{}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well formed
	for _, fd := range fds {
		pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, dir+"/") &&
			pid != os.Getpid() {
			found[pid] = target
		}
	}
	return found
}

// parent is the pid of a process's parent, or 0.
func parent(pid int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // it may have ended meanwhile
	_, rest, _ := strings.Cut(string(data), ") ")             // the name may hold spaces
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(fields[1])
	return n
}

// port is a port that no other test binary takes until the test has ended.
func port(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(testbed.Port(t))
}

type entry struct {
	At, Seq                                       uint64
	Kind, Op, Cluster, Environment, Task, Version string
	Digest, Actor, Error                          string
}

type lease struct {
	Task, VIP, State string
	Clusters         []struct{ Cluster, Version, Digest string }
	Instances        []struct{ ID, Version, Digest string }
}

type runningInstance struct {
	ID, Cluster, Environment, Task, Version, Digest string
	PID                                             int
}

type version struct{ Cluster, Version, Digest, Actor string }

type build struct{ ID, Cluster, Version, State, Error, Digest string }

type environments struct {
	Clusters []struct {
		Cluster     string
		Deployments map[string][]struct{ Task, Version, Digest string }
	}
}

// state is the data that a server has acknowledged.
type state struct {
	versions     []version
	journal      []entry
	leases       []lease
	environments environments
}

func (s *server) state() state {
	s.t.Helper()
	return state{get[[]version](s, "/versions"), get[[]entry](s, "/journal?limit=1000"),
		get[[]lease](s, "/tasks"), get[environments](s, "/environments")}
}

// inOrder checks everything that must hold after a start, at whichever step the server was cut off.
func (s *server) inOrder() {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		return !slices.ContainsFunc(get[[]build](s, "/builds"), func(b build) bool {
			return b.State != "succeeded" && b.State != "failed"
		})
	}, time.Minute, 20*time.Millisecond, "every build comes to an end")

	now := s.state()
	open := map[[3]string]bool{}
	last := map[string]uint64{} // of a cluster's entries
	for n, e := range now.journal {
		require.EqualValues(s.t, n+1, e.At)
		require.Equal(s.t, last[e.Cluster]+1, e.Seq, e.Cluster)
		last[e.Cluster] = e.Seq
		switch target := [3]string{e.Cluster, e.Environment, e.Task}; e.Kind {
		case "started", "resumed", "restoring":
			open[target] = true
		case "succeeded", "failed":
			delete(open, target)
		}
	}
	require.Empty(s.t, open, "every change has come to an end")

	deployed := map[string]string{}
	for _, c := range now.environments.Clusters {
		for environment, list := range c.Deployments {
			for _, d := range list {
				deployed[c.Cluster+" "+environment+" "+d.Task] = d.Digest
			}
		}
	}
	vips, tasks := map[string]string{}, map[string]bool{}
	for _, l := range now.leases {
		require.NotContains(s.t, vips, l.VIP, "a VIP is given once")
		vips[l.VIP] = l.Task
		if l.State != "leased" {
			continue
		}
		require.False(s.t, tasks[l.Task], "a task has one VIP")
		tasks[l.Task] = true
		for _, c := range l.Clusters {
			require.Contains(s.t, deployed, c.Cluster+" test "+l.Task, "a VIP is leased for what "+
				"is deployed")
		}
	}
	testbed.Poll(s.t, "exactly the instances of the deployments run", func() error {
		return s.settled(deployed)
	})
	for target := range deployed {
		if task := strings.Split(target, " ")[2]; task != "" {
			require.True(s.t, tasks[task], "what is deployed for task %s has a VIP", task)
		}
	}
}

// settled returns why not exactly the instances run that are deployed, and no process besides them,
// Nginx and the server.
func (s *server) settled(deployed map[string]string) error {
	serving, instances, pids := map[string]int{}, map[int]bool{},
		map[int]bool{s.cmd.Process.Pid: true}
	for _, i := range get[[]runningInstance](s, "/instances") {
		target := i.Cluster + " " + i.Environment + " " + i.Task
		if deployed[target] != i.Digest {
			return fmt.Errorf("instance %s of %q has %s, deployed is %s", i.ID, target, i.Digest,
				deployed[target])
		}
		serving[target]++
		pids[i.PID], instances[i.PID] = true, true // envconfig, in front of the service
	}
	for target := range deployed {
		want := 1
		if strings.Contains(target, " stable ") {
			want = 2
		}
		if serving[target] != want {
			return fmt.Errorf("%q has %d instances, want %d", target, serving[target], want)
		}
	}
	for pid, file := range processes(s.dir) {
		if !pids[pid] && !instances[parent(pid)] && !strings.HasPrefix(file, s.dir+"/nginx/") {
			return fmt.Errorf("process %d, which nobody knows, has %s open", pid, file)
		}
	}
	directories, err := os.ReadDir(filepath.Join(s.dir, "instances"))
	if err == nil && len(directories) != len(pids)-1 {
		err = fmt.Errorf("%d directories of instances, want %d", len(directories), len(pids)-1)
	}
	return err
}
