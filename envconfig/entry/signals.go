//go:build linux

package entry

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// signalNumbers are the names of signal(7) without SIG.
var signalNumbers = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "ILL": syscall.SIGILL,
	"TRAP": syscall.SIGTRAP, "ABRT": syscall.SIGABRT, "BUS": syscall.SIGBUS, "FPE": syscall.SIGFPE,
	"KILL": syscall.SIGKILL, "USR1": syscall.SIGUSR1, "SEGV": syscall.SIGSEGV,
	"USR2": syscall.SIGUSR2, "PIPE": syscall.SIGPIPE, "ALRM": syscall.SIGALRM,
	"TERM": syscall.SIGTERM, "STKFLT": syscall.SIGSTKFLT, "CHLD": syscall.SIGCHLD,
	"CONT": syscall.SIGCONT, "STOP": syscall.SIGSTOP, "TSTP": syscall.SIGTSTP,
	"TTIN": syscall.SIGTTIN, "TTOU": syscall.SIGTTOU, "URG": syscall.SIGURG,
	"XCPU": syscall.SIGXCPU, "XFSZ": syscall.SIGXFSZ, "VTALRM": syscall.SIGVTALRM,
	"PROF": syscall.SIGPROF, "WINCH": syscall.SIGWINCH, "IO": syscall.SIGIO,
	"PWR": syscall.SIGPWR, "SYS": syscall.SIGSYS,
}

// The real-time signals as the C library numbers them; the kernel's begin at 32.
const (
	firstRealTime = 34
	lastSignal    = 64
)

// ParseSignal returns the signal that a name such as TERM, SIGTERM or SIGRTMIN+3 or a number from 1
// to 64 stands for, as Docker's STOPSIGNAL takes it; upper and lower case are the same. The error
// matches [ErrInvalid].
func ParseSignal(s string) (syscall.Signal, error) {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, ok := signalNumbers[name]; ok {
		return n, nil
	}
	number, base := name, 0
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		number, base = "0"+strings.TrimPrefix(rest, "+"), firstRealTime
	} else if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		number, base = "-0"+strings.TrimPrefix(rest, "-"), lastSignal
	}
	n, err := strconv.Atoi(number)
	n += base
	if err != nil || n < 1 || n > lastSignal || base != 0 && n < firstRealTime {
		return 0, bad(fmt.Sprintf("signal %.64q", s), "a name such as QUIT or a number from 1 to 64")
	}
	return syscall.Signal(n), nil
}

// canBePassedOn reports whether a process can catch the signal, so that it can be passed on or be
// asked for by another.
func canBePassedOn(s syscall.Signal) bool {
	return s >= 1 && s <= lastSignal && s != syscall.SIGKILL && s != syscall.SIGSTOP
}

// ofJobControl reports whether the signal stops and continues jobs. A shell and a terminal send
// these to process groups, so they always go to the whole group.
func ofJobControl(s syscall.Signal) bool {
	switch s {
	case syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT:
		return true
	}
	return false
}

// graceful is the signal on which a service finishes its work, for those that drop it on SIGTERM:
// the STOPSIGNAL of their official images.
var graceful = map[string]syscall.Signal{
	"nginx":   syscall.SIGQUIT, // nginx(8): quit
	"php-fpm": syscall.SIGQUIT, // php-fpm(8): graceful stop
	"apache2": syscall.SIGWINCH,
	"httpd":   syscall.SIGWINCH, // graceful-stop of httpd.apache.org/docs/current/stopping.html
	"haproxy": syscall.SIGUSR1,  // soft stop
}

// gracefulStop returns the signal of graceful for a program, or 0. Debian gives php-fpm a version.
func gracefulStop(program string) syscall.Signal {
	return graceful[strings.TrimRight(program, "0123456789.")]
}

// translate returns the signal that a process running program is given in place of s.
func (i *Init) translate(s syscall.Signal, program string) syscall.Signal {
	if to, ok := i.Rewrite[s]; ok {
		return to
	}
	if s != syscall.SIGTERM {
		return s
	}
	if i.StopSignal != 0 {
		return i.StopSignal
	}
	if to := gracefulStop(program); to != 0 {
		return to
	}
	return s
}

// stops reports whether a signal asks the service to stop, given what it has become for one of the
// processes that it goes to.
func (i *Init) stops(came, given syscall.Signal, program string) bool {
	for _, s := range []syscall.Signal{came, given} {
		switch {
		case s == syscall.SIGTERM, s == syscall.SIGINT, s != 0 && s == i.StopSignal,
			s == syscall.SIGQUIT && program != "java", // it prints its threads and goes on
			s == gracefulStop(program) && s != 0:
			return true
		}
	}
	return false
}
