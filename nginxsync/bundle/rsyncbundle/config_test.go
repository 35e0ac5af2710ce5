package rsyncbundle_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/rsyncbundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	type config = rsyncbundle.Config
	checktest.Run(t, bundle.ErrInvalid, config{URL: "rsync://h/m", Dir: "x"},
		func(cfg config) error {
			_, err := rsyncbundle.New(cfg)
			return err
		},
		map[string][]func(*config){
			"URL": {func(c *config) {
				c.URL = ""
			}, func(c *config) { c.URL = "rsync://u:p@h/m" },
				func(c *config) { c.URL = "rsync://h" }},
			"Dir":     {func(c *config) { c.Dir = "" }},
			"Every":   {func(c *config) { c.Every = -1 }},
			"Timeout": {func(c *config) { c.Timeout = -1 }},
			"Roots":   {func(c *config) { c.Roots = conf.Roots{"etc": "."} }},
			"Limits": {func(c *config) {
				c.Limits.Files = -1
			}, func(c *config) { c.Limits.Bytes = -1 },
				func(c *config) { c.Limits.FileBytes = -1 }},
		}, "PasswordFile")
}
