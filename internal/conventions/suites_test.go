package conventions_test

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// suites says which package holds the implementations of an interface to its contract.
var suites = map[string]string{
	"builder.Engine":            "builder/enginetest",
	"builder/builds.Compacter":  "builder/builds/buildstest",
	"builder/builds.Journal":    "builder/builds/buildstest",
	"builder/builds.Logs":       "builder/builds/buildstest",
	"builder/builds.Owners":     "builder/builds/buildstest",
	"builder/source.Fetcher":    "builder/source/sourcetest",
	"nginxsync.Drainer":         "nginxsync/drivertest",
	"nginxsync.Driver":          "nginxsync/drivertest",
	"nginxsync.Source":          "nginxsync/sourcetest",
	"nginxsync/bundle.Source":   "nginxsync/bundle/bundletest",
	"nginxsync/mirror.Nginx":    "nginxsync/mirror/mirrortest",
	"promote.Archive":           "promote/archivetest",
	"promote.Deployer":          "promote/deployertest",
	"promote.Gate":              "promote/gatetest",
	"promote.Journal":           "promote/journaltest",
	"promote.Owners":            "promote/ownerstest",
	"promote.PureGate":          "promote/gatetest",
	"promote.Trimmer":           "promote/journaltest",
	"promote/rollout.Instances": "promote/rollout/rollouttest",
	"promote/rollout.Records":   "promote/rollout/rollouttest",
	"promote/rollout.Routes":    "promote/rollout/rollouttest",
	"promote/rollout.Switch":    "promote/rollout/rollouttest",
	"vip/provision.Driver":      "vip/provision/provisiontest",
	"vip.Store":                 "vip/storetest",
	"vip.Watcher":               "vip/storetest",
}

// embedders are interfaces that only embedders and examples implement.
var embedders = []string{"promote/rollout.Instances", "promote/rollout.Switch"}

// TestSuites: an interface that several packages implement has a suite, which the tests of each
// implementation run.
func TestSuites(t *testing.T) {
	t.Parallel()
	exceptions := withoutSuite
	implementations := map[string]map[string]token.Pos{} // by interface, by package
	for _, s := range code(t) {
		for name, at := range implemented(s) {
			if implementations[name] == nil {
				implementations[name] = map[string]token.Pos{}
			}
			implementations[name][s.dir()] = at
		}
	}
	run := suitesRun(t)
	for name, packages := range implementations {
		suite, ok := suites[name]
		for dir, at := range packages {
			if !ok && len(packages) > 1 {
				report(t, exceptions, at, "%s is implemented by %d packages and has no suite", name,
					len(packages))
			}
			if ok && !slices.Contains(run[dir], suite) {
				report(t, exceptions, at, "%s is implemented here, and no test of %s runs %s", name,
					dir, suite)
			}
		}
	}
	for name, suite := range suites {
		if !slices.ContainsFunc(files(t), func(s source) bool {
			return s.dir() == suite &&
				hasRun(s.file)
		}) {
			t.Errorf("%s: there is no suite %s with a function Run", name, suite)
		}
		if len(implementations[name]) == 0 && !slices.Contains(embedders, name) {
			t.Errorf("%s: found no implementation: has it been renamed?", name)
		}
	}
	needed(t, exceptions)
}

// implemented returns the interfaces of this module that the file asserts to implement, by a
// declaration such as var _ promote.Journal = (*Journal)(nil).
func implemented(s source) map[string]token.Pos {
	found := map[string]token.Pos{}
	for _, decl := range s.file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			spec := spec.(*ast.ValueSpec)
			if spec.Names[0].Name != "_" {
				continue
			}
			switch typ := spec.Type.(type) {
			case *ast.Ident:
				found[s.dir()+"."+typ.Name] = spec.Pos()
			case *ast.SelectorExpr:
				if dir, ok := imported(s.file, typ.X.(*ast.Ident).Name); ok {
					found[dir+"."+typ.Sel.Name] = spec.Pos()
				}
			}
		}
	}
	return found
}

// imported returns the directory of this module's package that the file knows by name.
func imported(file *ast.File, name string) (dir string, ok bool) {
	for _, spec := range file.Imports {
		full := strings.Trim(spec.Path.Value, `"`)
		known := path.Base(full)
		if spec.Name != nil {
			known = spec.Name.Name
		}
		if known == name {
			return strings.CutPrefix(full, module+"/")
		}
	}
	return "", false
}

// suitesRun returns, for each directory, the suites whose Run its tests call.
func suitesRun(t *testing.T) map[string][]string {
	run := map[string][]string{}
	for _, s := range files(t) {
		if !s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := selector.X.(*ast.Ident); ok {
				dir, ok := imported(s.file, x.Name)
				if ok && isSuite(dir, selector.Sel.Name) {
					run[s.dir()] = append(run[s.dir()], dir)
				}
			}
			return true
		})
	}
	return run
}

// isSuite reports whether a function of a package is its suite, or the part of the suite that has
// the name of an interface.
func isSuite(dir, function string) bool {
	if strings.HasPrefix(function, "Run") {
		return true
	}
	for name, suite := range suites {
		if suite == dir && strings.HasSuffix(name, "."+function) {
			return true
		}
	}
	return false
}

func hasRun(file *ast.File) bool {
	return slices.ContainsFunc(file.Decls, func(d ast.Decl) bool {
		f, ok := d.(*ast.FuncDecl)
		return ok && f.Recv == nil && f.Name.Name == "Run"
	})
}
