package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"nginxsync": func() {
			hook(os.Getenv(hooksEnv))
			os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
		},
	})
}

// hooksEnv names a directory for an agent of the tests. Its file "clock" says by how much the clock
// is off, and "kill" after how many steps the agent kills itself.
const hooksEnv = "SLUICE_TEST_HOOKS"

func hook(dir string) {
	if dir == "" {
		return
	}
	now = func() time.Time {
		text, err := os.ReadFile(filepath.Join(dir, "clock"))
		off, _ := time.ParseDuration(string(text))
		if err != nil || off == 0 {
			return time.Now()
		}
		return time.Now().Round(0).Add(off) // without the clock that nobody sets
	}
	text, _ := os.ReadFile(filepath.Join(dir, "kill"))
	if left, err := strconv.Atoi(string(text)); err == nil {
		var steps atomic.Int64
		afterStep = func() {
			if steps.Add(1) == int64(left) {
				self, _ := os.FindProcess(os.Getpid())
				_ = self.Kill()
				select {}
			}
		}
	}
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}
