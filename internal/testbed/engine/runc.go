//go:build linux

package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// runtime is runc.
type runtime struct {
	path, state, cgroup string
}

// containers counts the containers of this test binary, which share a cgroup.
var containers atomic.Int64

// Runc returns the engine of runc, driven as containerd and CRI-O do: kill with the stop signal,
// then kill with KILL. crun is no alternative here: Debian 12's refuses machines with cgroups of
// both versions.
func Runc(t testing.TB) Engine {
	t.Helper()
	testbed.NeedRoot(t, "containers")
	return &runtime{path: testbed.NeedProgram(t, "runc", "runc"),
		state: testbed.Own(t).TestDir(t, "runc"), cgroup: cgroup(t, "runc")}
}

type object = map[string]any

func newID() string { return fmt.Sprintf("c%d", containers.Add(1)) }

func (r *runtime) Run(t testing.TB, s Spec) *Container {
	t.Helper()
	id := newID()
	bundle := testbed.Own(t).TestDir(t, "bundle")
	if err := skeleton(filepath.Join(bundle, "rootfs")); err != nil {
		t.Fatal(err)
	}
	return r.start(t, id, bundle, r.config(id, s), s.Signal)
}

// start runs a bundle, whose root is in its directory, with a configuration. The default of signal
// is TERM.
func (r *runtime) start(t testing.TB, id, bundle string, config object, signal string) *Container {
	t.Helper()
	text, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if signal == "" {
		signal = "TERM"
	}
	var out output
	call := func(args ...string) *exec.Cmd {
		return exec.Command(r.path, append([]string{"--root", r.state}, args...)...)
	}
	run := call("run", "--bundle", bundle, id)
	run.Stdout, run.Stderr, run.WaitDelay = &out, &out, time.Minute
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = run.Wait()
	}()
	t.Cleanup(func() {
		_ = call("delete", "--force", id).Run()
		<-ended
	})
	kill := func(signal string) error {
		if said, err := call("kill", id, signal).CombinedOutput(); err != nil {
			select {
			case <-ended: // by itself
			default:
				return fmt.Errorf("kill %s %s: %w: %s", id, signal, err, said)
			}
		}
		return nil
	}
	execute := func(args ...string) ([]byte, error) {
		return call(append([]string{"exec", id}, args...)...).CombinedOutput()
	}
	return &Container{Output: out.String, Exec: execute, Stop: func(grace time.Duration) (int,
		error) {
		if err := kill(signal); err != nil {
			return 0, err
		}
		select {
		case <-ended:
		case <-time.After(grace):
			if err := kill("KILL"); err != nil {
				return 0, err
			}
			<-ended
		}
		return run.ProcessState.ExitCode(), nil
	}}
}

// capabilities are the ones that Docker and containerd give a container by default.
var capabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER",
	"CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// config is the configuration of the runtime specification of the Open Container Initiative, 1.0.
func (r *runtime) config(id string, s Spec) object {
	mount := func(to, kind, from string, options ...string) object {
		return object{"destination": to, "type": kind, "source": from, "options": options}
	}
	mounts := []object{
		mount("/proc", "proc", "proc"),
		mount("/dev", "tmpfs", "tmpfs", "nosuid", "mode=755"),
		mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
		mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777"),
		mount("/run", "tmpfs", "tmpfs", "nosuid", "mode=755"),
	}
	read, empty := Mounts()
	for _, dir := range read {
		mounts = append(mounts, mount(dir, "bind", dir, "rbind", "ro"))
	}
	for _, dir := range empty {
		mounts = append(mounts, mount(dir, "tmpfs", "tmpfs", "mode=755"))
	}
	for _, dir := range s.Dirs {
		mounts = append(mounts, mount(dir, "bind", dir, "rbind", "rw"))
	}
	return object{
		"ociVersion": "1.0.2",
		"process": object{
			"user": object{"uid": 0, "gid": 0}, "cwd": "/",
			"args": []string{"/bin/sh", "-c", s.Line},
			"env":  append([]string{searchPath}, s.Env...),
			"capabilities": object{"bounding": capabilities, "effective": capabilities,
				"permitted": capabilities},
		},
		"root":   object{"path": "rootfs"},
		"mounts": mounts,
		"linux": object{
			"cgroupsPath": r.cgroup + "/" + id,
			"namespaces": []object{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"},
				{"type": "uts"}},
			"resources": object{"devices": []object{{"allow": true, "access": "rwm"}}},
		},
	}
}
