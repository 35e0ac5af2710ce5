package envconfig_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/envconfig"
)

func ExampleScan() {
	image := fstest.MapFS{
		"envs/_base/opt/web/log.conf":      {Data: []byte("level=info\n")},
		"envs/test/opt/web/app.conf":       {Data: []byte("db=test-db\n")},
		"envs/production/opt/web/app.conf": {Data: []byte("db=prod-db\n")},
	}
	manifest, err := envconfig.Scan(image)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(manifest.Names(), manifest.Required)
	_, err = manifest.Select("prod")
	fmt.Println(errors.Is(err, envconfig.ErrUnknownEnvironment), err)
	// Output:
	// [production test] [opt/web/app.conf opt/web/log.conf]
	// true environment "prod": not in the manifest; did you mean "production"; the image has production, test
}

func ExampleActivator() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	source := filepath.Join(dir, "etc/envconfig")
	_ = os.CopyFS(source, fstest.MapFS{
		"envs/test/opt/app.conf":       {Data: []byte("db=test-db\n")},
		"envs/production/opt/app.conf": {Data: []byte("db=prod-db\n")},
	})
	activator := envconfig.Activator{Source: source, Root: dir, State: filepath.Join(dir, "run")}
	for _, environment := range []string{"test", "production", "production"} {
		r, err := activator.Activate(context.Background(), environment)
		if err != nil {
			fmt.Println(err)
			return
		}
		active, _ := os.ReadFile(filepath.Join(dir, "opt/app.conf"))
		fmt.Printf("%s: created %d, replaced %d, kept %d: %s", r.Environment, r.Created, r.Replaced,
			r.Kept, active)
	}
	// Output:
	// test: created 1, replaced 0, kept 0: db=test-db
	// production: created 0, replaced 1, kept 0: db=prod-db
	// production: created 0, replaced 0, kept 1: db=prod-db
}
