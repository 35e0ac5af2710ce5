// Package program runs the clients of sources: programs of the machine that are given a command
// line without secrets, end with their children, and may write a bounded number of bytes.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
)

// ErrTooLarge says that a program was ended because it wrote more than it may.
var ErrTooLarge = errors.New("too large")

// maxStderr is how much of a program's standard error is kept.
const maxStderr = 4 << 10

// Program is one run of a program.
type Program struct {
	Path  string
	Args  []string
	Env   []string // all of it
	Dir   string
	Stdin string
	// Stdout receives the output. Nil discards it.
	Stdout io.Writer
	// Grows is a directory that may grow to Limit bytes; "" is none.
	Grows string
	Limit int64
}

// Error says how a program ended that did not succeed.
type Error struct {
	Name string
	// Code is the exit status, -1 for a program that a signal has ended.
	Code int
	// Stderr is the end of its standard error.
	Stderr string
	Err    error
}

func (e *Error) Error() string {
	said := strings.Join(strings.Fields(e.Stderr), " ")
	if said == "" {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", e.Name, e.Err, said)
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Run runs the program until it ends. When ctx ends, the program and its children are killed, and
// the error wraps the cause. A program that ended by itself with another status than 0 is an
// [Error].
func (p Program) Run(ctx context.Context) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cmd := exec.CommandContext(running, p.Path, p.Args...)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout = p.Env, p.Dir, strings.NewReader(p.Stdin), p.Stdout
	said := &tail{}
	cmd.Stderr = said
	group(cmd)
	cmd.WaitDelay = 10 * time.Second // for pipes that a child holds
	if err := cmd.Start(); err != nil {
		return &Error{Name: p.Path, Code: -1, Err: err}
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watch(running, stop)
	}()
	err := cmd.Wait()
	if p.Grows != "" && err == nil && tree.Size(p.Grows) > p.Limit {
		stop(p.tooLarge())
	}
	cause := context.Cause(running)
	stop(nil)
	<-watched
	if cause != nil {
		return cause
	}
	if err != nil {
		return &Error{Name: p.Path, Code: cmd.ProcessState.ExitCode(), Stderr: said.String(),
			Err: err}
	}
	return nil
}

func (p Program) tooLarge() error {
	return fmt.Errorf("more than %d bytes: %w", p.Limit, ErrTooLarge)
}

// watch ends the program once its directory has grown too large.
func (p Program) watch(ctx context.Context, stop context.CancelCauseFunc) {
	if p.Grows == "" {
		return
	}
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
			if tree.Size(p.Grows) > p.Limit {
				stop(p.tooLarge())
			}
		}
	}
}

// tail keeps the end of a text.
type tail struct{ kept bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.kept.Write(p)
	if over := t.kept.Len() - maxStderr; over > 0 {
		t.kept.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.kept.String() }
