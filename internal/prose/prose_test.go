package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func Example() {
	c := count("// Stage writes the bundle.\n// It returns what was written.\nfunc f() {}\n", nil)
	fmt.Printf("%d of %d comment lines\n", c.clauses, c.comments)
	// Output: 1 of 2 comment lines
}

func TestCount(t *testing.T) {
	for text, want := range map[string]counts{
		"// what is sent":                        {1, 1, 1, 0},
		"\t// Whoever waits is woken":            {1, 1, 1, 0},
		"// those that wait, somebody, for ever": {1, 1, 1, 0},
		"// the error says what to do":           {1, 0, 1, 0},
		"// somewhat whole wholesale":            {1, 0, 1, 0},
		"x := what // what":                      {0, 0, 1, 0},
		"\t" + strings.Repeat("é", 96):           {0, 0, 1, 0},
		"\t" + strings.Repeat("é", 97):           {0, 0, 1, 1},
		"// " + strings.Repeat("a", 98):          {1, 0, 1, 1},
	} {
		if got := count(text+"\n", nil); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

func TestRun(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a.go")
	if err := os.WriteFile(name, []byte("// one\n// two\n// what three is\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-clauses", "34", name}, 0, "1 of 3 comment lines"},
		{[]string{"-clauses", "33", "-list", name}, 1, "a.go:3: clause: // what three is"},
		{[]string{name + "x"}, 2, "no such file"},
		{[]string{"-wrong"}, 2, "not defined"},
	} {
		var out strings.Builder
		if code := run(c.args, &out, &out); code != c.code || !strings.Contains(out.String(),
			c.want) {
			t.Errorf("%q: code %d, output %q; want %d and %q", c.args, code, &out, c.code, c.want)
		}
	}
}
