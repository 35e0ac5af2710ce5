//go:build linux

package entry

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInit(t *testing.T) {
	t.Parallel()
	t.Run("closed signals are looked at once", func(t *testing.T) {
		t.Parallel()
		signals := make(chan os.Signal)
		close(signals)
		r := running{Init: &Init{}, signals: signals, ends: make(chan end)}
		require.False(t, r.turn())
		require.Nil(t, r.signals, "a closed channel is ready in every turn")
		close(r.ends)
		require.True(t, r.turn(), "the end of the children is still noticed")
	})
	t.Run("signals before the close are passed on", func(t *testing.T) {
		t.Parallel()
		const window = syscall.SIGWINCH // ignored where it is not handled
		signals := make(chan os.Signal, 1)
		signals <- window
		close(signals)
		r := running{Init: &Init{}, main: noGroup, signals: signals}
		require.False(t, r.turn())
		require.True(t, r.passed[window])
		require.False(t, r.turn())
		require.Nil(t, r.signals)
	})
}

// noGroup is a process group that does not exist: it is above the largest process id of Linux.
const noGroup = 1 << 23
