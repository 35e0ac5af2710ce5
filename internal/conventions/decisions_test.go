package conventions_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestDecisions: each decision has a number of its own, by which others refer to it.
func TestDecisions(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob(filepath.Join("..", "..", "docs", "decisions", "*.md"))
	if err != nil || len(names) < 10 {
		t.Fatalf("%d decisions, %v", len(names), err)
	}
	number := regexp.MustCompile(`^\d{4}-`)
	dated := regexp.MustCompile(`(?m)^Date: 20\d\d-\d\d-\d\d\.$`)
	taken := map[string]string{}
	for _, path := range names {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		if !dated.Match(text) {
			t.Errorf("docs/decisions/%s: want a line such as \"Date: 2026-11-29.\"", name)
		}
		n := number.FindString(name)
		if n == "" || taken[n] != "" {
			t.Errorf("docs/decisions/%s: want a number of its own, %q has it", name, taken[n])
		}
		taken[n] = name
	}
}
