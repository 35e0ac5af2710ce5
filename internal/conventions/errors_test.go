package conventions_test

import (
	"cmp"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type sentinel struct {
	text string
	at   token.Pos
}

// TestSentinels: exported sentinels of one name have one text, which is short and lower case.
func TestSentinels(t *testing.T) {
	t.Parallel()
	exceptions := sentinelTexts
	byName := sentinels(t)
	if len(byName) < 10 {
		t.Errorf("found %d sentinels only", len(byName))
	}
	for name, list := range byName {
		usual := usualText(list)
		for _, s := range list {
			switch {
			case strings.Count(s.text, " ") > 2 || strings.ToLower(s.text) != s.text ||
				strings.Contains(s.text, ":"):
				report(t, exceptions, s.at, "%s is %q: want up to three lower-case words", name,
					s.text)
			case s.text != usual:
				report(t, exceptions, s.at, "%s is %q, and %q elsewhere", name, s.text, usual)
			}
		}
	}
	needed(t, exceptions)
}

// usualText returns the text that most of them have, of several the shortest.
func usualText(list []sentinel) string {
	count := map[string]int{}
	for _, s := range list {
		count[s.text]++
	}
	return slices.MaxFunc(list, func(a, b sentinel) int {
		return cmp.Or(cmp.Compare(count[a.text], count[b.text]),
			cmp.Compare(len(b.text), len(a.text)))
	}).text
}

// sentinels returns the exported variables that errors.New makes, by name.
func sentinels(t *testing.T) map[string][]sentinel {
	byName := map[string][]sentinel{}
	for _, s := range code(t) {
		for _, decl := range s.file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.VAR {
				continue
			}
			for _, spec := range gen.Specs {
				for i, value := range spec.(*ast.ValueSpec).Values {
					name := spec.(*ast.ValueSpec).Names[i]
					if !isCall(value, "errors", "New") || !name.IsExported() {
						continue
					}
					if literal, ok := value.(*ast.CallExpr).Args[0].(*ast.BasicLit); ok {
						text, _ := strconv.Unquote(literal.Value)
						byName[name.Name] = append(byName[name.Name], sentinel{text, name.Pos()})
					}
				}
			}
		}
	}
	return byName
}

var verb = regexp.MustCompile(`%[-+# 0]*(\[\d+\])?[0-9.*]*[a-zA-Z]`)

// TestSentinelStandsLast: an error reads "op subject: detail: sentinel". A sentinel as a word of a
// sentence breaks the sentence when its text changes.
func TestSentinelStandsLast(t *testing.T) {
	t.Parallel()
	exceptions := sentinelPlaces
	for _, s := range code(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isCall(call, "fmt", "Errorf") {
				return true
			}
			literal, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			format, _ := strconv.Unquote(literal.Value)
			verbs := verb.FindAllStringIndex(strings.ReplaceAll(format, "%%", "__"), -1)
			if len(verbs) != len(call.Args)-1 {
				return true // indexed or starred: none has a sentinel
			}
			for i, at := range verbs {
				if format[at[0]:at[1]] == "%w" && isSentinel(call.Args[i+1]) &&
					!endsWith(format, at) {
					report(t, exceptions, call.Pos(),
						"%q: the sentinel is not at the end, behind a colon", format)
				}
			}
			return true
		})
	}
	needed(t, exceptions)
}

// endsWith reports whether the verb at this place ends the format behind ": ", or begins it in an
// error that has no other text.
func endsWith(format string, at []int) bool {
	rest := format[at[1]:]
	return (rest == "" || rest == ": %w") && (at[0] == 0 || strings.HasSuffix(format[:at[0]], ": "))
}

func isSentinel(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.HasPrefix(e.Name, "Err") && len(e.Name) > 3
	case *ast.SelectorExpr:
		return strings.HasPrefix(e.Sel.Name, "Err") && len(e.Sel.Name) > 3 &&
			ast.IsExported(e.Sel.Name)
	}
	return false
}
