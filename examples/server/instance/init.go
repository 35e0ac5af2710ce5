package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initName is the argument by which the embedder's program knows that it is to become an instance.
const initName = "sluice-instance-init"

// launch is the order to the new process, as JSON on descriptor 3. A closed descriptor means that
// the Runtime died before it had written the instance down: the process ends then, so that no
// process runs without a record.
type launch struct {
	Root     string   `json:"root"`
	Dir      string   `json:"dir"`
	Args     []string `json:"args"`
	Env      []string `json:"env"`
	UID, GID int
}

// Init does nothing in an ordinary process. In a process that a Runtime started it sets up the
// namespaces and becomes the service; it does not return then. Call it first in main.
func Init() {
	if len(os.Args) != 2 || os.Args[0] != initName {
		return
	}
	fmt.Fprintln(os.Stderr, "instance:", become(os.NewFile(3, "launch")))
	os.Exit(125) // as docker does for its own errors
}

func become(pipe *os.File) error {
	var l launch
	if err := json.NewDecoder(pipe).Decode(&l); err != nil {
		return fmt.Errorf("no order to start: %w", err)
	}
	_ = pipe.Close()
	if err := enterRoot(l.Root); err != nil {
		return fmt.Errorf("enter %s: %w", l.Root, err)
	}
	if l.Dir == "" {
		l.Dir = "/"
	}
	if err := os.Chdir(l.Dir); err != nil {
		return err
	}
	if l.UID != 0 || l.GID != 0 {
		if err := errors.Join(syscall.Setgroups([]int{l.GID}), syscall.Setgid(l.GID),
			syscall.Setuid(l.UID)); err != nil {
			return fmt.Errorf("become user %d:%d: %w", l.UID, l.GID, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	path, err := lookPath(l.Args[0], l.Env)
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, l.Args, l.Env))
}

// enterRoot makes dir the root of this process's mount namespace, with /proc and the harmless
// devices in it. The image is not trusted: each mount point is opened through os.Root, so that no
// link in it leads to the machine's own files.
func enterRoot(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, device := range []string{"null", "zero", "full", "random", "urandom"} {
		if err := bindDevice(root, device); err != nil {
			return fmt.Errorf("/dev/%s: %w", device, err)
		}
	}
	if err := mountProc(root); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	// both on one path: pivot_root(2), "pivot_root(".", ".")"
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return unix.Unmount(".", unix.MNT_DETACH)
}

func bindDevice(root *os.Root, device string) error {
	if err := root.MkdirAll("dev", 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile("dev/"+device, os.O_CREATE|os.O_RDONLY, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Mount("/dev/"+device, opened(f), "", unix.MS_BIND, "")
}

func mountProc(root *os.Root) error {
	if err := root.MkdirAll("proc", 0o755); err != nil {
		return err
	}
	f, err := root.Open("proc")
	if err != nil {
		return err
	}
	defer f.Close()
	// Where part of the machine's own /proc is hidden the kernel refuses a new one to a user
	// namespace; a service can live without.
	err = unix.Mount("proc", opened(f), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// opened is a path to an open file that leads to no other file, even when its name changes.
func opened(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// lookPath is exec.LookPath by the PATH of the new environment.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range env {
		if value, found := strings.CutPrefix(kv, "PATH="); found {
			search = value
		}
	}
	for _, dir := range filepath.SplitList(search) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() &&
			info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", &exec.Error{Name: name, Err: fmt.Errorf("not in PATH %s: %w", search,
		fs.ErrNotExist)}
}
