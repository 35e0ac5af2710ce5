package supervisor_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
	"github.com/sluice-deploy/sluice/nginxsync/supervisor"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	checktest.Run(t, nginxsync.ErrInvalid, supervisor.Config{Prefix: "/srv/nginx"},
		func(cfg supervisor.Config) error { _, err := supervisor.New(cfg); return err },
		map[string][]func(*supervisor.Config){
			"Prefix": {func(cfg *supervisor.Config) { cfg.Prefix = "srv" },
				func(cfg *supervisor.Config) { cfg.Prefix = "srv/nginx" }},
			"Main":       {func(cfg *supervisor.Config) { cfg.Main = "nginx.conf" }},
			"PIDFile":    {func(cfg *supervisor.Config) { cfg.PIDFile = "nginx.pid" }},
			"ErrorLog":   {func(cfg *supervisor.Config) { cfg.ErrorLog = "stderr" }},
			"CheckEvery": {func(cfg *supervisor.Config) { cfg.CheckEvery = -1 }},
		}, "Program", "Before", "Logger", "Now", "Observe")
}
