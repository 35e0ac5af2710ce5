//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

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

// The machine loses its power: Nginx and the agent end at once, and the state file is not the one
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

// The disk of the state file is full: routes are served all the same, the status shows that they
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
