package conventions_test

import (
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
	taken := map[string]string{}
	for _, name := range names {
		name = filepath.Base(name)
		n := number.FindString(name)
		if n == "" || taken[n] != "" {
			t.Errorf("docs/decisions/%s: want a number of its own, %q has it", name, taken[n])
		}
		taken[n] = name
	}
}
