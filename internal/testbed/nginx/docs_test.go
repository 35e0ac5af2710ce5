//go:build linux

package nginx_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/testing.md lists the tests that run on each Nginx as they stand in the calls of Others.
func TestDocumentedOthers(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "..")
	var rows []string
	require.NoError(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "nginx.Others(") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		for _, tests := range othersIn(file) {
			rows = append(rows, fmt.Sprintf("| `%s` | %s |", dir, strings.Join(tests, ", ")))
		}
		return err
	}))
	require.Greater(t, len(rows), 3)
	doc, err := os.ReadFile(filepath.Join(root, "docs", "testing.md"))
	require.NoError(t, err)
	const head = "| package | tests |\n| --- | --- |\n"
	_, table, ok := strings.Cut(string(doc), head)
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	require.Equal(t, strings.Join(rows, "\n"), table, "docs/testing.md wants this table:\n%s%s",
		head, strings.Join(rows, "\n"))
}

// othersIn returns the names of tests in each call of Others that gives any.
func othersIn(file *ast.File) (calls [][]string) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		fun, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || fun.Sel.Name != "Others" {
			return true
		}
		var names []string
		for _, arg := range call.Args[1:] {
			if lit, ok := arg.(*ast.BasicLit); ok {
				name, _ := strconv.Unquote(lit.Value)
				names = append(names, strings.TrimPrefix(name, "Test"))
			}
		}
		if len(names) > 0 {
			calls = append(calls, names)
		}
		return true
	})
	return calls
}
