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

func TestInitValidates(t *testing.T) {
	t.Parallel()
	good := &Command{Path: "/bin/true", Args: []string{"true"}}
	for name, c := range map[string]struct {
		init    Init
		command *Command
		want    string
	}{
		"Grace": {Init{Grace: -5}, good, "entry: Init.Grace: -5ns: want 0 (default 25s) " +
			"or more: invalid"},
		"OnMainExit": {Init{OnMainExit: 7}, good, "entry: Init.OnMainExit: 7: want Stop or " +
			"Wait: invalid"},
		"MapExit to": {Init{MapExit: map[int]int{1: 256}}, good, "entry: Init.MapExit: 1:256: " +
			"want exit"},
		"MapExit from": {Init{MapExit: map[int]int{-1: 0}}, good, "entry: Init.MapExit: -1:0: " +
			"want exit"},
		"no command":   {Init{}, nil, "entry: Command: want a Path"},
		"Command.Path": {Init{}, &Command{Args: []string{"x"}}, "entry: Command: want a Path"},
		"Command.Args": {Init{}, &Command{Path: "/bin/true"}, "entry: Command: want a Path"},
		"first of all": {Init{Grace: -1, OnMainExit: -1}, nil, "Init.Grace: -1"},
		"last of all":  {Init{Grace: -1, OnMainExit: -1}, nil, "Command"},
	} {
		_, err := c.init.Run(c.command, nil, nil)
		require.ErrorIs(t, err, ErrInvalid, name)
		require.ErrorContains(t, err, c.want, name)
	}
}

// noGroup is a process group that does not exist: it is above the largest process id of Linux.
const noGroup = 1 << 23
