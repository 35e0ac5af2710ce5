package conventions_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// roots are the packages that the rules are for, with everything below them.
var roots = []string{"builder", "envconfig", "nginxsync", "promote", "vip"}

const module = "github.com/sluice-deploy/sluice"

// source is one file.
type source struct {
	name string // below the module's root
	file *ast.File
	test bool
}

// dir returns the file's directory below the module's root: the package, for these rules.
func (s source) dir() string { return path.Dir(s.name) }

var fileSet = token.NewFileSet()

// all parses every file below the roots, modules below them included, but no testdata.
var all = sync.OnceValues(func() ([]source, error) {
	var list []source
	top := filepath.Join("..", "..")
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join(top, root), func(file string, entry fs.DirEntry,
			err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() {
				if entry.Name() == "testdata" {
					return filepath.SkipDir
				}
				return nil
			}
			if !strings.HasSuffix(file, ".go") {
				return nil
			}
			parsed, err := parser.ParseFile(fileSet, file, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(top, file)
			list = append(list, source{filepath.ToSlash(name), parsed,
				strings.HasSuffix(file, "_test.go")})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
})

// code returns the files that are not tests; commands, and packages that only tests and benchmarks
// use, are left out.
func code(t *testing.T) []source {
	t.Helper()
	return slices.DeleteFunc(files(t), func(s source) bool {
		return s.test || slices.ContainsFunc(strings.Split(s.dir(), "/"), func(part string) bool {
			return part == "cmd" || part == "bench" || strings.HasSuffix(part, "test")
		})
	})
}

func files(t *testing.T) []source {
	t.Helper()
	list, err := all()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 200 {
		t.Fatalf("found %d files only", len(list))
	}
	return slices.Clone(list)
}

// exception is a breach that is known and stays for now.
type exception struct {
	where  string // a file, or a directory with everything below it
	reason string
	used   bool
}

// report fails t for a breach, unless one of the rule's exceptions covers its file.
func report(t *testing.T, exceptions []exception, at token.Pos, format string, args ...any) {
	t.Helper()
	position := fileSet.Position(at)
	name := filepath.ToSlash(strings.TrimPrefix(position.Filename,
		filepath.Join("..", "..")+string(filepath.Separator)))
	for i := range exceptions {
		if e := &exceptions[i]; name == e.where || strings.HasPrefix(name, e.where+"/") {
			e.used = true
			return
		}
	}
	t.Errorf("%s:%d: %s", name, position.Line, fmt.Sprintf(format, args...))
}

// needed fails t for every exception that covered nothing.
func needed(t *testing.T, exceptions []exception) {
	t.Helper()
	for _, e := range exceptions {
		if !e.used {
			t.Errorf("%s: the exception (%s) is not needed any more: remove it", e.where, e.reason)
		}
	}
}

// isCall reports whether e calls a function of a package by its usual name: isCall(e, "fmt",
// "Errorf").
func isCall(e ast.Expr, pkg, name string) bool {
	call, ok := e.(*ast.CallExpr)
	return ok && isSelector(call.Fun, pkg, name)
}

func isSelector(e ast.Expr, pkg, name string) bool {
	selector, ok := e.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	x, ok := selector.X.(*ast.Ident)
	return ok && x.Name == pkg
}
