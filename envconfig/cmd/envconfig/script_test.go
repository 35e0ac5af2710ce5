//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv("SLUICE_TEST_APP"); mode != "" {
		apps[mode](os.Args[1:])
		os.Exit(0)
	}
	testscript.Main(m, map[string]func(){"envconfig": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": code,
			"build": func(ts *testscript.TestScript, neg bool, args []string) {
				install(ts, args[0])
			},
			"image":    image,
			"readonly": readonly,
		}})
}

// code runs a command and holds its exit code to the first argument.
func code(ts *testscript.TestScript, neg bool, args []string) {
	want, args := args[0], args[1:]
	err := ts.Exec(args[0], args[1:]...)
	got := "0"
	if exit, ok := err.(*exec.ExitError); ok {
		got = strconv.Itoa(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %s, want %s: %v", got, want, args)
	}
}

var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "envconfig-binary-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "envconfig")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", name, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return name, cmd.Run()
})

// install puts the static binary into a directory of the script.
func install(ts *testscript.TestScript, name string) {
	from, err := binary()
	ts.Check(err)
	data, err := os.ReadFile(from)
	ts.Check(err)
	name = ts.MkAbs(name)
	ts.Check(os.MkdirAll(filepath.Dir(name), 0o755))
	ts.Check(writeProgram(name, data))
}

// writeProgram writes a file that is executed next. A child that another test forks meanwhile would
// hold it open for writing, and the kernel refuse to execute it: text file busy.
func writeProgram(name string, data []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(name, data, 0o755)
}

// image runs a command as process 1 of a container without anything but the given directory: no
// /tmp, /etc/passwd or /proc.
func image(ts *testscript.TestScript, neg bool, args []string) {
	want, root, args := args[0], ts.MkAbs(args[1]), args[2:]
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/bin", "DEPLOY_ENV=" + ts.Getenv("DEPLOY_ENV")}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root,
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	err := cmd.Run()
	got := "0"
	if exit, ok := err.(*exec.ExitError); ok {
		got = strconv.Itoa(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %s, want %s", got, want)
	}
}

// readonly runs a command as user 999 in an image whose root is read-only but for a tmpfs on
// /run/envconfig.
func readonly(ts *testscript.TestScript, neg bool, args []string) {
	want, root, args := args[0], ts.MkAbs(args[1]), args[2:]
	options, mounted, user := "-mp", "uid=999", "--userspec=999:999"
	if os.Getuid() != 0 {
		options, mounted, user = "-rmp", "mode=755", "--userspec=0:0"
	}
	ts.Check(os.MkdirAll(filepath.Join(root, "run/envconfig"), 0o755))
	script := `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t tmpfs -o ` + mounted + ` none "$0/run/envconfig" &&
		exec chroot ` + user + ` "$0" "$@"`
	cmd := exec.Command("unshare", append([]string{options, "--fork", "sh", "-c", script, root},
		args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEPLOY_ENV=" +
		ts.Getenv("DEPLOY_ENV")}
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	if err := cmd.Run(); cmd.ProcessState == nil {
		ts.Fatalf("%v", err)
	}
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != want {
		ts.Fatalf("exit code %s, want %s", got, want)
	}
}
