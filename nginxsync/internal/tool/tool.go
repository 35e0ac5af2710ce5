// Package tool runs the programs that bundle sources use: without a shell, without the environment
// of this process, and with all that they start ended when the context ends.
package tool

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Command is one run of a program.
type Command struct {
	Name  string
	Args  []string
	Dir   string
	Env   []string // besides PATH and LC_ALL=C
	Stdin io.Reader
	Limit int64 // of the output in bytes
}

// ErrTooLarge is in the chain of the error about an output that is longer than Command.Limit.
var ErrTooLarge = errors.New("too large")

// Output runs the program and returns its standard output. The error has the end of its standard
// error; it names the program, not its arguments, which may hold secrets.
func (c Command) Output(ctx context.Context) ([]byte, error) {
	out := &limited{limit: c.Limit}
	err := c.run(ctx, out)
	if out.over && ctx.Err() == nil {
		return nil, fmt.Errorf("%s: more than %d bytes of output: %w", c.Name, c.Limit, ErrTooLarge)
	}
	if err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Stream runs the program and lets read read its standard output while the program runs. The
// program ends when read returns an error, which is then the error, after that of ctx. Limit does
// not count.
func (c Command) Stream(ctx context.Context, read func(io.Reader) error) error {
	from, to := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := read(from)
		from.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		done <- err
	}()
	err := c.run(ctx, to)
	to.Close()
	readErr := <-done
	if readErr != nil && ctx.Err() == nil && !errors.Is(readErr, io.ErrUnexpectedEOF) &&
		!errors.Is(readErr, io.EOF) {
		return readErr
	}
	return cmp.Or(err, readErr) // the program's error has the reason for an early end
}

func (c Command) run(ctx context.Context, out io.Writer) error {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}, c.Env...)
	cmd.Stdin = c.Stdin
	said := &tail{}
	cmd.Stdout, cmd.Stderr = out, said
	endWithChildren(cmd)
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%s: %w: %s", c.Name, err, strings.Join(strings.Fields(string(said.text)),
			" "))
	}
	return nil
}

// limited keeps up to limit bytes and ends the program that writes more.
type limited struct {
	bytes.Buffer
	limit int64
	over  bool
}

func (l *limited) Write(p []byte) (int, error) {
	if int64(l.Len()+len(p)) > l.limit {
		l.over = true
		return 0, ErrTooLarge
	}
	return l.Buffer.Write(p)
}

// tail keeps the last two kilobytes.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - 2<<10; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}
