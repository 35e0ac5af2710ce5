//go:build linux

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

// CgroupRoot is where the hierarchies of cgroups are mounted.
const CgroupRoot = "/sys/fs/cgroup"

// hierarchies returns the directories that cgroups are made in: one for each controller in version
// 1, a single one in version 2. Where both are mounted, runc uses both.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(CgroupRoot + "/cgroup.controllers"); err == nil {
		return []string{CgroupRoot}, nil
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if (strings.HasPrefix(after, "cgroup ") || strings.HasPrefix(after, "cgroup2 ")) &&
			len(f) > 4 && within(f[4], CgroupRoot) {
			found = append(found, f[4])
		}
	}
	return found, nil
}

// MakeCgroup makes a cgroup, given as a path below the root of each hierarchy, with every
// controller that the hierarchy can delegate.
func MakeCgroup(name string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if controllers, err := os.ReadFile(root + "/cgroup.controllers"); err == nil {
			// pods need them, and do without one that the kernel refuses
			for _, c := range strings.Fields(string(controllers)) {
				_ = os.WriteFile(root+"/cgroup.subtree_control", []byte("+"+c), 0o644)
			}
		}
		if err := os.MkdirAll(root+name, 0o755); err != nil {
			return err
		}
		if controllers, err := os.ReadFile(root + name + "/cgroup.controllers"); err == nil {
			for _, c := range strings.Fields(string(controllers)) {
				_ = os.WriteFile(root+name+"/cgroup.subtree_control", []byte("+"+c), 0o644)
			}
			continue
		}
		// version 1 does not inherit them
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(root, file)); err == nil {
				if err := os.WriteFile(root+name+"/"+file, value, 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
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
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
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
			// 0 is a process of another PID namespace
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if err := os.Remove(group); err != nil {
			return err
		}
	}
	return nil
}
