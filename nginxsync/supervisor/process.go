package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Stop ends Nginx after the requests in progress, or at once when ctx is done. When it returns
// without an error no process of it is left.
func (s *Supervisor) Stop(ctx context.Context) (err error) {
	defer s.observe("stop", s.cfg.Now(), &err)
	asked := map[int]bool{}
	// a master ends after its workers; one that is killed leaves them
	for masters := s.masters(); len(masters) > 0 && ctx.Err() == nil; masters = s.masters() {
		for _, pid := range masters {
			if asked[pid] {
				continue
			}
			if err := signal(pid, syscall.SIGQUIT); err != nil {
				return fmt.Errorf("stop nginx: %w", err)
			}
			asked[pid] = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return s.kill(ctx)
}

// signal sends a signal to a process that may have ended.
func signal(pid int, sig syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(sig)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	return nil
}

// kill ends all processes of this Nginx at once, and waits until none is left and nothing listens
// any more.
func (s *Supervisor) kill(ctx context.Context) error {
	seen := []int{pidIn(s.cfg.PIDFile), pidIn(s.oldPIDFile())}
	for {
		pids := append(s.masters(), s.processes()...) // masters first: they would start workers
		for _, pid := range pids {
			if err := signal(pid, syscall.SIGKILL); err != nil {
				return fmt.Errorf("end nginx: %w", err)
			}
		}
		if seen = append(seen, pids...); len(pids) == 0 && !slices.ContainsFunc(seen, dying) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("end nginx: processes %v in %s go on: %w", pids, s.cfg.Prefix,
				context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
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

// master is the pid of a master of this Nginx, 0 when there is none.
func (s *Supervisor) master() int {
	if pid := s.masterIn(s.cfg.PIDFile); pid != 0 {
		return pid
	}
	if masters := s.masters(); len(masters) > 0 {
		return masters[0]
	}
	return 0
}

// masters are the masters of this Nginx: two during an upgrade of its program (USR2). Then the pid
// file is missing or empty for a moment, since Nginx renames it before it starts the new program;
// so the processes count too.
func (s *Supervisor) masters() (pids []int) {
	for _, file := range []string{s.cfg.PIDFile, s.oldPIDFile()} {
		if pid := s.masterIn(file); pid != 0 && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	for _, pid := range s.processes() {
		title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.HasPrefix(title, []byte("nginx: master process")) && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// oldPIDFile has the pid of the old master during an upgrade (NGX_OLDPID_EXT of Nginx).
func (s *Supervisor) oldPIDFile() string { return s.cfg.PIDFile + ".oldbin" }

// masterIn is the pid in the file when it is a master of this Nginx, else 0: it may be another
// process's by now.
func (s *Supervisor) masterIn(file string) int {
	pid := pidIn(file)
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(title, []byte(s.cfg.Prefix+"/")) {
		return 0
	}
	return pid
}

// pidIn is the pid in the file, 0 when it has none.
func pidIn(file string) int {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// processes are the master and the workers of this Nginx, also workers without a master: every
// Nginx that has the error log open, until the kernel has closed it.
func (s *Supervisor) processes() (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, proc := range procs {
		title, err := os.ReadFile(filepath.Join(proc, "cmdline"))
		// one that dies has no title any more
		if err != nil || len(title) > 0 && !bytes.HasPrefix(title, []byte("nginx: ")) {
			continue
		}
		open, _ := filepath.Glob(filepath.Join(proc, "fd/*"))
		for _, fd := range open {
			if target, err := os.Readlink(fd); err == nil && target == s.cfg.ErrorLog {
				pid, _ := strconv.Atoi(filepath.Base(proc)) // digits by the pattern
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// workers are the processes that take connections: one that is shutting down has another title.
func (s *Supervisor) workers() []int {
	return slices.DeleteFunc(s.processes(), func(pid int) bool {
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || strings.TrimRight(string(title), " \x00") != "nginx: worker process"
	})
}
