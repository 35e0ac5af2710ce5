package dirbundle_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/dirbundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	type config = dirbundle.Config
	checktest.Run(t, bundle.ErrInvalid, config{Dir: "x"},
		func(cfg config) error {
			_, err := dirbundle.New(cfg)
			return err
		},
		map[string][]func(*config){
			"Dir":    {func(c *config) { c.Dir = "" }},
			"Settle": {func(c *config) { c.Settle = -1 }},
			"Every":  {func(c *config) { c.Every = -1 }},
			"Roots":  {func(c *config) { c.Roots = conf.Roots{"etc": "."} }},
			"Extra": {func(c *config) {
				c.Extra = map[string]string{"../x": "/usr"}
			}, func(c *config) { c.Extra = map[string]string{"x": ""} }},
			"Limits": {func(c *config) {
				c.Limits.Files = -1
			}, func(c *config) { c.Limits.Bytes = -1 },
				func(c *config) { c.Limits.FileBytes = -1 }},
		})
}
