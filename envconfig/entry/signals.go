//go:build linux

package entry

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/sluice-deploy/sluice/envconfig/internal/signame"
)

// ParseSignal returns the signal that a name such as TERM, SIGTERM or SIGRTMIN+3 or a number from 1
// to 64 stands for, as Docker's STOPSIGNAL takes it; upper and lower case are the same. The error
// matches [ErrInvalid].
func ParseSignal(s string) (syscall.Signal, error) {
	n, ok := signame.Parse(s)
	if !ok {
		return 0, bad(fmt.Sprintf("signal %.64q", s),
			"a name such as QUIT or a number from 1 to 64")
	}
	return syscall.Signal(n), nil
}

// canBePassedOn reports whether a process can catch the signal, so that it can be passed on or be
// asked for by another.
func canBePassedOn(s syscall.Signal) bool { return signame.CanBeCaught(int(s)) }

// ofJobControl reports whether the signal stops and continues jobs. A shell and a terminal send
// these to process groups, so they always go to the whole group.
func ofJobControl(s syscall.Signal) bool {
	switch s {
	case syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT:
		return true
	}
	return false
}

// graceful holds the signals on which services finish their work, for services that drop it on
// SIGTERM: the STOPSIGNAL of their official images.
var graceful = map[string]syscall.Signal{
	"nginx":   syscall.SIGQUIT, // nginx(8): quit
	"php-fpm": syscall.SIGQUIT, // php-fpm(8): graceful stop
	"apache2": syscall.SIGWINCH,
	"httpd":   syscall.SIGWINCH, // graceful-stop of httpd.apache.org/docs/current/stopping.html
	"haproxy": syscall.SIGUSR1,  // soft stop
}

// fronts are the proxies of graceful, which are done when they have sent the last answer.
var fronts = []string{"nginx", "apache2", "httpd", "haproxy"}

// isBehind reports whether a program answers requests of a proxy in the same container, and drops
// them on a signal to stop: php-fpm does, unless its process_control_timeout is set.
func isBehind(program string) bool { return strings.TrimRight(program, "0123456789.") == "php-fpm" }

// forgetful are the programs of graceful that block a signal while they start and then drop it:
// the master process of HAProxy, whose workers serve before it has installed its handlers.
var forgetful = []string{"haproxy"}

// gracefulStop returns the signal of graceful for a program, or 0. Debian gives php-fpm a version,
// as in php-fpm8.2; the digit of apache2 belongs to the name.
func gracefulStop(program string) syscall.Signal {
	if s, ok := graceful[program]; ok {
		return s
	}
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

// stops reports whether a signal asks the service to stop, given its replacement for one of the
// processes that get it.
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
