package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// undoFolder removes a folder that was not there before. What is in it stays when somebody else's containerd or kubelet has
// moved in meanwhile.
func undoFolder(dir string) error {
	for _, theirs := range []string{containerdRun + "/containerd.sock", kubeletDir + "/config.yaml", kubeletDir + "/pods"} {
		if _, err := os.Lstat(theirs); err == nil {
			return removeEmpty(dir)
		}
	}
	switch dir {
	case containerdRun, kubeletDir:
		return unmountAndRemove(dir)
	case cniDir: // other engines use it, too
		return errors.Join(undoCNI("cni-loopback"), removeEmpty(dir))
	}
	return removeEmpty(dir)
}

// removeEmpty removes a folder as far as there are no files in it.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeEmpty(filepath.Join(dir, e.Name())))
		}
	}
	if err := os.Remove(dir); !errors.Is(err, syscall.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// undoSysctl puts a kernel setting, given as name=value, back.
func undoSysctl(setting string) error {
	name, value, _ := strings.Cut(setting, "=")
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
}

// undoLogs removes the links that the kubelet makes to the logs of containers.
func undoLogs(dir string) error {
	links, err := filepath.Glob(containerLogs + "/*")
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && within(target, dir) {
			errs = append(errs, os.Remove(link))
		}
	}
	return errors.Join(errs...)
}

// undoCNI removes what the library of the network plugins remembers of a network.
func undoCNI(network string) error {
	results, err := filepath.Glob(cniDir + "/results/" + network + "-*")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range results {
		errs = append(errs, os.Remove(name))
	}
	return errors.Join(errs...)
}

// undoShims removes the sockets of the processes that held containers, which are named in containerd's folder of state.
func undoShims(state string) error {
	names, err := filepath.Glob(state + "/*/*/*/address")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		text, err := os.ReadFile(name)
		if socket, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "unix://"); ok {
			if err = os.Remove(socket); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// undoCgroup ends the processes of a cgroup and removes it with those in it, from every hierarchy.
func undoCgroup(name string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		errs = append(errs, removeCgroup(root+name))
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := emptyCgroup(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s: %w", dir, err)
		}
	}
}

func emptyCgroup(dir string) error {
	var groups []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, group := range slices.Backward(groups) { // the inner ones first
		text, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 { // 0 is a process of another PID namespace
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if err := os.Remove(group); err != nil {
			return err
		}
	}
	return nil
}
