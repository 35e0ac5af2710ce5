//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseReadOnly(t *testing.T) {
	t.Parallel()
	from, to, ok := parseReadOnly("00400000-00565000 r-xp 00000000 00:2d 7 /sbin/envconfig\n")
	require.True(t, ok)
	require.Equal(t, []uintptr{0x400000, 0x565000}, []uintptr{from, to})
	for _, line := range []string{
		"006f6000-00708000 rw-p 002f6000 00:2d 7 /sbin/envconfig\n", "", "x", "1-2", "1 r--p",
		"2-1 r--p", "g-h r--p",
		"00400000-00565000 ---p 00000000 00:2d 7 /sbin/envconfig\n",
	} {
		_, _, ok := parseReadOnly(line)
		require.False(t, ok, line)
	}
}
