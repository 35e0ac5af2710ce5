//go:build unix

package assemble_test

import (
	"regexp"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// Each template of the catalogue that runs no command is built, runs as a user with a number,
// starts through envconfig and stops with the signal at which its service finishes open requests.
func TestCatalogWithoutRun(t *testing.T) {
	t.Parallel()
	host := serve(t)
	base := pushBase(t, host+"/base:1", v1.Config{}, layerOf(t, "etc/", "app/"))
	files := map[string]map[string]string{
		"dotnet":  {"publish/Pricing.dll": "dll"},
		"java":    {"app.jar": "jar"},
		"nginx":   {"nginx/nginx.conf": "events {}"},
		"php-fpm": {"app/public/index.php": "<?php"},
		"spring-boot": {"app/dependencies/lib/a.jar": "a", "app/spring-boot-loader/b": "b",
			"app/snapshot-dependencies/c": "c", "app/application/app.jar": "d"},
		"static-site": {"site/index.html": "<p>"},
		"go-static":   {"app": "elf"},
	}
	signals := map[string]string{"nginx": "SIGQUIT", "php-fpm": "SIGQUIT", "static-site": "SIGQUIT"}
	numeric := regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`)
	for _, tmpl := range builder.Default().Newest() {
		if tmpl.NeedsRun() {
			continue
		}
		t.Run(tmpl.ID(), func(t *testing.T) {
			t.Parallel()
			values := tmpl.Examples()
			values["BASE_IMAGE"] = base
			dockerfile, err := tmpl.Render(values)
			if err != nil {
				t.Fatal(err)
			}
			content := map[string]string{"envconfig": "elf", "manifest.json": "{}",
				"envs/_base/app/a": "1"}
			if files[tmpl.Name] == nil {
				t.Fatal("the test has no files for the template")
			}
			for name, text := range files[tmpl.Name] {
				content[name] = text
			}
			_, fsys := contextDir(t, content, 0o644)
			if err := tmpl.CheckContext(fsys, values); err != nil {
				t.Fatal(err)
			}
			res, err := newEngine(t, assemble.Config{}).Build(t.Context(), builder.Request{
				Dockerfile: dockerfile, Context: fsys, Repository: host + "/" + tmpl.Name,
				Tag: "v1", Labels: tmpl.Labels()})
			if err != nil {
				t.Fatal(err)
			}
			config, err := fetch(t, res.Reference).ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			got := config.Config
			if !numeric.MatchString(got.User) || len(got.Entrypoint) < 3 ||
				got.Entrypoint[0] != "/sbin/envconfig" || got.StopSignal != signals[tmpl.Name] ||
				got.Healthcheck == nil || len(got.Healthcheck.Test) != 4 ||
				got.Labels[builder.LabelTemplate] != tmpl.ID() {
				t.Errorf("configuration is %+v", got)
			}
		})
	}
}
