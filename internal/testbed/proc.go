//go:build linux

package testbed

import (
	"bytes"
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

	"golang.org/x/sys/unix"
)

// MarkKey is the variable in the environment of every process that was started here. It names the
// process's directory, and all its descendants inherit it.
const MarkKey = "SLUICE_TESTBED_OWNER"

// stat holds the kernel's facts about a process.
type stat struct {
	pid, group int
	state      byte
	// clock ticks since the machine has booted: with the pid it names one process until the next boot
	start uint64
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The second field is the name in parentheses, which may hold anything.
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	s := stat{pid: pid, state: f[0][0]}
	s.group, _ = strconv.Atoi(f[2])
	s.start, _ = strconv.ParseUint(f[19], 10, 64)
	return s, nil
}

// Processes returns the processes that belong to a directory: those with its mark, and those of a
// process group that was started for it which have a file of it open, for some programs write over
// their environment. To look at the directory is no crime: a shell in it, or a pager on a log, does
// not belong.
func Processes(dir string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	groups, err := readGroups(dir)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() &&
			belongs(pid, dir, groups) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func belongs(pid int, dir string, groups []int) bool {
	s, err := readStat(pid)
	if err != nil || s.state == 'Z' || s.state == 'X' {
		return false
	}
	proc := fmt.Sprintf("/proc/%d", pid)
	environ, _ := os.ReadFile(proc + "/environ")
	for _, kv := range bytes.Split(environ, []byte{0}) {
		if mark, ok := strings.CutPrefix(string(kv), MarkKey+"="); ok && within(mark, dir) {
			return true
		}
	}
	if !slices.Contains(groups, s.group) {
		return false
	}
	fds, _ := filepath.Glob(proc + "/fd/*")
	return slices.ContainsFunc(append(fds, proc+"/cwd"), func(link string) bool {
		target, err := os.Readlink(link)
		return err == nil && within(target, dir)
	})
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// groupsFile is the file in a process's directory with the groups that were started for it, a
// number a line.
const groupsFile = "groups"

// readGroups reads the groups of a directory and of the directories in it and in those.
func readGroups(dir string) ([]int, error) {
	var groups []int
	for _, pattern := range []string{dir + "/" + groupsFile, dir + "/*/" + groupsFile,
		dir + "/*/*/" + groupsFile} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for _, f := range strings.Fields(string(text)) {
				if n, err := strconv.Atoi(f); err == nil {
					groups = append(groups, n)
				}
			}
		}
	}
	return groups, nil
}

// signal sends a signal to every process that belongs to a directory and returns how many there
// were.
func signal(dir string, sig syscall.Signal) (int, error) {
	pids, err := Processes(dir)
	if err != nil {
		return 0, err
	}
	groups, err := readGroups(dir)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) ||
			errors.Is(err, unix.ENOENT) {
			continue // it has ended; kernels differ where its number is still that of a group
		} else if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		if belongs(pid, dir, groups) { // still, now that it cannot become another one
			err = unix.PidfdSendSignal(fd, sig, nil, 0)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return 0, fmt.Errorf("signal %v to process %d: %w", sig, pid, err)
		}
	}
	return len(pids), nil
}

// KillAll ends every process that belongs to a directory, children that they start in between, too,
// and returns when none is left.
func KillAll(dir string) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		n, err := signal(dir, syscall.SIGKILL)
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d processes do not end", dir, n)
		}
	}
}
