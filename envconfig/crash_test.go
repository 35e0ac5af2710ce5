//go:build linux

package envconfig

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

const (
	killVariable = "ENVCONFIG_TEST_KILL_AT"
	userVariable = "ENVCONFIG_TEST_AS_USER"
)

// TestMain is also the process that activates an environment as another user, or ends itself at a
// step.
func TestMain(m *testing.M) {
	at, err := strconv.Atoi(os.Getenv(killVariable))
	if os.Getenv(userVariable) != "" {
		at = math.MaxInt
	} else if err != nil {
		os.Exit(m.Run())
	}
	root := os.Args[1]
	a := &Activator{Root: root, Source: filepath.Join(root, DefaultSource),
		State: filepath.Join(root, DefaultState)}
	a.step = func(string) {
		if at--; at < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	_, err = a.Activate(context.Background(), os.Args[2])
	if errors.Is(err, ErrPermission) {
		fmt.Println(err)
		os.Exit(77)
	}
	if err != nil {
		panic(err)
	}
}

// mixed is a source directory in which the way from test to production takes every kind of step.
func mixed(t *testing.T) *box {
	return newBox(t, map[string]string{
		SpecName: `{"paths":[{"match":"srv/**","action":"link"},{"match":"opt/conf/**","action":"pointer"},{"match":"opt/render","action":"render"},{"match":"opt/conf/*/key","action":"render"}],
			"render":{"variables":["HOME"]}}`,
		"envs/_base/opt/same":              "same",
		"envs/_base/opt/conf/common":       "common",
		"envs/_base/opt/conf/d/common":     "common",
		"envs/test/opt/conf/d/key":         "${HOME} in test",
		"envs/test/opt/conf/d/own":         "own",
		"envs/production/opt/conf/d/key":   "${HOME} in production",
		"envs/test/opt/changed":            "old",
		"envs/test/opt/render":             "${HOME} in test",
		"envs/test/opt/gone/deep/file":     "gone",
		"envs/test/srv/linked":             "old",
		"envs/test/srv/unlinked":           "old",
		"envs/test/opt/conf/app":           "old",
		"envs/production/opt/changed":      "new",
		"envs/production/opt/render":       "${HOME} in production",
		"envs/production/opt/fresh/a/file": "fresh",
		"envs/production/srv/linked":       "new",
		"envs/production/opt/conf/app":     "new",
	})
}

func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	require.NoError(t, err)
	for at := 0; ; at++ {
		b, before, after := prepare(t)
		cmd := exec.Command(exe, b.root, "production")
		cmd.Env = append(os.Environ(), killVariable+"="+strconv.Itoa(at))
		out, err := cmd.CombinedOutput()
		if err == nil {
			require.Equal(t, after, b.tree())
			require.Greater(t, at, 30, "steps")
			return
		}
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "%s", out)
		checkWhole(t, b, before, after)
		b.activate("production")
		require.Equal(t, after, b.tree(), "killed at step %d", at)
	}
}

// killed stands for SIGKILL: nothing that runs while it unwinds changes a file.
type killed struct{}

// runUntil activates and stops at a step; it reports whether there was such a step.
func runUntil(t *testing.T, a *Activator, environment string, at int) (stopped bool) {
	defer func() {
		if r := recover(); r != nil {
			require.Equal(t, killed{}, r)
			stopped = true
		}
	}()
	a.step = func(string) {
		if at--; at < 0 {
			panic(killed{})
		}
	}
	_, err := a.Activate(t.Context(), environment)
	require.NoError(t, err)
	return false
}

func TestKilledAgainDuringRecovery(t *testing.T) {
	t.Parallel()
	for first := 0; ; first++ {
		for second := 0; ; second++ {
			b, before, after := prepareWith(t, small(t))
			if !runUntil(t, b.activator(), "production", first) {
				return
			}
			again := runUntil(t, b.activator(), "production", second)
			if again {
				checkWhole(t, b, before, after)
			}
			b.activate("production")
			require.Equal(t, after, b.tree(), "killed at step %d, then at step %d", first, second)
			if !again {
				break
			}
		}
	}
}

// small takes one of each step that changes a target.
func small(t *testing.T) *box {
	return newBox(t, map[string]string{
		SpecName:                     `{"paths":[{"match":"opt/render","action":"render"}],"render":{"variables":["HOME"]}}`,
		"envs/test/opt/render":       "${HOME} in test",
		"envs/production/opt/render": "${HOME} in production",
		"envs/test/opt/gone/file":    "gone", "envs/production/opt/fresh/file": "fresh",
	})
}

// prepare returns a box in which test is active, and its tree before and after production is
// active.
func prepare(t *testing.T) (b *box, before, after map[string]string) {
	return prepareWith(t, mixed(t))
}

func prepareWith(t *testing.T, fresh *box) (b *box, before, after map[string]string) {
	b = fresh
	_, err := b.activator().Bake()
	require.NoError(t, err)
	b.activate("production")
	after = b.tree()
	b.activate("test")
	return b, b.tree(), after
}

// checkWhole lets a start fail after it has recovered, and finds the tree as it was before or as it
// was to be.
func checkWhole(t *testing.T, b *box, before, after map[string]string) {
	t.Helper()
	source := filepath.Join(b.root, DefaultSource)
	m, err := Scan(os.DirFS(source))
	require.NoError(t, err)
	a := b.activator()
	a.Manifest = m
	moved := source + "/envs/moved"
	require.NoError(t, os.Rename(source+"/envs/production/opt/render", moved))
	_, err = a.Activate(t.Context(), "production")
	require.ErrorIs(t, err, ErrIncomplete)
	require.NoError(t, os.Rename(moved, source+"/envs/production/opt/render"))
	got := b.tree()
	if !equalTrees(got, before) && !equalTrees(got, after) {
		require.Equal(t, before, got, "a mixture of both environments is left")
	}
}

func equalTrees(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, want := range a {
		if strings.HasSuffix(name, recordName) {
			continue
		}
		if b[name] != want {
			return false
		}
	}
	return true
}

// asked is a context that is cancelled when it has been asked so many times.
type asked struct {
	context.Context
	left int
}

func (a *asked) Err() error {
	if a.left--; a.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancelledWithinAFileChangesNothing(t *testing.T) {
	t.Parallel()
	const chunks = 20
	source := map[string]string{"envs/test/opt/large": "small",
		"envs/production/opt/large": strings.Repeat("x", chunks*place.CopyBuffer)}
	for left := 0; ; left++ {
		b := newBox(t, source)
		b.activate("test")
		before := b.tree()
		_, err := b.activator().Activate(&asked{t.Context(), left}, "production")
		if err == nil {
			require.Greater(t, left, chunks, "it is asked for each part of the file")
			return
		}
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, before, b.tree())
	}
}

func TestCancelledAtEveryStepChangesNothing(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	for at := 0; ; at++ {
		b, before, after := prepare(t)
		a := b.activator()
		ctx, cancel := context.WithCancelCause(t.Context())
		n, committed := at, false
		a.step = func(name string) {
			if n--; n == -1 {
				committed = name == "done" || name == "record" ||
					strings.HasPrefix(name, "clean ") || name == "forget"
				cancel(stop)
			}
		}
		_, err := a.Activate(ctx, "production")
		cancel(nil)
		if n >= 0 {
			require.NoError(t, err)
			return
		}
		if err == nil {
			require.Equal(t, after, b.tree(), "step %d", at)
			continue
		}
		require.ErrorIs(t, err, stop)
		require.False(t, committed, "step %d", at)
		require.Equal(t, before, b.tree(), "step %d", at)
	}
}
