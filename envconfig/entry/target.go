//go:build linux

package entry

import (
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"syscall"
)

// shells run other programs and, unless a trap says otherwise, drop SIGTERM as process 1 and do not
// pass it on.
var shells = []string{
	"sh", "bash", "rbash", "dash", "ash", "zsh", "ksh", "ksh93", "mksh", "lksh", "yash", "posh",
}

// wrappers start one program and wait for it. They end with it, so they need no signal; some, such
// as su, kill it soon after they got one. Wrappers that become the program are here for the moment
// before they do.
var wrappers = []string{
	"env", "nice", "ionice", "chrt", "taskset", "numactl", "setpriv", "chroot", "gosu", "su-exec",
	"setuidgid", "chpst", "stdbuf", "nohup", "prlimit", "choom", "setarch", "linux64",
	"su", "runuser", "sudo", "doas", "setsid", "flock", "unshare", "nsenter", "time", "timeout",
	"script", "catchsegv", "strace", "ltrace",
}

// followers wait for something that never ends of itself, and have no work to finish.
var followers = []string{"tail", "sleep", "inotifywait"}

// schedulers die of SIGTERM and leave their jobs, which end by themselves.
var schedulers = []string{"cron", "crond", "atd", "fcron", "anacron"}

// target is a process that a signal goes to.
type target struct {
	stat
	program string
	// ends: a shell without a handler, which is to die of a stopping signal before it goes on to
	// its next command.
	ends bool
}

// view is the process table at one moment.
type view struct {
	children map[int][]stat // oldest first; zombies are left out
	programs map[int]string
	// given returns the signal for a process that runs program.
	given func(program string) syscall.Signal
}

func newView(given func(program string) syscall.Signal) *view {
	v := &view{children: map[int][]stat{}, programs: map[int]string{}, given: given}
	for _, s := range stats() {
		if !s.zombie {
			v.children[s.parent] = append(v.children[s.parent], s)
		}
	}
	for _, all := range v.children {
		// Package sort is one function for all types; slices.SortFunc adds 13 kB to the binary.
		sort.Slice(all, func(i, j int) bool {
			if all[i].start != all[j].start {
				return all[i].start < all[j].start
			}
			return all[i].PID < all[j].PID
		})
	}
	return v
}

func (v *view) program(s stat) string {
	name, ok := v.programs[s.PID]
	if !ok {
		name = programOf(s.Process)
		v.programs[s.PID] = name
	}
	return name
}

// services returns the processes at and below s that a signal is for: the first that are neither
// shells nor wrappers. A shell that catches the signal is one, since its trap decides what to do,
// and beside it only the command that it waits for in the foreground, before whose end no trap
// runs.
func (v *view) services(s stat) []target {
	program := v.program(s)
	below := v.children[s.PID]
	this := target{stat: s, program: program}
	switch {
	case len(below) == 0:
		return []target{this}
	case slices.Contains(wrappers, program):
		return v.all(below)
	case !slices.Contains(shells, program):
		return []target{this}
	}
	signal := v.given(program)
	switch d := dispositionsOf(s.PID); {
	case d.catches(signal):
		out := []target{this}
		if command, ok := v.foreground(s, program); ok {
			out = append(out, v.services(command)...)
		}
		return out
	case d.ignores(signal):
		return v.all(below)
	}
	this.ends = true
	return append([]target{this}, v.all(below)...)
}

// all returns the services of several processes without the filters among them.
func (v *view) all(some []stat) []target {
	var out []target
	for _, s := range some {
		if _, fed := v.feeder(s, some); !fed {
			out = append(out, v.services(s)...)
		}
	}
	return out
}

// feeder returns the process of some whose output s reads, as a program that writes a log does for
// the one before it in a pipe. A filter ends with its input; to end it sooner would take the log
// from a service that still works.
func (v *view) feeder(s stat, some []stat) (stat, bool) {
	input, err := os.Readlink(procFile(s.PID, "fd/0"))
	if err != nil || !strings.HasPrefix(input, "pipe:") {
		return stat{}, false
	}
	for _, other := range some {
		if other.PID == s.PID {
			continue
		}
		for _, fd := range []string{"fd/1", "fd/2"} {
			if output, err := os.Readlink(procFile(other.PID, fd)); err == nil && output == input {
				return other, true
			}
		}
	}
	return stat{}, false
}

// foreground returns the child that a shell with a trap waits for in the foreground. It is the
// newest, if any is: a script has no other child after it until it has ended.
func (v *view) foreground(s stat, program string) (stat, bool) {
	below := v.children[s.PID]
	newest := below[len(below)-1]
	if !v.waitsInForeground(s, program, newest) {
		return stat{}, false
	}
	for range below { // of a pipe, the first
		from, fed := v.feeder(newest, below)
		if !fed {
			break
		}
		newest = from
	}
	return newest, true
}

// waitsInForeground reports whether a shell waits for its newest child as a command in the
// foreground rather than with wait. dash and the shell of busybox sleep in different system calls;
// for bash the child decides, which in the background begins with SIGINT ignored (POSIX.1-2024, XCU
// 2.9.3.1), or else the text of the script, which without the word wait waits for nothing in the
// background.
func (v *view) waitsInForeground(s stat, program string, newest stat) bool {
	call, err := os.ReadFile(procFile(s.PID, "syscall"))
	if err == nil {
		number, _, _ := strings.Cut(string(call), " ")
		switch {
		case number == sigsuspend:
			return false
		case number == wait4 && (program == "dash" || program == "ash" || program == "sh"):
			return true
		}
	}
	d, own := dispositionsOf(newest.PID), dispositionsOf(s.PID)
	switch {
	case d.ignores(syscall.SIGINT) && !own.ignores(syscall.SIGINT):
		return false
	case !d.ignores(syscall.SIGINT) && !d.catches(syscall.SIGINT) && v.program(newest) != "node":
		return true
	}
	script, seen := scriptOf(s.PID)
	return seen && !namesWait(script)
}

// maxScript is as much of a script as is looked at.
const maxScript = 64 << 10

// scriptOf returns the text that a shell runs; seen is false where that is not known.
func scriptOf(pid int) (script string, seen bool) {
	args := commandLine(pid)
	for i := 1; i < len(args); i++ {
		if option := args[i]; strings.HasPrefix(option, "-") && !strings.HasPrefix(option, "--") &&
			strings.HasSuffix(option, "c") && i+1 < len(args) {
			return args[i+1], true
		}
	}
	// where bash keeps its script, and dash, which takes the first that is free
	for _, name := range []string{"fd/255", "fd/10", "fd/11", "fd/12"} {
		text, err := readStart(procFile(pid, name))
		link, _ := os.Readlink(procFile(pid, name))
		if err == nil && slices.ContainsFunc(args, func(arg string) bool {
			return path.Base(arg) == path.Base(link)
		}) {
			return text, true
		}
	}
	return "", false
}

// readStart returns the first maxScript bytes of a regular file.
func readStart(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", os.ErrInvalid
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text := make([]byte, maxScript)
	n, err := f.Read(text)
	return string(text[:n]), err
}

// namesWait reports whether a script has the word wait.
func namesWait(script string) bool {
	words := strings.FieldsFunc(script, func(r rune) bool {
		return strings.ContainsRune(" \t\n;&|(){}'\"", r)
	})
	return slices.Contains(words, "wait")
}

// isShell reports whether the command is a shell or a script for one.
func (c *Command) isShell() bool {
	return slices.Contains(shells, path.Base(c.Path)) || path.Base(c.Path) == "busybox" ||
		slices.Contains(shells, path.Base(c.Interpreter))
}
