//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/envconfig/internal/caught"
)

// signalError is the signal that ended an activation.
type signalError syscall.Signal

func (e signalError) Error() string {
	return fmt.Sprintf("stopped by signal %d (%v)", int(e), syscall.Signal(e))
}

// stopping are the signals that ask a container to stop. Without a handler, process 1 would not
// react to some of them and end with a wrong code on the others.
var stopping = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT}

// watch is a context that a stopping signal cancels, to be asked with Err alone: a channel for Done
// would take a goroutine that looks for signals, for as long as the service runs.
type watch struct{ context.Context }

// watchSignals begins to note the stopping signals.
func watchSignals() watch {
	caught.Start(stopping...)
	return watch{context.Background()}
}

// Err returns the signal that has come.
func (watch) Err() error {
	if s := caught.Has(stopping...); s != 0 {
		return signalError(s)
	}
	return nil
}

// signalRoom is for signals that come in one burst, before coalesce takes them. Package os/signal
// drops a signal that finds the channel full.
const signalRoom = 1024

// settled is how long a service has run when the Go runtime takes the signals over. Each takes it a
// change of threads, which would make the start longer; signals that come before are noted and
// passed on then.
const settled = 20 * time.Millisecond

// watchAll catches all signals that can be passed on to a service: all that can be caught except
// the kernel's reports to a process about itself. The Go runtime keeps the first of the real-time
// ones, SIGRTMIN, to itself. SIGHUP and SIGINT that were ignored when this process began stay
// ignored, for the service as well; of the others the runtime has taken that back before main.
func watchAll() <-chan os.Signal {
	all := append([]syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
		syscall.SIGCONT, syscall.SIGTSTP,
		syscall.SIGABRT, syscall.SIGALRM, syscall.SIGSTKFLT, syscall.SIGTTIN, syscall.SIGTTOU,
		syscall.SIGXCPU, syscall.SIGXFSZ,
		syscall.SIGVTALRM, syscall.SIGPROF, syscall.SIGIO, syscall.SIGPWR, syscall.SIGSYS},
		stopping...)
	for s := syscall.Signal(35); s <= 64; s++ {
		all = append(all, s)
	}
	caught.Start(all...)
	signals := make(chan os.Signal)
	time.AfterFunc(settled, func() {
		come := make(chan os.Signal, signalRoom)
		go coalesce(signals, come)
		caught.Pass(come)
		giveBack()
	})
	return signals
}

// coalesce sends the signals that come to a receiver that may be slower: passing one on takes a look
// at /proc. A signal that still waits to be sent is not added again, as the kernel keeps one of
// each kind pending (signal(7)), so that a storm of one kind loses none of another. Real-time
// signals are counted, up to a thousand.
func coalesce(to chan<- os.Signal, come <-chan os.Signal) {
	var waiting []os.Signal
	for {
		var next os.Signal
		var send chan<- os.Signal // nil, which is never ready, while no signal waits
		if len(waiting) > 0 {
			next, send = waiting[0], to
		}
		select {
		case s := <-come:
			counted := s.(syscall.Signal) >= 32 && len(waiting) < 1000
			if counted || !slices.Contains(waiting, s) {
				waiting = append(waiting, s)
			}
		case send <- next:
			waiting = waiting[1:]
		}
	}
}
