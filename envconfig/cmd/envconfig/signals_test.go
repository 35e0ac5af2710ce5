//go:build linux

package main

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Without a receiver, ten thousand signals of one kind keep no other from its turn, and real-time
// signals keep their number.
func TestCoalesce(t *testing.T) {
	t.Parallel()
	to, come := make(chan os.Signal), make(chan os.Signal)
	go coalesce(to, come)
	for range 10_000 {
		come <- syscall.SIGUSR1
	}
	come <- syscall.Signal(40)
	come <- syscall.SIGTERM
	come <- syscall.Signal(40)
	come <- syscall.SIGUSR1
	for _, want := range []syscall.Signal{syscall.SIGUSR1, 40, syscall.SIGTERM, 40} {
		require.Equal(t, want, <-to)
	}
	come <- syscall.SIGTERM // it was sent, so that another one counts
	require.Equal(t, syscall.SIGTERM, <-to)
}
