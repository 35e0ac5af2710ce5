//go:build linux

package entry

import (
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// stat holds the fields of a process in /proc/PID/stat.
type stat struct {
	Process
	parent  int
	zombie  bool
	stopped bool   // by a signal of job control
	start   uint64 // in clock ticks since boot: with the PID it tells a process from a later one
}

// startField is the place of starttime among the fields after the name; see proc_pid_stat(5).
const startField = 19

// parseStat reads /proc/PID/stat: "12 (name) S 1 …". The name may hold spaces and brackets. A line
// that ends before starttime gives the start 0.
func parseStat(line string) (stat, bool) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return stat{}, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line[:open]))
	rest := strings.Fields(line[end+1:])
	if err != nil || len(rest) < 2 {
		return stat{}, false
	}
	parent, err := strconv.Atoi(rest[1])
	s := stat{
		Process: Process{pid, line[open+1 : end]}, parent: parent,
		zombie: rest[0] == "Z" || rest[0] == "X", stopped: rest[0] == "T",
	}
	if len(rest) > startField {
		s.start, _ = strconv.ParseUint(rest[startField], 10, 64)
	}
	return s, err == nil
}

// procIsOwn reports whether /proc shows the processes of this process's PID namespace. That of
// another, such as the host's, shows other processes under the numbers of these.
func procIsOwn() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
}

// stats lists the processes that /proc shows; none where there is no /proc of this PID namespace.
func stats() []stat {
	if !procIsOwn() {
		return nil
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var all []stat
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		line, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if s, ok := parseStat(string(line)); ok {
			all = append(all, s)
		}
	}
	return all
}

// First returns the process that runs first in this container: process 1, or, where the containers
// of a pod share their processes and process 1 is of none of them, the oldest one with the mounts
// of this process that was started from outside, but for the callers of this process. Where /proc
// does not show one it is process 1.
func First() int {
	mounts := func(pid int) string {
		namespace, _ := os.Readlink(procFile(pid, "ns/mnt"))
		return namespace
	}
	own := mounts(os.Getpid())
	if mounts(1) == own {
		return 1
	}
	all := stats()
	parents := map[int]int{}
	for _, s := range all {
		parents[s.PID] = s.parent
	}
	caller := os.Getpid() // up to the one that the runtime has started
	for parents[caller] > 0 {
		caller = parents[caller]
	}
	first := stat{Process: Process{PID: 1}}
	for _, s := range all {
		if s.parent == 0 && s.PID > 1 && s.PID != caller && mounts(s.PID) == own &&
			(first.PID == 1 || s.start < first.start) {
			first = s
		}
	}
	return first.PID
}

func processes() []Process {
	var out []Process
	for _, s := range stats() {
		if !s.zombie {
			out = append(out, s.Process)
		}
	}
	return out
}

// belowOf lists the children of a process, theirs, and so on, without zombies.
func belowOf(pid int) []stat {
	children := map[int][]stat{}
	for _, s := range stats() {
		children[s.parent] = append(children[s.parent], s)
	}
	var out []stat
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		for _, s := range children[queue[0]] {
			queue = append(queue, s.PID)
			if !s.zombie {
				out = append(out, s)
			}
		}
	}
	return out
}

// descendantsOf lists the children of a process, theirs, and so on.
func descendantsOf(pid int) []Process {
	var out []Process
	for _, s := range belowOf(pid) {
		out = append(out, s.Process)
	}
	return out
}

// procFile returns the path of a file of /proc/PID.
func procFile(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// commandLine returns the arguments of a process, its name first.
func commandLine(pid int) []string {
	data, err := os.ReadFile(procFile(pid, "cmdline"))
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

// programOf returns the name of the program that a process runs: of its binary, which for a script
// is the interpreter; for busybox and the like the name that it was called by. Where this user may
// not look, as root without CAP_SYS_PTRACE at another user's process, it is the name by which the
// process was started, or that it has given itself ("nginx: master process /usr/sbin/nginx").
func programOf(p Process) string {
	if !procIsOwn() {
		return p.Name
	}
	exe, err := os.Readlink(procFile(p.PID, "exe"))
	name := path.Base(strings.TrimSuffix(exe, " (deleted)"))
	if err == nil && name != "busybox" && name != "toybox" {
		return name
	}
	args := commandLine(p.PID)
	if len(args) == 0 {
		return p.Name
	}
	title, _, _ := strings.Cut(args[0], ": ")
	called := path.Base(strings.TrimPrefix(title, "-")) // a login shell has a dash
	if (called == "busybox" || called == "toybox") && len(args) > 1 {
		called = args[1]
	}
	return called
}

// dispositions are the signals that a process catches, ignores and blocks, a bit for each. They
// are zero where they are not known. The blocked ones are those of its first thread.
type dispositions struct {
	caught, ignored, blocked uint64
	known                    bool
}

func dispositionsOf(pid int) dispositions {
	data, err := os.ReadFile(procFile(pid, "status"))
	if err != nil {
		return dispositions{}
	}
	return parseDispositions(string(data))
}

// parseDispositions reads the lines SigBlk, SigIgn and SigCgt of /proc/PID/status.
func parseDispositions(status string) (d dispositions) {
	for line := range strings.Lines(status) {
		name, mask, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "SigBlk":
			d.blocked, _ = strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		case "SigIgn":
			d.ignored, _ = strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
		case "SigCgt":
			var err error
			d.caught, err = strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			d.known = err == nil
		}
	}
	return d
}

func (d dispositions) catches(s syscall.Signal) bool { return d.caught&(1<<(s-1)) != 0 }
func (d dispositions) ignores(s syscall.Signal) bool { return d.ignored&(1<<(s-1)) != 0 }
func (d dispositions) blocks(s syscall.Signal) bool  { return d.blocked&(1<<(s-1)) != 0 }

// inWait reports whether the first thread of a process sleeps until a child ends.
func inWait(pid int) bool {
	call, err := os.ReadFile(procFile(pid, "syscall"))
	number, _, _ := strings.Cut(string(call), " ")
	return err == nil && (number == wait4 || number == waitid)
}
