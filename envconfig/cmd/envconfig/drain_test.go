//go:build linux

package main

import (
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// drain waits for the last connection, also where nothing listens any more, and ends with 1 when
// its time is over before that.
func TestDrainWaitsForConnections(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		require.NoError(t, err)
		client, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		server, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, l.Close())
		port := strconv.Itoa(server.LocalAddr().(*net.TCPAddr).Port)
		drain := func(time string) (int, string) {
			cmd := exec.Command(exe, "drain", "--drain-port", port, "--drain-time", time)
			out, _ := cmd.CombinedOutput()
			return cmd.ProcessState.ExitCode(), string(out)
		}
		code, out := drain("1ms")
		require.Equal(t, 1, code, out)
		require.Contains(t, out, "1 connections to ports ["+port+"]: in flight when the time was "+
			"over")
		require.NoError(t, client.(*net.TCPConn).CloseWrite())
		code, out = drain("1ms")
		require.Equal(t, 1, code, "the client waits for an answer: %s", out)
		require.NoError(t, server.Close())
		require.NoError(t, client.Close())
		code, out = drain("1m")
		require.Equal(t, 0, code, out)
		require.Contains(t, out, "envconfig: drained ports=["+port+"]")
	}
}

// drain asks the service by way of process 1, which passes the signal on.
func TestDrainAsksTheService(t *testing.T) {
	t.Parallel()
	s := start(t, `printf '%s\n' '"$A" & until grep -qs READY log; do sleep 0.02; done; "$E" drain --drain-signal USR1 --drain-port 1; echo code $?; wait' > start.sh
		SLUICE_TEST_APP=signals; export SLUICE_TEST_APP; exec "$E" -- sh -c 'sh start.sh 2>&1 | tee log'`)
	s.sees("GOT 10\n")
	s.sees("code 0\n")
	s.signal(syscall.SIGTERM)
	s.ends()
}

// Where the containers of a pod share their processes, process 1 is the pause container's, and the
// signal goes to the first process of this container.
func TestDrainWithSharedProcesses(t *testing.T) {
	t.Parallel()
	pause := startWith(t,
		&syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
		`trap 'echo PAUSE SIGNALLED' USR1; echo PAUSED; while :; do sleep 600 & wait $!; done`)
	pause.sees("PAUSED")
	inPod := "nsenter --target " + strconv.Itoa(pause.cmd.Process.Pid) + " --pid "
	container := startWith(t, &syscall.SysProcAttr{}, inPod+`unshare --mount sh -c '
		mount -t proc proc /proc; export SLUICE_TEST_APP=signals; exec "$E" -- sh -c "\"\$A\"; true"'`)
	container.sees("READY")
	mounts := ""
	for _, p := range childrenOf(container.cmd.Process.Pid) {
		mounts = "--mount=/proc/" + p + "/ns/mnt " // of the last, which is the service
	}
	drain := startWith(t, &syscall.SysProcAttr{}, inPod+mounts+
		`"$E" drain --drain-signal USR1 --drain-port 1`)
	require.Equal(t, 0, drain.ends(), "%v", drain.output)
	container.sees("GOT 10\n")
	require.NotContains(t, pause.output.String(), "SIGNALLED")
	require.NoError(t, pause.cmd.Process.Kill())
}

// The kernel still sends an answer that the service has written when the connection is closed; with
// the container's network the rest of it would go.
func TestDrainWaitsForAnswersThatAreSent(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	server, err := l.Accept()
	require.NoError(t, err)
	// Until the client's buffer and the server's are full. A deadline that passes before the first
	// byte was written, on a busy machine, says nothing of them.
	for n, written := 0, 0; err == nil || written == 0; written += n {
		require.NoError(t, server.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err = server.Write(make([]byte, 1<<20))
	}
	require.NoError(t, server.Close())
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	out, err := exec.Command(exe, "drain", "--drain-port", port, "--drain-time", "1ms").
		CombinedOutput()
	require.Error(t, err, "%s", out)
	require.Contains(t, string(out), "1 connections to ports")
	require.NoError(t, client.Close())
	out, err = exec.Command(exe, "drain", "--drain-port", port, "--drain-time", "1m").
		CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// With no connection, drain ends with 0, also where the time is over before its second look.
func TestDrainOfAnIdleServiceWhenTheTimeIsOver(t *testing.T) {
	t.Parallel()
	exe, err := binary()
	require.NoError(t, err)
	out, err := exec.Command(exe, "drain", "--drain-port", "1", "--drain-time", "1ns").
		CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "drained ports=[1]")
}

func TestParseSockets(t *testing.T) {
	t.Parallel()
	text := "  sl  local_address rem_address   st tx_queue\n" +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0       " +
		" 0 1\n" +
		"   1: 00000000000000000000000001000000:1F91 00000000000000000000000001000000:C350 01 0:0\n" +
		"   2: 0100007F:1F90 x 1FF\n   3: cut\n"
	require.Equal(t, []socket{{8080, listening}, {8081, established}}, parseSockets(text))
}
