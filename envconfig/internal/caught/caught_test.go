//go:build unix

package caught

import (
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSignalsAreNotedAndPassedOn(t *testing.T) {
	// not parallel: signals belong to the whole process
	send := func(s syscall.Signal) { require.NoError(t, syscall.Kill(os.Getpid(), s)) }
	has := func(s syscall.Signal) func() bool {
		return func() bool { return Has(syscall.SIGHUP, s) == s }
	}
	Start(syscall.SIGUSR2)
	// for the last the runtime has no handler until it is asked
	Start(syscall.SIGUSR2, syscall.SIGUSR1, 64, syscall.SIGCONT)
	require.Zero(t, Has(syscall.SIGUSR1, syscall.SIGUSR2))
	for _, s := range []syscall.Signal{64, syscall.SIGUSR2, syscall.SIGUSR1} {
		send(s)
		require.Eventually(t, has(s), time.Minute, time.Millisecond)
		require.Equal(t, s, Has(s), "looking forgets nothing")
	}
	// Threads that are busy with something else, in the kernel and out of it, take no harm. The
	// last of these signals may still be pending at one of them when this ends.
	for range 1000 {
		done := make(chan struct{})
		go func() { runtime.LockOSThread(); close(done) }()
		send(syscall.SIGUSR1)
		<-done
	}

	to := make(chan os.Signal, 2000) // all that are sent here
	receive := func() os.Signal {
		select {
		case s := <-to:
			return s
		case <-time.After(time.Minute):
			require.Fail(t, "no signal has come")
			return nil
		}
	}
	Pass(to)
	require.Equal(t, syscall.SIGUSR1, receive(), "lowest first")
	next := func() os.Signal {
		for {
			if s := receive(); s != syscall.SIGUSR1 {
				return s
			}
		}
	}
	require.Equal(t, syscall.SIGUSR2, next())
	require.Equal(t, syscall.Signal(64), next())
	// One that came twice, or that was noted and passed on, would come where another is waited for.
	for _, s := range []syscall.Signal{syscall.SIGCONT, syscall.SIGUSR2, 64, syscall.SIGCONT,
		syscall.SIGUSR2} {
		send(s)
		require.Equal(t, s, next())
	}
	require.Zero(t, Has(syscall.SIGUSR1, syscall.SIGUSR2, 64, syscall.SIGCONT))
}
