//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEarlyTestsNeedNoTool(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, content := range map[string]string{
		"pure/a_test.go":         "package pure\n",
		"curl/a_test.go":         "var _ = []string{`curl`, \"curl\", \"curl\"}\n",
		"store/a_test.go":        "package store\n",
		"store/b_test.go":        "func f() { consul.Start(t) }\n",
		"nginx/a_test.go":        "func f() { nginx.Others(t, try) }\n",
		"story/a_test.go":        "package story\n",
		"story/testdata/a.txtar": "proxy.Start(\n",
		"none/a.go":              "package none\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := earlyOf([]string{"./..."})
	if want := []string{"./curl", "./pure"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("early tests are in %v, %v; want %v", got, err, want)
	}
}
