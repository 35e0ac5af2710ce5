package agenthttp

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

// silent is a Driver of an Nginx whose state and routes are set.
type silent struct {
	state  nginxsync.DriverState
	routes nginxsync.Routes
	err    error
}

func (s silent) Apply(context.Context, nginxsync.Delta) error { return s.err }

func (s silent) State(context.Context) (nginxsync.DriverState, error) { return s.state, s.err }

func (s silent) Routes(context.Context) (nginxsync.Routes, error) {
	return s.routes, s.err
}

// opened is an agent that does not run.
func opened(t *testing.T) *nginxsync.Agent {
	t.Helper()
	a, err := nginxsync.OpenAgent(t.Context(), nginxsync.Config{Driver: silent{},
		Source: nginxsync.NewStaticSource(nginxsync.Snapshot{})})
	require.NoError(t, err)
	return a
}

func TestConfig(t *testing.T) {
	t.Parallel()
	damaged := filepath.Join(t.TempDir(), "drained")
	require.NoError(t, os.WriteFile(damaged, []byte("{"), 0o600))
	one := Target{Name: "a", Agent: opened(t), Driver: silent{}}
	checktest.Run(t, nginxsync.ErrInvalid, Config{Targets: []Target{one}},
		func(cfg Config) error { _, err := New(cfg); return err },
		map[string][]func(*Config){
			"Targets": {
				func(cfg *Config) { cfg.Targets = nil },
				func(cfg *Config) { cfg.Targets = []Target{{Name: "a"}} },
				func(cfg *Config) { cfg.Targets = []Target{one, one} },
			},
			"Sources":   {func(cfg *Config) { cfg.Sources = []Source{{Kind: "file"}} }},
			"Lag":       {func(cfg *Config) { cfg.Lag = -1 }},
			"Timeout":   {func(cfg *Config) { cfg.Timeout = -1 }},
			"DrainFile": {func(cfg *Config) { cfg.DrainFile = damaged }},
		}, "Checks", "Metrics", "Logger", "Now", "Observe")
}
