package consulbundle_test

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/consulbundle"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	type config = consulbundle.Config
	checktest.Run(t, bundle.ErrInvalid, config{Client: new(api.Client), Prefix: "x"},
		func(cfg config) error {
			_, err := consulbundle.New(cfg)
			return err
		},
		map[string][]func(*config){
			"Client":   {func(c *config) { c.Client = nil }},
			"Prefix":   {func(c *config) { c.Prefix = "" }, func(c *config) { c.Prefix = "/x" }},
			"Wait":     {func(c *config) { c.Wait = -1 }, func(c *config) { c.Wait = time.Hour }},
			"Settle":   {func(c *config) { c.Settle = -1 }},
			"Interval": {func(c *config) { c.Interval = -1 }},
			"Limits": {func(c *config) {
				c.Limits.Files = -1
			}, func(c *config) { c.Limits.Bytes = -1 }},
		}, "Now")
}
