package conventions_test

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// TestCause: ctx.Err() is compared with nil and nothing else; an error that leaves a function is
// context.Cause(ctx).
func TestCause(t *testing.T) {
	t.Parallel()
	exceptions := bareContextErrors
	for _, s := range code(t) {
		contexts := contextNames(s.file)
		compared := map[*ast.CallExpr]bool{}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if n.Op == token.EQL || n.Op == token.NEQ {
					if call, ok := n.X.(*ast.CallExpr); ok && isNil(n.Y) {
						compared[call] = true
					}
				}
			case *ast.CallExpr:
				selector, ok := n.Fun.(*ast.SelectorExpr)
				if ok && selector.Sel.Name == "Err" && len(n.Args) == 0 && !compared[n] &&
					isContext(selector.X, contexts) {
					report(t, exceptions, n.Pos(),
						"Err of a context is used as a value: use context.Cause")
				}
			}
			return true
		})
	}
	needed(t, exceptions)
}

func isNil(e ast.Expr) bool {
	x, ok := e.(*ast.Ident)
	return ok && x.Name == "nil"
}

// isContext reports whether e is a name of a context, a field of such a name, or a call of Context.
func isContext(e ast.Expr, contexts map[string]bool) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return contexts[e.Name]
	case *ast.SelectorExpr:
		return contexts[e.Sel.Name]
	case *ast.CallExpr:
		selector, ok := e.Fun.(*ast.SelectorExpr)
		return ok && selector.Sel.Name == "Context"
	}
	return false
}

// contextNames returns the names of the file's parameters, fields and variables that are contexts,
// and ctx.
func contextNames(file *ast.File) map[string]bool {
	names := map[string]bool{"ctx": true}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			if isSelector(n.Type, "context", "Context") {
				for _, name := range n.Names {
					names[name.Name] = true
				}
			}
		case *ast.AssignStmt:
			call, ok := n.Rhs[0].(*ast.CallExpr)
			if !ok {
				break
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !strings.HasPrefix(selector.Sel.Name, "With") ||
				!isSelector(selector, "context", selector.Sel.Name) {
				break
			}
			if name, ok := n.Lhs[0].(*ast.Ident); ok {
				names[name.Name] = true
			}
		}
		return true
	})
	return names
}

// TestClock: a package whose configuration has a clock asks that clock.
func TestClock(t *testing.T) {
	t.Parallel()
	exceptions := systemClocks
	clocked := map[string]bool{}
	for _, s := range code(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok && len(field.Names) == 1 &&
				field.Names[0].Name == "Now" {
				clocked[s.dir()] = true
			}
			return true
		})
	}
	for _, s := range code(t) {
		if !clocked[s.dir()] {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			for _, name := range []string{"Now", "Since", "Until"} {
				if isCall(call, "time", name) {
					report(t, exceptions, call.Pos(),
						"time.%s is called beside a clock of the configuration", name)
				}
			}
			return true
		})
	}
	needed(t, exceptions)
}
