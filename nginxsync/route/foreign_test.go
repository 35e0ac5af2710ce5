//go:build linux

package route_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"

	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// Explain is right or undecided about configurations as people write them.
func TestExplainForeign(t *testing.T) {
	t.Parallel()
	archive, err := txtar.ParseFile("testdata/foreign.txtar")
	require.NoError(t, err)
	for _, c := range archive.Files {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(nginxtest.Dir(t), "www")
			for _, name := range files {
				full := filepath.Join(root, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
				require.NoError(t, os.WriteFile(full, []byte("file "+full), 0o644))
			}
			require.NoError(t, os.Symlink("a.txt", filepath.Join(root, "link.txt")))
			var servers strings.Builder
			var pairs []pair
			for line := range strings.Lines(string(c.Data)) {
				if request, ok := strings.CutPrefix(line, "ask "); ok {
					pairs = append(pairs, asked(strings.TrimSpace(request)))
					continue
				}
				servers.WriteString(line)
			}
			require.NotEmpty(t, pairs)
			text := strings.ReplaceAll(servers.String(), "ROOT", root)
			if strings.Contains(text, "CERT") {
				text = strings.ReplaceAll(text, "CERT", nginxtest.Pair(t, nginxtest.Dir(t)))
			}
			count := &tally{}
			compare(t, text, pairs, os.DirFS("/"), count)
			t.Logf("%d of %d undecided", count.undecided, count.pairs)
		})
	}
}

// asked reads a request of testdata/foreign.txtar.
func asked(text string) pair {
	method, rest, _ := strings.Cut(text, " ")
	path, header, _ := strings.Cut(rest, " ")
	p := pair{method: method, host: "a.x", path: path}
	if i := strings.Index(path, "/"); path[0] == '@' {
		p.host, p.path = path[1:i], path[i:]
	}
	p.header[0], p.header[1], _ = strings.Cut(header, ": ")
	return p
}
