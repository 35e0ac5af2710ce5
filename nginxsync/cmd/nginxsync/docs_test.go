package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the blocks of docs/transform.md")

// block is a fenced block of the document, with its name before it.
var block = regexp.MustCompile("(?s)(<!-- (\\S+) -->\n+```\\w*\n)(.*?)(```\n)")

// The output in docs/transform.md equals the output of the command.
func TestDocumentedTransform(t *testing.T) {
	t.Parallel()
	archive, err := txtar.ParseFile("testdata/docs.txtar")
	require.NoError(t, err)
	dir := t.TempDir()
	shown := map[string]string{}
	for _, f := range archive.Files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, f.Data, 0o600))
		shown[f.Name] = string(f.Data)
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"transform", "-in", filepath.Join(dir, "in"), "-out",
		filepath.Join(dir, "out"), "-rules", filepath.Join(dir, "rules.json")}, &stdout, &stderr)
	require.Zero(t, code, stderr.String())
	summary, diff, _ := strings.Cut(stdout.String(), "\n\n")
	shown["summary"] = summary + "\n"
	shown["diff"], _, _ = strings.Cut(diff, "--- /dev/null\n")
	added, err := os.ReadFile(filepath.Join(dir, "out", "sluice.conf"))
	require.NoError(t, err)
	_, rules, _ := strings.Cut(string(added), "\n\n") // without the digests
	shown["added"], _, _ = strings.Cut(rules, "lua_package_path")

	const name = "../../../docs/transform.md"
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	seen := map[string]bool{}
	got := block.ReplaceAllStringFunc(string(text), func(s string) string {
		m := block.FindStringSubmatch(s)
		require.Contains(t, shown, m[2])
		seen[m[2]] = true
		return m[1] + shown[m[2]] + m[4]
	})
	for name := range shown {
		require.True(t, seen[name] || name == "in/mime.types", name)
	}
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(got), 0o644))
		return
	}
	require.Equal(t, got, string(text))
}
