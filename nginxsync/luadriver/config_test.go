package luadriver_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	type config = luadriver.Config
	checktest.Run(t, nginxsync.ErrInvalid, config{Socket: "/run/x.sock"},
		func(cfg config) error {
			_, err := luadriver.New(cfg)
			return err
		},
		map[string][]func(*config){
			"Socket":  {func(c *config) { c.Socket = "" }, func(c *config) { c.Socket = "x.sock" }},
			"Timeout": {func(c *config) { c.Timeout = -1 }},
		}, "Now", "Observe")
}

func TestSnippetConfig(t *testing.T) {
	t.Parallel()
	type config = luadriver.SnippetConfig
	checktest.Run(t, nginxsync.ErrInvalid, config{Socket: "/run/x.sock",
		StateFile: "/var/lib/routes"}, config.Validate,
		map[string][]func(*config){
			"Socket": {func(c *config) {
				c.Socket = ""
			}, func(c *config) { c.Socket = "/run/a b" }},
			"Unavailable": {func(c *config) { c.Unavailable = "x" }},
			"StateFile":   {func(c *config) { c.StateFile = "/x\"" }},
			"Memory":      {func(c *config) { c.Memory = -1 }},
			"Tick":        {func(c *config) { c.Tick = -1 }},
			"ModulesDir":  {func(c *config) { c.ModulesDir = "modules" }},
			"LuaPath":     {func(c *config) { c.LuaPath = "/x\"; load_module" }},
		}, "BuiltIn")
}
