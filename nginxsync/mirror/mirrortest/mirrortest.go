// Package mirrortest holds every mirror.Nginx to the same contract, on a real Nginx.
package mirrortest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/mirror"
)

// Harness is one running Nginx.
type Harness struct {
	Nginx mirror.Nginx
	// Workers is the number of workers that Text asks for.
	Workers int
	// Main is the path of the main file that the Nginx runs on, as Nginx.Test takes it.
	Main string
	// Text is the content of Main. Nginx accepts it.
	Text string
	// Write replaces the content of Main.
	Write func(text string)
}

// Run runs the suite; each case has a harness of its own.
func Run(t *testing.T, start func(t *testing.T) *Harness) {
	cases := []struct {
		name string
		run  func(t *testing.T, h *Harness)
	}{
		{"a configuration that nginx accepts passes the test", testGood},
		{"a configuration that nginx refuses fails with its reason", testBad},
		{"a reload brings new workers", testReload},
		{"a reload that fails keeps the workers and is in the log", testFailedReload},
		{"a cancelled context is an error with its cause", testCancelled},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			c.run(t, start(t))
		})
	}
}

// broken is a directive that no Nginx knows.
const broken = "sluice_no_such_directive"

// poll asks again until the answer is nil.
func poll(t *testing.T, what string, ask func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(
		time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// workers polls until all workers of a start or a reload are there.
func (h *Harness) workers(t *testing.T) (active []int) {
	t.Helper()
	poll(t, "workers", func() (err error) {
		if active, _, err = h.Nginx.Workers(); err == nil && len(active) != h.Workers {
			err = fmt.Errorf("%v, want %d", active, h.Workers)
		}
		return err
	})
	return active
}

func (h *Harness) reload(t *testing.T) {
	t.Helper()
	if err := h.Nginx.Reload(t.Context()); err != nil {
		t.Fatalf("reload: %v", err)
	}
}

// replaced polls until none of the workers is active, and others are.
func (h *Harness) replaced(t *testing.T, before []int) {
	t.Helper()
	poll(t, "workers are replaced", func() error {
		active, _, err := h.Nginx.Workers()
		if err != nil {
			return err
		}
		old := slices.ContainsFunc(active, func(pid int) bool {
			return slices.Contains(before, pid)
		})
		if len(active) == 0 || old {
			return fmt.Errorf("workers %v after %v", active, before)
		}
		return nil
	})
}

func testGood(t *testing.T, h *Harness) {
	if err := h.Nginx.Test(t.Context(), h.Main); err != nil {
		t.Errorf("test: %v", err)
	}
}

func testBad(t *testing.T, h *Harness) {
	before := h.workers(t)
	h.Write(broken + ";\n" + h.Text)
	if err := h.Nginx.Test(t.Context(), h.Main); err == nil || !strings.Contains(err.Error(),
		broken) {
		t.Errorf("test: %v, want an error with %s", err, broken)
	}
	if after := h.workers(t); !slices.Equal(before, after) {
		t.Errorf("workers %v after the test, want %v", after, before)
	}
}

func testReload(t *testing.T, h *Harness) {
	before := h.workers(t)
	h.reload(t)
	h.replaced(t, before)
	if text := h.Nginx.Errors(); text != "" {
		t.Errorf("errors after a good reload: %s", text)
	}
}

func testFailedReload(t *testing.T, h *Harness) {
	before := h.workers(t)
	h.Write(broken + ";\n" + h.Text)
	h.reload(t) // nil does not mean that Nginx took the configuration
	poll(t, "the log has the reason", func() error {
		if text := h.Nginx.Errors(); !strings.Contains(text, broken) {
			return fmt.Errorf("errors %q", text)
		}
		return nil
	})
	if after := h.workers(t); !slices.Equal(before, after) {
		t.Errorf("workers %v after a reload that failed, want %v", after, before)
	}
	h.Write(h.Text)
	h.reload(t)
	h.replaced(t, before)
	if text := h.Nginx.Errors(); text != "" {
		t.Errorf("errors of the reload before: %s", text)
	}
}

func testCancelled(t *testing.T, h *Harness) {
	before := h.workers(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := h.Nginx.Test(ctx, h.Main); !errors.Is(err, cause) {
		t.Errorf("test: %v, want the context's cause", err)
	}
	if err := h.Nginx.Reload(ctx); !errors.Is(err, cause) {
		t.Errorf("reload: %v, want the context's cause", err)
	}
	if after := h.workers(t); !slices.Equal(before, after) {
		t.Errorf("workers %v after a reload that was cancelled, want %v", after, before)
	}
}
