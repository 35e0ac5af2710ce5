//go:build linux

package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync/supervisor"
)

// Nginx renames its pid file before it starts the new program, which here waits until the test lets
// it go on: an Nginx that is being upgraded is not started again and keeps its processes.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	program := testbed.NeedProgram(t, "nginx", "nginx")
	dir, port := testbed.Dir(t), testbed.Port(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.Mkdir(file("logs"), 0o755))
	require.NoError(t, os.WriteFile(file("nginx.conf"), fmt.Appendf(nil, `pid %s;
error_log %s notice;
worker_processes 1;
events { worker_connections 64; }
http {
    access_log off;
    server {
        listen 127.0.0.1:%d;
        location / { return 200; }
    }
}
`, file("nginx.pid"), file("logs/error.log"), port), 0o600))
	require.NoError(t, os.Symlink(program, file("nginx")))
	s, err := supervisor.New(supervisor.Config{Prefix: dir, Program: file("nginx"),
		Main: file("nginx.conf")})
	require.NoError(t, err)
	require.NoError(t, s.Ensure(t.Context()))
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	// The new program waits on the pipe, and ends when the test does.
	require.NoError(t, syscall.Mkfifo(file("go"), 0o600))
	pipe, err := os.OpenFile(file("go"), os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pipe.Close() })
	require.NoError(t, os.WriteFile(file("next"), fmt.Appendf(nil,
		"#!/bin/sh\nread line <%s || exit 1\nexec %s \"$@\"\n", file("go"), program), 0o755))
	require.NoError(t, os.Rename(file("next"), file("nginx")))

	first := pidIn(file("nginx.pid"))
	runs := func() {
		t.Helper()
		require.NoError(t, s.Ensure(t.Context()))
		require.Contains(t, title(first), "nginx: master process", "it is killed")
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
	// Nginx ignores the signal while the process that made it a daemon lives, and during an upgrade.
	testbed.Poll(t, "Nginx renames its pid file", func() error {
		require.NoError(t, syscall.Kill(first, syscall.SIGUSR2))
		_, err := os.Stat(file("nginx.pid.oldbin"))
		return err
	})
	require.NoFileExists(t, file("nginx.pid"))
	runs()
	require.NoError(t, os.WriteFile(file("nginx.pid"), nil, 0o600))
	runs()
	require.NoError(t, os.Rename(file("nginx.pid.oldbin"), file("away"))) // only the process is left
	runs()
	require.NoError(t, os.Rename(file("away"), file("nginx.pid.oldbin")))

	_, err = pipe.WriteString("go on\n")
	require.NoError(t, err)
	second := 0
	testbed.Poll(t, "the second master runs", func() error {
		if second = pidIn(file("nginx.pid")); second == 0 {
			return errors.New("its pid file is empty")
		}
		return nil
	})
	runs()
	require.Equal(t, second, pidIn(file("nginx.pid")))
	require.NoError(t, s.Stop(t.Context()))
	for _, pid := range []int{first, second} {
		require.Empty(t, title(pid), "both masters end")
	}
}

// pidIn is the pid in a file, 0 when it has none.
func pidIn(file string) int {
	text, _ := os.ReadFile(file)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// title is the title of a process, empty when it has ended.
func title(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(text)
}
