package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// process starts a copy of this program in new namespaces; it waits there for its launch order on
// the returned pipe. Its output is appended to the file log.
func process(log *os.File) (pid int, order *os.File, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer read.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{initName, "wait"}
	cmd.ExtraFiles = []*os.File{read}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{} // nothing of ours is the instance's business
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Setsid: true}
	if uid := os.Geteuid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		_ = write.Close()
		if attr.Cloneflags&syscall.CLONE_NEWUSER != 0 && (errors.Is(err, syscall.EPERM) ||
			errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC) ||
			errors.Is(err, syscall.EINVAL)) {
			return 0, nil, fmt.Errorf("this kernel gives no user namespace to uid %d (%w): run "+
				"as root, or allow it "+
				"(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "+
				"kernel.apparmor_restrict_unprivileged_userns)", os.Geteuid(), err)
		}
		return 0, nil, fmt.Errorf("start: %w", err)
	}
	go cmd.Wait() // reaps it; it may well outlive this program
	return cmd.Process.Pid, write, nil
}

func send(order *os.File, l launch) error {
	return errors.Join(json.NewEncoder(order).Encode(l), order.Close())
}

// startTicks is field 22 of /proc/PID/stat (proc(5)); ok is false when there is no such process.
func startTicks(pid int) (ticks uint64, ok bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	_, rest, found := strings.Cut(string(data), ") ") // the name may hold spaces; field 3 follows
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return 0, false
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	return ticks, err == nil
}

// Alive reports whether the process of the instance lives.
//
// It asks a pidfd, not the state in /proc/PID/stat: while a program of several threads executes
// another, as envconfig executes the service, the state is that of its first thread, which may be
// dead already.
func (i Instance) Alive() bool {
	fd, err := unix.PidfdOpen(i.PID, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if ticks, ok := startTicks(i.PID); !ok || ticks != i.Ticks {
		return false
	}
	for {
		// readable when all threads have ended
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != unix.EINTR {
			return err == nil && n == 0
		}
	}
}
