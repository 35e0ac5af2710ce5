package door_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/door"
)

func TestBadConfig(t *testing.T) {
	t.Parallel()
	good := func() door.Config {
		return door.Config{
			Task: func(context.Context, string) (door.Task, error) {
				return door.Task{}, door.ErrNotFound
			},
			Serves:  func(string, int) bool { return false },
			Targets: map[int]int{80: 8880}, Shared: "127.0.0.1:0"}
	}
	for field, edit := range map[string]func(*door.Config){
		"Task":       func(c *door.Config) { c.Task = nil },
		"Serves":     func(c *door.Config) { c.Serves = nil },
		"Targets":    func(c *door.Config) { c.Targets = map[int]int{80: 0} },
		"First":      func(c *door.Config) { c.First, c.Last, c.State = 2, 1, "x" },
		"State":      func(c *door.Config) { c.First, c.Last = 1, 2 },
		"Host":       func(c *door.Config) { c.Host = "localhost" },
		"Shared":     func(c *door.Config) { c.Shared = "8801" },
		"Rest":       func(c *door.Config) { c.Rest = time.Hour },
		"Client":     func(c *door.Config) { c.Client = "via" },
		"Dial":       func(c *door.Config) { c.Dial = -1 },
		"Header":     func(c *door.Config) { c.Header = -1 },
		"Idle":       func(c *door.Config) { c.Idle = -1 },
		"Tunnel":     func(c *door.Config) { c.Tunnel = -1 },
		"HalfClosed": func(c *door.Config) { c.HalfClosed = -1 },
		"Grace":      func(c *door.Config) { c.Grace = -1 },
		"Recheck":    func(c *door.Config) { c.Recheck = -1 },
	} {
		cfg := good()
		edit(&cfg)
		_, err := door.Open(t.Context(), cfg)
		require.ErrorIs(t, err, door.ErrInvalid, field)
		require.ErrorContains(t, err, "door: Config."+field+": ")
	}
	cfg := good()
	cfg.Shared = ""
	_, err := door.Open(t.Context(), cfg)
	require.ErrorContains(t, err, "Config.Shared")
	cause := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err = door.Open(ctx, good())
	require.ErrorIs(t, err, cause)
}

func TestBadState(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "ports.json")
	cfg := door.Config{Task: func(context.Context, string) (door.Task, error) {
		return door.Task{}, door.ErrNotFound
	}, Serves: func(string, int) bool { return false }, Targets: map[int]int{80: 8880},
		First: 1, Last: 2, State: name}
	for _, text := range []string{"", "[]", `{"ports":[{"port":0,"task":"a"}]}`,
		`{"ports":[{"port":7,"task":""}]}`,
		`{"ports":[{"port":7,"task":"a"},{"port":7,"task":"b"}]}`} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		_, err := door.Open(t.Context(), cfg)
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, "repair the file")
	}
}

func TestParseRange(t *testing.T) {
	t.Parallel()
	first, last, err := door.ParseRange("21000-21999")
	require.NoError(t, err)
	require.Equal(t, [2]int{21000, 21999}, [2]int{first, last})
	for _, bad := range []string{"", "1", "2-1", "0-3", "1-65536", "1-2x", " 1-2", "1 - 2",
		"01-2"} {
		_, _, err := door.ParseRange(bad)
		require.ErrorIs(t, err, door.ErrInvalid, bad)
	}
}

func TestPAC(t *testing.T) {
	t.Parallel()
	pac := door.PAC("10.0.0.1:21000", []string{"bj.example", "*.city.example", ".both.example",
		"www.*", `"</script>`})
	require.Contains(t, pac, `"PROXY 10.0.0.1:21000"`)
	require.Equal(t, 1, strings.Count(pac, "DIRECT"))
	require.NotContains(t, pac, "</script>")
	require.Contains(t, door.PAC("x:1", []string{`~^a\d`}), "if (true ||")
}
