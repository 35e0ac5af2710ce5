package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
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
	done   chan []os.Signal
}

// watchSignals cancels its context on a signal that asks a container to stop and keeps all others. A signal that was
// ignored when this process began stays ignored, for the service as well.
func watchSignals() *watcher {
	w := &watcher{caught: make(chan os.Signal, signalRoom), quit: make(chan struct{}), done: make(chan []os.Signal, 1)}
	w.ctx, w.cancel = context.WithCancelCause(context.Background())
	for _, s := range passedOn() {
		if !signal.Ignored(s) {
			signal.Notify(w.caught, s)
		}
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a log that nobody reads must not end the start
	go w.collect()
	return w
}

// passedOn are all signals that can be caught but those that tell a process about itself.
func passedOn() []os.Signal {
	own := []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE,
		syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP, 32, 33}
	var all []os.Signal
	for s := syscall.Signal(1); s <= 64; s++ {
		if !slices.Contains(own, s) {
			all = append(all, s)
		}
	}
	return all
}

func (w *watcher) collect() {
	var kept []os.Signal
	for {
		select {
		case s := <-w.caught:
			switch s {
			case syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT:
				w.cancel(signalError(s.(syscall.Signal)))
			default:
				kept = append(kept, s)
			}
		case <-w.quit:
			w.done <- kept
			return
		}
	}
}

// release ends the watch. It returns the channel that signals go on coming from, those that were kept first in it, or the
// signal that asked to stop meanwhile.
func (w *watcher) release() (<-chan os.Signal, error) {
	close(w.quit)
	kept := <-w.done
	if w.ctx.Err() != nil {
		return nil, context.Cause(w.ctx)
	}
	if len(kept) == 0 {
		return w.caught, nil
	}
	all := make(chan os.Signal, signalRoom)
	for _, s := range kept[:min(len(kept), signalRoom)] {
		all <- s
	}
	go func() {
		for s := range w.caught {
			all <- s
		}
	}()
	return all, nil
}
