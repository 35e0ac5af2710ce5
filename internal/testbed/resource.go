//go:build linux

package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// resourcesFile is the file in an owner's directory that names the things made outside it, "kind
// name" a line, each written before the thing is made.
const resourcesFile = "resources"

// undoers remove the recorded things, by kind. A thing that does not exist counts as removed.
var undoers = map[string]func(name string) error{
	"link":      deleteLink,
	"netns":     deleteNetns,
	"directory": undoDirectory,
	"cgroup":    undoCgroup,
	"sysctl":    undoSysctl,
	"logs":      undoLogs,
	"cni":       undoCNI,
	"shims":     undoShims,
}

// Record notes that something outside the owner's directory is about to be made, to be undone at
// the end of the owner in any case.
func (o *Owner) Record(kind, name string) error {
	if undoers[kind] == nil || strings.ContainsAny(name, " \n") {
		return fmt.Errorf("record %s %q: unknown kind or bad name", kind, name)
	}
	f, err := os.OpenFile(filepath.Join(o.Dir, resourcesFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND,
		0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, kind, name)
	return errors.Join(err, f.Close())
}

// Claim records something that belongs to a test and undoes it when the test has ended.
func (o *Owner) Claim(t testing.TB, kind, name string) error {
	if err := o.Record(kind, name); err != nil {
		return err
	}
	t.Cleanup(func() {
		if err := undoers[kind](name); err != nil {
			t.Errorf("remove %s %s: %v", kind, name, err)
		}
	})
	return nil
}

// remove empties a directory and removes it. It stays when something in it did not go, for the next
// test binary to try again.
func remove(dir string) error {
	if err := empty(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// empty ends the processes of a directory, undoes its records, latest first, unmounts every mount
// in it, and removes its content.
func empty(dir string) error {
	if err := KillAll(dir); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, resourcesFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	var errs []error
	for _, line := range slices.Backward(strings.Split(string(text), "\n")) {
		kind, name, _ := strings.Cut(line, " ")
		if undo := undoers[kind]; undo != nil {
			if err := undo(name); err != nil {
				errs = append(errs, fmt.Errorf("remove %s %s: %w", kind, name, err))
			}
		}
	}
	if err := errors.Join(append(errs, unmount(dir))...); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	errs = []error{err}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// unmountAndRemove removes a directory. It stays when something is still mounted in it.
func unmountAndRemove(dir string) error {
	if err := unmount(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// unmount unmounts every mount in a directory, so that its removal never reaches files of others.
func unmount(dir string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	// later ones lie on earlier ones
	for _, line := range slices.Backward(strings.Split(string(text), "\n")) {
		if f := strings.Fields(line); len(f) > 4 && within(unescape(f[4]), dir) {
			errs = append(errs, unix.Unmount(unescape(f[4]), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
	}
	return errors.Join(errs...)
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

func deleteLink(name string) error {
	if _, err := os.Lstat("/sys/class/net/" + name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return Run("", "ip", "link", "delete", name)
}

// NetnsDir is where ip keeps its network namespaces.
const NetnsDir = "/run/netns/"

func deleteNetns(name string) error {
	if _, err := os.Lstat(NetnsDir + name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return Run("", "ip", "netns", "delete", name)
}

// Run runs a command that belongs to the owner; its output is a part of the error.
func (o *Owner) Run(name string, args ...string) error { return Run(o.Dir, name, args...) }

func Run(mark, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), MarkKey+"="+mark)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
