package signame

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{
		"TERM": 15, "SIGTERM": 15, "sigquit": 3, "9": 9, "64": 64, "RTMIN": 34, "SIGRTMIN+3": 37,
		"rtmax": 64, "RTMAX-14": 50,
	} {
		n, ok := Parse(name)
		require.True(t, ok, name)
		require.Equal(t, want, n, name)
	}
	for _, bad := range []string{"", "SIG", "TERMS", "0", "65", "-1", "1.5", "RTMIN+31", "RTMIN-1",
		"RTMAX-31", "RTMAX+1", "SIG SIG", "+15x"} {
		_, ok := Parse(bad)
		require.False(t, ok, bad)
	}
	require.True(t, CanBeCaught(15))
	for _, n := range []int{0, 9, 19, 65, -1} {
		require.False(t, CanBeCaught(n), n)
	}
}
