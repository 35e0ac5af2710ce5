package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// signalError is the signal that ended an activation.
type signalError syscall.Signal

func (e signalError) Error() string {
	return fmt.Sprintf("stopped by signal %d (%v)", int(e), syscall.Signal(e))
}

// watcher catches the signals that ask a container to stop, from before the first change until the service runs. Without
// a handler, process 1 would not react to some of them, and end with a wrong code on the others.
type watcher struct {
	ctx    context.Context
	caught chan os.Signal
}

func watchSignals() *watcher {
	ctx, cancel := context.WithCancelCause(context.Background())
	w := &watcher{ctx: ctx, caught: make(chan os.Signal, 1)} // the first one decides
	signal.Notify(w.caught, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	go func() {
		s := <-w.caught
		cancel(signalError(s.(syscall.Signal)))
	}()
	return w
}

// pending returns the signal that has come meanwhile, if any.
func (w *watcher) pending() error { return context.Cause(w.ctx) }
