package luadriver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNginxDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"10": 10 * time.Second, "0": 0, "10s": 10 * time.Second, "500ms": 500 * time.Millisecond,
		"1m": time.Minute,
		"2h": 2 * time.Hour, "1d": day, "2w": 14 * day, "1M": 30 * day, "1y": 365 * day,
		"1h30m":  90 * time.Minute,
		"1h 30m": 90 * time.Minute, "1d 2h 3m 4s": day + 2*time.Hour + 3*time.Minute +
			4*time.Second, "1m 30": 90 * time.Second,
	} {
		got, ok := nginxDuration(text)
		require.True(t, ok, text)
		require.Equal(t, want, got, text)
		require.Equal(t, want.Seconds(), seconds(text, -1), text)
	}
	for _, text := range []string{"", " ", "s", "-1", "1.5s", "1x", "30m1h", "1m1m",
		"99999999999999999999", "300y"} {
		_, ok := nginxDuration(text)
		require.False(t, ok, text)
		require.EqualValues(t, 7, seconds(text, 7), text)
	}
}

// Where Lua is compiled in no module is loaded.
func TestSnippetsForBuiltInLua(t *testing.T) {
	t.Parallel()
	require.NotEmpty(t, Snippets(SnippetConfig{Socket: "/s"}).Modules)
	require.Empty(t, Snippets(SnippetConfig{Socket: "/s", BuiltIn: true}).Modules)
}
