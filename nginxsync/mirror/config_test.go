package mirror_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check/checktest"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	type config = mirror.Config
	nginx := &paperNginx{}
	checktest.Run(t, nginxsync.ErrInvalid,
		config{Source: &bundle.DirSource{}, Nginx: nginx, Driver: nginx, Dir: "trees"},
		func(cfg config) error {
			_, err := mirror.New(cfg)
			return err
		},
		map[string][]func(*config){
			"Source": {func(c *config) { c.Source = nil }},
			"Nginx":  {func(c *config) { c.Nginx = nil }},
			"Driver": {func(c *config) { c.Driver = nil }},
			"Rules":  {func(c *config) { c.Rules.Listen = map[int]int{80: -1} }},
			"Main": {func(c *config) {
				c.Main = "/etc/nginx.conf"
			}, func(c *config) { c.Main = "../nginx.conf" }},
			"Roots":         {func(c *config) { c.Roots = conf.Roots{"etc/nginx": "."} }},
			"Dir":           {func(c *config) { c.Dir = "" }},
			"VerifyTimeout": {func(c *config) { c.VerifyTimeout = -1 }},
			"MaxRetired":    {func(c *config) { c.MaxRetired = -1 }},
			"MinInterval":   {func(c *config) { c.MinInterval = -1 }},
			"Watch":         {func(c *config) { c.Watch = -1 }},
			"DriftEvery":    {func(c *config) { c.DriftEvery = -1 }},
			"Keep":          {func(c *config) { c.Keep = -1 }},
		}, "Logger", "Now", "Observe", "Restart",
		"Approve")
}
