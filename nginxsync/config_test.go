package nginxsync_test

import (
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	type config = nginxsync.Config
	checktest.Run(t, nginxsync.ErrInvalid,
		config{Source: nginxsync.NewStaticSource(nginxsync.Snapshot{}), Driver: &memoryDriver{}},
		func(cfg config) error {
			_, err := nginxsync.OpenAgent(t.Context(), cfg)
			return err
		},
		map[string][]func(*config){
			"Source":     {func(c *config) { c.Source = nil }},
			"Driver":     {func(c *config) { c.Driver = nil }},
			"CheckEvery": {func(c *config) { c.CheckEvery = -time.Second }},
			"Timeout":    {func(c *config) { c.Timeout = -1 }},
			"Guard": {func(c *config) { c.Guard.Share = -0.1 },
				func(c *config) { c.Guard.Share = 1.1 },
				func(c *config) { c.Guard.AlarmAfter = -1 },
				func(c *config) { c.Guard.ReleaseAfter = -1 }},
		}, "StateFile", "Logger", "Now", "Observe")
}
