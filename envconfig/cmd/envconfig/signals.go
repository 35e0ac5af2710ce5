package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// signalError is the signal that ended an activation.
type signalError syscall.Signal

func (e signalError) Error() string {
	return fmt.Sprintf("stopped by signal %d (%v)", int(e), syscall.Signal(e))
}

// room for signals that come in one burst; the kernel keeps one of each kind pending at most.
const signalRoom = 1024

// watcher catches signals from before the first change until the service runs. Without a handler, process 1 would not
// react to some of them and end with a wrong code on the others.
type watcher struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	caught chan os.Signal
	quit   chan struct{}
	done   chan struct{}
}

// watchSignals cancels its context on a signal that asks a container to stop.
func watchSignals() *watcher {
	w := &watcher{caught: make(chan os.Signal, signalRoom), quit: make(chan struct{}), done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancelCause(context.Background())
	w.add(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	go w.collect()
	return w
}

// add catches more signals. One that was ignored when this process began stays ignored, for the service as well.
func (w *watcher) add(signals ...syscall.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(w.caught, s)
		}
	}
}

// settled is how long a service has run when the signals that hardly anybody sends begin to be caught.
const settled = 50 * time.Millisecond

// addRest catches all signals that can be passed on to a service: all that can be caught but those by which the kernel
// tells a process about itself. Each takes the runtime a change of threads, so those that are common come first, and the
// real-time ones once the service has started. The Go runtime keeps the first of these, SIGRTMIN, to itself.
func (w *watcher) addRest() {
	w.add(syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT, syscall.SIGTSTP)
	time.AfterFunc(settled, func() {
		w.add(syscall.SIGABRT, syscall.SIGALRM, syscall.SIGSTKFLT, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGXCPU, syscall.SIGXFSZ,
			syscall.SIGVTALRM, syscall.SIGPROF, syscall.SIGIO, syscall.SIGPWR, syscall.SIGSYS)
		for s := syscall.Signal(35); s <= 64; s++ {
			w.add(s)
		}
		giveBack()
	})
}

func (w *watcher) collect() {
	defer close(w.done)
	select {
	case s := <-w.caught:
		w.cancel(signalError(s.(syscall.Signal)))
	case <-w.quit:
	}
}

// release ends the watch. It returns the channel that signals go on coming from, or the signal that asked to stop.
func (w *watcher) release() (<-chan os.Signal, error) {
	close(w.quit)
	<-w.done
	return w.caught, context.Cause(w.ctx)
}
