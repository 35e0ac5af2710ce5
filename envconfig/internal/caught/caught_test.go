package caught

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSignalsAreNotedAndGivenBack(t *testing.T) { // not parallel: signals belong to the whole process
	send := func(s syscall.Signal) { require.NoError(t, syscall.Kill(os.Getpid(), s)) }
	has := func(s syscall.Signal) func() bool { return func() bool { return Has(syscall.SIGHUP, s) == s } }
	Start(syscall.SIGUSR2)
	Start(syscall.SIGUSR2, syscall.SIGUSR1, 64, syscall.SIGCONT) // for the last the runtime has no handler until it is asked
	require.Zero(t, Has(syscall.SIGUSR1, syscall.SIGUSR2))
	for _, s := range []syscall.Signal{syscall.SIGUSR2, syscall.SIGUSR1, 64, syscall.SIGUSR1} {
		send(s)
		require.Eventually(t, has(s), 20*time.Second, time.Millisecond)
	}
	require.Equal(t, []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, 64}, Take())
	require.Empty(t, Take())

	// threads that are busy with something else, in the kernel and out of it, take no harm
	for range 1000 {
		done := make(chan struct{})
		go func() { runtime.LockOSThread(); close(done) }()
		send(syscall.SIGUSR1)
		<-done
	}
	require.Eventually(t, has(syscall.SIGUSR1), 20*time.Second, time.Millisecond)

	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT)
	defer signal.Stop(ch)
	Stop()
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGCONT} {
		send(s)
		require.Equal(t, s, <-ch)
	}
	require.Equal(t, []syscall.Signal{syscall.SIGUSR1}, Take())
}
