package httpbundle_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/httpbundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	type config = httpbundle.Config
	checktest.Run(t, bundle.ErrInvalid, config{URL: "http://h/x"},
		func(cfg config) error {
			_, err := httpbundle.New(cfg)
			return err
		},
		map[string][]func(*config){
			"URL": {func(c *config) {
				c.URL = ""
			}, func(c *config) { c.URL = "ftp://h/x" }},
			"ChecksumURL": {func(c *config) { c.ChecksumURL = "x" }},
			"Subdir":      {func(c *config) { c.Subdir = "/x" }},
			"Every":       {func(c *config) { c.Every = -1 }},
			"Timeout":     {func(c *config) { c.Timeout = -1 }},
			"Roots":       {func(c *config) { c.Roots = conf.Roots{"etc": "."} }},
			"Limits": {func(c *config) {
				c.Limits.Files = -1
			}, func(c *config) { c.Limits.Bytes = -1 },
				func(c *config) { c.Limits.FileBytes = -1 }},
		}, "Header", "Client")
}
