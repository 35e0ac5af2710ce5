package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Start starts Nginx, or has the one that runs here already take the new configuration, and returns
// when it serves with it. A configuration that Nginx refuses then (nginx -t cannot find every
// fault: a port may be taken) is an error with Nginx's message, and the old one goes on.
func (e *Edge) Start(ctx context.Context) error {
	pid := master(e.config.Dir)
	if pid == 0 {
		return e.Ensure(ctx)
	}
	log, err := os.Open(filepath.Join(e.config.Dir, "logs/error.log"))
	if err != nil {
		return fmt.Errorf("edge: reload: %w", err)
	}
	defer log.Close()
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("edge: reload: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it has not changed its "+
		"workers after a minute: look at its error log"))
	defer cancel()
	for len(workers(e.config.Dir)) == 0 { // it is only just starting
		if err := pause(ctx); err != nil {
			return err
		}
	}
	// a worker that was made a moment ago still has its master's title
	before := processes(e.config.Dir)
	if out, err := e.nginx(ctx, "-c", e.mainFile(), "-s", "reload").CombinedOutput(); err != nil {
		return fmt.Errorf("edge: reload: %w: %s", err, bytes.TrimSpace(out))
	}
	var said []byte
	for !renewed(before, workers(e.config.Dir)) {
		more, err := io.ReadAll(log)
		if err != nil {
			return fmt.Errorf("edge: reload: %w", err)
		}
		said = append(said, more...)
		// Nginx tries a busy address five times and then reports that it is still busy.
		for line := range bytes.Lines(said) {
			if bytes.Contains(line, []byte("[emerg]")) && bytes.HasSuffix(line, []byte("\n")) &&
				!bytes.Contains(line, []byte("bind() to")) {
				return fmt.Errorf("edge: reload: Nginx refuses the new configuration and goes on "+
					"with the old one: %s", bytes.TrimSpace(said))
			}
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("edge: reload: %w", context.Cause(ctx))
	case <-time.After(10 * time.Millisecond):
		return nil
	}
}

// renewed reports whether there are workers now, and none from before.
func renewed(before, now []int) bool {
	return len(now) > 0 && !slices.ContainsFunc(now, func(pid int) bool {
		return slices.Contains(before, pid)
	})
}

// workers are the processes of the directory that take connections: one that is shutting down has
// another title.
func workers(dir string) []int {
	return slices.DeleteFunc(processes(dir), func(pid int) bool {
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || strings.TrimRight(string(title), " \x00") != "nginx: worker process"
	})
}
