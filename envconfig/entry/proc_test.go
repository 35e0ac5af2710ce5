//go:build linux

package entry

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	s, ok := parseStat("12 (a b) (c)) Z 7 1 1 0\n")
	require.True(t, ok)
	require.Equal(t, stat{Process: Process{12, "a b) (c)"}, parent: 7, zombie: true}, s)
	for _, bad := range []string{"", "12", "12 (a", "x (a) S 1", "1 (a) S", ")("} {
		_, ok := parseStat(bad)
		require.False(t, ok, bad)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (a b) (c)) S 1 1 1")
	f.Fuzz(func(t *testing.T, line string) { parseStat(line) })
}
