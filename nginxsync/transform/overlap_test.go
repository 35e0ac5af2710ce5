package transform

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A name takes a host from another one where Nginx would prefer it.
func TestTakes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, from string
		want       bool
	}{
		{"a.x", "a.x", false}, {"a.x", "b.x", false}, {"a.x", "*.x", true}, {"x", "*.x", false},
		{"*.x", "a.x", false}, {"*.a.x", "*.x", true}, {"*.x", "*.a.x", false},
		{"*.a.x", "*.b.x", false}, {"www.*", "*.x", false}, {"*.x", "www.*", true},
		{"www.x", "www.*", true}, {"web.x", "www.*", false}, {"www.a.*", "www.*", true},
		{"a7.x", `~^A\d`, true}, {"ax.x", `~^a\d`, false}, {"*.x", `~^a\d`, true},
		{`~^a\d`, "*.x", false}, {`~^a\d`, `~^a\D`, true}, {`~^a\d`, "a7.x", false},
		{"a.x", "~(", true}, {"", "*.x", false}, {"a.x", "", false},
	} {
		require.Equal(t, c.want, takes(c.name, c.from), "%s from %s", c.name, c.from)
	}
}
