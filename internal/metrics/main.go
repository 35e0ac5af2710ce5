// Command metrics measures the shape of the Go code in a repository:
//
//	scripts/metrics [directory]
//
// It counts the files that git tracks, without testdata and generated files, and prints one
// Markdown row a figure. The page docs/metrics.md keeps the figures over time.
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	m, err := measure(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "metrics:", err)
		os.Exit(1)
	}
	m.print()
}

type figures struct {
	files, funcs      []int // lines each
	methods           map[string]int
	exported          map[string]int // by package directory
	documented        int
	comments, lines   int
	over100, over120  int
	packages, withDoc map[string]bool
	examples          map[string]bool
	tests, testLines  int
	interfaces        []int // methods each
}

func measure(dir string) (*figures, error) {
	cmd := exec.Command("git", "ls-files", "*.go")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files in %s: %w", dir, err)
	}
	m := &figures{
		methods: map[string]int{}, exported: map[string]int{}, packages: map[string]bool{},
		withDoc: map[string]bool{}, examples: map[string]bool{},
	}
	for _, name := range strings.Fields(string(out)) {
		if strings.Contains(name, "testdata/") || strings.Contains(name, "vendor/") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if bytes.Contains(data, []byte("\n// Code generated ")) {
			continue
		}
		if err := m.file(name, data); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *figures) file(name string, data []byte) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, data, parser.ParseComments)
	if err != nil {
		return err
	}
	pkg := filepath.Dir(name)
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	if strings.HasSuffix(name, "_test.go") {
		m.testLines += len(lines)
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				switch {
				case strings.HasPrefix(fn.Name.Name, "Test"):
					m.tests++
				case strings.HasPrefix(fn.Name.Name, "Example"):
					m.examples[pkg] = true
				}
			}
		}
		return nil
	}
	m.packages[pkg] = true
	if f.Doc != nil {
		m.withDoc[pkg] = true
	}
	m.files = append(m.files, len(lines))
	m.lines += len(lines)
	for _, l := range lines {
		if bytes.HasPrefix(bytes.TrimSpace(l), []byte("//")) {
			m.comments++
		}
		switch width := len([]rune(strings.ReplaceAll(string(l), "\t", "    "))); {
		case width > 120:
			m.over120++
			m.over100++
		case width > 100:
			m.over100++
		}
	}
	for _, d := range f.Decls {
		m.decl(fset, pkg, d)
	}
	return nil
}

func (m *figures) decl(fset *token.FileSet, pkg string, d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		m.funcs = append(m.funcs, fset.Position(d.End()).Line-fset.Position(d.Pos()).Line+1)
		owner := ""
		if d.Recv != nil {
			owner = receiver(d.Recv.List[0].Type)
			m.methods[pkg+"."+owner]++
		}
		if ast.IsExported(d.Name.Name) && (owner == "" || ast.IsExported(owner)) {
			m.export(pkg, d.Doc != nil)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					m.export(pkg, d.Doc != nil || s.Doc != nil || s.Comment != nil)
				}
				if i, ok := s.Type.(*ast.InterfaceType); ok {
					m.interfaces = append(m.interfaces, i.Methods.NumFields())
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() {
						m.export(pkg, d.Doc != nil || s.Doc != nil || s.Comment != nil)
					}
				}
			}
		}
	}
}

func (m *figures) export(pkg string, documented bool) {
	m.exported[pkg]++
	if documented {
		m.documented++
	}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

func (m *figures) print() {
	row := func(name, format string, args ...any) {
		fmt.Printf("| %s | "+format+" |\n", append([]any{name}, args...)...)
	}
	exported := 0
	perPackage := []int{}
	for pkg := range m.packages {
		exported += m.exported[pkg]
		perPackage = append(perPackage, m.exported[pkg])
	}
	largest, most := "", 0
	for t, n := range m.methods {
		if n > most || n == most && t < largest {
			largest, most = t, n
		}
	}
	percent := func(n, of int) float64 { return 100 * float64(n) / float64(max(1, of)) }
	row("files / code lines", "%d / %d", len(m.files), m.lines)
	row("file median / p90 / max", "%d / %d / %d", at(m.files, 50), at(m.files, 90),
		at(m.files, 100))
	row("files > 400 lines", "%d", over(m.files, 400))
	row("func median / p90 / p99 / max", "%d / %d / %d / %d", at(m.funcs, 50), at(m.funcs, 90),
		at(m.funcs, 99), at(m.funcs, 100))
	row("funcs > 60 lines", "%d (%.1f %%)", over(m.funcs, 60), percent(over(m.funcs, 60),
		len(m.funcs)))
	row("largest type: methods", "%d %s", most, largest)
	row("exported / documented", "%d / %.0f %%", exported, percent(m.documented, exported))
	row("exported per package median / max", "%d / %d", at(perPackage, 50), at(perPackage, 100))
	row("interfaces: n / median / max methods", "%d / %d / %d", len(m.interfaces),
		at(m.interfaces, 50), at(m.interfaces, 100))
	row("packages with doc", "%d/%d", len(m.withDoc), len(m.packages))
	row("packages with an Example", "%d/%d", len(m.examples), len(m.packages))
	row("comment lines %", "%.1f", percent(m.comments, m.lines))
	row("lines over 100 / 120 columns %", "%.1f / %.1f", percent(m.over100, m.lines),
		percent(m.over120, m.lines))
	row("tests / test lines : code lines", "%d / %.2f", m.tests,
		float64(m.testLines)/float64(max(1, m.lines)))
}

// at returns the value below which so many per cent of the values lie.
func at(values []int, percent int) int {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, len(s)*percent/100)]
}

func over(values []int, limit int) int {
	n := 0
	for _, v := range values {
		if v > limit {
			n++
		}
	}
	return n
}
