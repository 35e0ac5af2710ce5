package conventions_test

import (
	"go/ast"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var camelCase = regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`)

// TestJSON: the members of JSON that we write are in camelCase.
func TestJSON(t *testing.T) {
	t.Parallel()
	exceptions := otherCases
	for _, s := range code(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			field, ok := n.(*ast.Field)
			if !ok || field.Tag == nil {
				return true
			}
			tag, _ := strconv.Unquote(field.Tag.Value)
			name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
			if name != "" && name != "-" && !camelCase.MatchString(name) {
				report(t, exceptions, field.Pos(), "JSON member %q: want camelCase", name)
			}
			return true
		})
	}
	needed(t, exceptions)
}

// TestWatch: Watch(ctx, after) returns the changes after the revision.
func TestWatch(t *testing.T) {
	t.Parallel()
	exceptions := otherWatches
	check := func(name *ast.Ident, f *ast.FuncType) {
		if name.Name != "Watch" || f.Params.NumFields() < 2 ||
			!isSelector(f.Params.List[0].Type, "context", "Context") {
			return
		}
		if second := f.Params.List[1]; len(second.Names) != 1 || second.Names[0].Name != "after" {
			report(t, exceptions, name.Pos(), "the second parameter of Watch is called after")
		}
	}
	for _, s := range code(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				check(n.Name, n.Type)
			case *ast.InterfaceType:
				for _, method := range n.Methods.List {
					if f, ok := method.Type.(*ast.FuncType); ok {
						check(method.Names[0], f)
					}
				}
			}
			return true
		})
	}
	needed(t, exceptions)
}

// TestConstructors: a Config is the parameter cfg, the last one, of a New or an Open that returns
// an error.
func TestConstructors(t *testing.T) {
	t.Parallel()
	exceptions := otherConstructors
	for _, s := range code(t) {
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() || f.Type.Params.NumFields() == 0 {
				continue
			}
			last := f.Type.Params.List[len(f.Type.Params.List)-1]
			if config, ok := last.Type.(*ast.Ident); !ok || config.Name != "Config" {
				continue
			}
			if len(last.Names) != 1 || last.Names[0].Name != "cfg" {
				report(t, exceptions, f.Pos(), "%s: the parameter of type Config is called cfg",
					f.Name)
			}
			if !returnsError(f.Type) {
				report(t, exceptions, f.Pos(),
					"%s takes a Config, which may be invalid, and returns no error", f.Name)
			}
		}
	}
	needed(t, exceptions)
}

func returnsError(f *ast.FuncType) bool {
	if f.Results == nil {
		return false
	}
	last, ok := f.Results.List[len(f.Results.List)-1].Type.(*ast.Ident)
	return ok && last.Name == "error"
}
