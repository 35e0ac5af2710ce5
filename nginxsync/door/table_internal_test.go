package door

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// No task gets a port that another has, or had less than the rest ago, and none gets a used port
// while one was never used.
func TestChoose(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const first, last, rest = 100, 105, 10 * time.Hour
		var now table
		clock := time.Unix(1e9, 0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			clock = clock.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "hours")) * time.Hour)
			if len(now.Ports) > 0 && rapid.Bool().Draw(t, "end") {
				at := rapid.IntRange(0, len(now.Ports)-1).Draw(t, "which")
				if now.Ports[at].Ended.IsZero() {
					now.Ports[at].Ended = clock
				}
				continue
			}
			taken := map[int]bool{rapid.IntRange(first, last).Draw(t, "taken"): true}
			port, ok := now.unused(first, last, taken)
			if !ok {
				port, ok = now.rested(first, last, clock, rest, taken)
			}
			if !ok {
				for _, a := range now.Ports {
					require.True(t, taken[a.Port] || a.Ended.IsZero() ||
						clock.Sub(a.Ended) < rest)
				}
				continue
			}
			require.False(t, taken[port])
			require.True(t, first <= port && port <= last)
			for _, a := range now.Ports {
				if a.Port == port {
					require.False(t, a.Ended.IsZero())
					require.GreaterOrEqual(t, clock.Sub(a.Ended), rest)
					require.GreaterOrEqual(t, len(now.Ports)+len(taken), last-first+1)
				}
			}
			now = now.with(port, clock.String(), clock)
			task, ok := now.on(port)
			require.True(t, ok)
			require.Equal(t, clock.String(), task)
		}
	})
}
