package builder_test

import (
	"bytes"
	"errors"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/sluice-deploy/sluice/builder"
)

func TestCheckContext(t *testing.T) {
	t.Parallel()
	tmpl, err := builder.Default().Template("node")
	if err != nil {
		t.Fatal(err)
	}
	values := tmpl.Examples()
	values["APP_DIR"] = "web"
	files := fstest.MapFS{"envconfig": {}, "envs/_base/a": {}, "web/package.json": {},
		"web/server.js": {}}
	err = tmpl.CheckContext(files, values)
	if !errors.Is(err, builder.ErrInvalid) || strings.Count(err.Error(), "lacks") != 2 ||
		!strings.Contains(err.Error(), "lacks web/package-lock.json: its lock file") ||
		!strings.Contains(err.Error(), "lacks manifest.json: ") {
		t.Errorf("error is %v", err)
	}
	files["web/package-lock.json"], files["manifest.json"] = &fstest.MapFile{}, &fstest.MapFile{}
	if err := tmpl.CheckContext(files, values); err != nil {
		t.Errorf("complete context: %v", err)
	}
	values["PORT"] = "x"
	var param *builder.ParamError
	if err := tmpl.CheckContext(files, values); !errors.As(err, &param) {
		t.Errorf("bad value: %v", err)
	}
}

// Each source that a template of the catalogue copies is named, or a file in it, by the template's
// list of context files.
func TestCatalogNamesItsContext(t *testing.T) {
	t.Parallel()
	for _, tmpl := range builder.Default().Templates() {
		res, err := parser.Parse(bytes.NewReader(tmpl.Source()))
		if err != nil {
			t.Fatal(err)
		}
		stages, _, err := instructions.Parse(res.AST, nil)
		if err != nil {
			t.Fatal(err)
		}
		var commands []instructions.Command
		for _, s := range stages {
			commands = append(commands, s.Commands...)
		}
		for _, c := range commands {
			from, ok := c.(*instructions.CopyCommand)
			if !ok || from.From != "" {
				continue
			}
			for _, src := range from.SourcePaths {
				named := false
				for _, f := range tmpl.Context {
					named = named || f.Path == src || strings.HasPrefix(f.Path, path.Clean(src)+"/")
				}
				if !named {
					t.Errorf("%s copies %s, its context does not name it", tmpl.ID(), src)
				}
			}
		}
	}
}
