package servertest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/examples/server/edge"
	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// sweeperName is the first argument of the process that outlives a killed test binary.
const sweeperName = "sluice-servertest-sweeper"

// sweeper reads the directories of servers, one a line. The end of its input means that the test
// binary has ended: a kill has left the processes that run on the directories then.
var sweeper struct {
	mu    sync.Mutex
	dirs  *os.File
	ended <-chan error
}

// startSweeper starts a copy of this program in a session of its own: neither Ctrl-C nor the
// signals of go test reach it.
func startSweeper() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args, cmd.Stdin = []string{sweeperName}, read
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, write.Close())
	}
	ended := make(chan error, 1) // one result
	go func() { ended <- cmd.Wait() }()
	sweeper.dirs, sweeper.ended = write, ended
	return nil
}

// stopSweeper returns when the sweeper has ended.
func stopSweeper() error { return errors.Join(sweeper.dirs.Close(), <-sweeper.ended) }

// Sweep has all processes on dir ended, and dir removed, if this test binary is killed. dir is the
// directory of a server or of an edge. Start has called it for its own.
func Sweep(t testing.TB, dir string) {
	t.Helper()
	if err := tellSweeper(dir); err != nil {
		t.Fatal(err)
	}
}

func tellSweeper(dir string) error {
	sweeper.mu.Lock()
	defer sweeper.mu.Unlock()
	if sweeper.dirs == nil {
		return errors.New("servertest: TestMain must call servertest.Main")
	}
	if _, err := fmt.Fprintln(sweeper.dirs, dir); err != nil {
		return fmt.Errorf("servertest: sweeper: %w", err)
	}
	return nil
}

// sweep is the sweeper's main function.
func sweep(dirs *os.File) {
	var all []string
	for lines := bufio.NewScanner(dirs); lines.Scan(); {
		all = append(all, lines.Text())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, dir := range all {
		if _, err := os.Stat(dir); err != nil {
			continue // removed by its test
		}
		// An Nginx or a server that is just starting may not be seen at first.
		for pids := servingOn(dir); ctx.Err() == nil; pids = servingOn(dir) {
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGTERM) // a server ends what it has started
			}
			err := errors.Join(edge.Stop(ctx, dir), platform.StopAll(ctx, dir))
			if err == nil && len(servingOn(dir)) == 0 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		_ = os.RemoveAll(dir) // what it cannot remove stays, as after any kill
	}
}

// servingOn are the pids of the processes whose command line names dir or a file in it.
func servingOn(dir string) (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, proc := range procs {
		line, err := os.ReadFile(proc + "/cmdline")
		if err != nil || bytes.HasPrefix(line, []byte(sweeperName)) {
			continue
		}
		line = append(line, 0)
		if bytes.Contains(line, []byte(dir+"/")) || bytes.Contains(line, []byte(dir+"\x00")) {
			pid, _ := strconv.Atoi(strings.TrimPrefix(proc, "/proc/")) // digits by the pattern
			pids = append(pids, pid)
		}
	}
	return pids
}
