package gitbundle_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/gitbundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	type config = gitbundle.Config
	checktest.Run(t, bundle.ErrInvalid, config{Repository: "/x", Ref: "main", Dir: "x"},
		func(cfg config) error {
			_, err := gitbundle.New(cfg)
			return err
		},
		map[string][]func(*config){
			"Repository": {func(c *config) {
				c.Repository = ""
			}, func(c *config) { c.Repository = "ext::sh" },
				func(c *config) { c.Repository = "%" }},
			"Ref": {func(c *config) {
				c.Ref = ""
			}, func(c *config) { c.Ref = "-x" }, func(c *config) { c.Ref = "a..b" }},
			"Subdir":  {func(c *config) { c.Subdir = "../x" }},
			"Dir":     {func(c *config) { c.Dir = "" }},
			"Every":   {func(c *config) { c.Every = -1 }},
			"Timeout": {func(c *config) { c.Timeout = -1 }},
			"Env": {func(c *config) {
				c.Env = []string{"=x"}
			}, func(c *config) { c.Env = []string{"PATH"} }},
			"Roots": {func(c *config) { c.Roots = conf.Roots{"etc": "."} }},
			"Limits": {func(c *config) {
				c.Limits.Files = -1
			}, func(c *config) { c.Limits.Bytes = -1 },
				func(c *config) { c.Limits.FileBytes = -1 }},
		})
}
