package edge

import (
	"bytes"
	"context"
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

const pidFile = "nginx.pid"

// Stop ends the Nginx of the directory dir after the requests in progress, or at once when ctx is
// done. When it returns without an error no process of it is left.
func Stop(ctx context.Context, dir string) error {
	dir, err := realPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("edge: stop nginx: %w", err)
	}
	if pid := master(dir); pid != 0 {
		if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("edge: stop nginx: process %d: %w", pid, err)
		}
		// it ends after its workers; one that is killed leaves them
		for master(dir) == pid && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return kill(ctx, dir)
}

// kill ends all processes of the directory at once, and waits until none is left and nothing
// listens any more.
func kill(ctx context.Context, dir string) error {
	pids := processes(dir)
	if pid := master(dir); pid != 0 { // first: it would start other workers
		pids = append([]int{pid}, pids...)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("edge: end nginx: process %d: %w", pid, err)
		}
	}
	for pids = append(pids, lastMaster(dir)); len(processes(dir)) > 0 || master(dir) != 0 ||
		slices.ContainsFunc(pids, dying); {
		select {
		case <-ctx.Done():
			return fmt.Errorf("edge: processes %v of nginx in %s go on: %w", processes(dir), dir,
				context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// dying reports whether the process is about to end: it has no title and no files to be seen any
// more, and the kernel may not have closed its sockets yet.
func dying(pid int) bool {
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(title) > 0 {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	state := bytes.TrimSpace(stat[bytes.LastIndexByte(stat, ')')+1:])
	return err == nil && !bytes.HasPrefix(state, []byte("Z")) &&
		!bytes.HasPrefix(state, []byte("X"))
}

// realPath is dir as the kernel names it.
func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// master is the pid of the Nginx of this directory, 0 when there is none: a pid in a file may be
// another process's by now.
func master(dir string) int {
	pid := lastMaster(dir)
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(title, []byte(dir+"/")) {
		return 0
	}
	return pid
}

// lastMaster is the pid in the pid file, 0 when it has none.
func lastMaster(dir string) int {
	data, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// processes are the master and the workers of this directory, also workers without a master: every
// Nginx that has the directory's error log open, until the kernel has closed it.
func processes(dir string) (pids []int) {
	log := filepath.Join(dir, "logs/error.log")
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, proc := range procs {
		title, err := os.ReadFile(filepath.Join(proc, "cmdline"))
		// one that dies has no title any more
		if err != nil || len(title) > 0 && !bytes.HasPrefix(title, []byte("nginx: ")) {
			continue
		}
		open, _ := filepath.Glob(filepath.Join(proc, "fd/*"))
		for _, fd := range open {
			if target, err := os.Readlink(fd); err == nil && target == log {
				pid, _ := strconv.Atoi(filepath.Base(proc)) // digits by the pattern
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}
