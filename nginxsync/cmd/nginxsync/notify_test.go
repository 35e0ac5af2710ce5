//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// systemd hears of the start, of the watchdog, of reloads and of the end.
func TestAgentTellsSystemd(t *testing.T) {
	t.Parallel()
	dir := testbed.Dir(t)
	socket := filepath.Join(dir, "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer heard.Close()
	hear := func(want string) {
		t.Helper()
		require.NoError(t, heard.SetReadDeadline(time.Now().Add(time.Minute)))
		for b := make([]byte, 4096); ; {
			n, err := heard.Read(b)
			require.NoError(t, err, "want %s", want)
			if strings.HasPrefix(string(b[:n]), want) {
				return
			}
		}
	}
	config := filepath.Join(dir, "agent.yaml")
	good := "listen: unix:" + dir + "/agent.sock\ndrainFile: " + dir + "/drained\nnginx:\n" +
		"  - {socket: " + dir + "/admin.sock, stateFile: " + dir + "/routes}\n" +
		"sources:\n  - file: {path: " + dir + "/routes.json}\n"
	write(t, config, good)
	path, err := exec.LookPath("nginxsync") // of testscript.Main
	require.NoError(t, err)
	agent := testbed.Prepare(t, testbed.Own(t).TestDir(t, "agent"), testbed.Command{
		Name: "nginxsync", Path: "/usr/bin/env", Args: []string{"NOTIFY_SOCKET=" + socket,
			"WATCHDOG_USEC=6000000", path, "agent", "-config", config}})
	agent.Start()
	hear("READY=1")
	hear("WATCHDOG=1")
	write(t, config, good+"x: 1\n")
	agent.Signal(syscall.SIGHUP)
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1\nSTATUS=the configuration file is not valid")
	write(t, config, good)
	agent.Signal(syscall.SIGHUP)
	hear("READY=1\nSTATUS=configuration read again")
	agent.Signal(syscall.SIGTERM)
	hear("STOPPING=1")
	<-agent.Done()
}

// The example of the distribution is valid.
func TestDistributedConfiguration(t *testing.T) {
	t.Parallel()
	code, out, errs := (&bed{t: t}).command("agent", "-check", "-config", "dist/agent.yaml")
	require.Zero(t, code, errs)
	require.Equal(t, "dist/agent.yaml: valid: 1 Nginx, 1 sources\n", out)
}

// Every key of the file is in the manual.
func TestManualHasEveryKey(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/nginxsync-agent.md")
	require.NoError(t, err)
	for _, key := range keys(agentFile{}) {
		require.Contains(t, string(text), key)
	}
}
