// Package tool runs the programs that bundle sources use: without a shell, without the environment of this process, and with all
// that they start ended when the context ends.
package tool

import (
	"bytes"
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

// Output runs the program and returns what it prints. The error has the end of what it says on its standard error; it names the
// program, not its arguments, which may hold secrets.
func (c Command) Output(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}, c.Env...)
	cmd.Stdin = c.Stdin
	out, said := &limited{limit: c.Limit}, &tail{}
	cmd.Stdout, cmd.Stderr = out, said
	endWithChildren(cmd)
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case out.over:
		return nil, fmt.Errorf("%s: more than %d bytes of output: %w", c.Name, c.Limit, ErrTooLarge)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %s", c.Name, err, strings.Join(strings.Fields(string(said.text)), " "))
	}
	return out.Bytes(), nil
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
