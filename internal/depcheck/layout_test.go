package depcheck

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const top = "../.."

func TestRoots(t *testing.T) {
	t.Parallel()
	all, err := imports()
	require.NoError(t, err)
	for _, root := range Roots {
		require.Contains(t, all, root)
	}
	for from, imported := range all {
		for _, problem := range wrong(from, imported) {
			t.Error(problem)
		}
	}
}

func TestWrongImports(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from     string
		imported []string
		problems int
	}{
		{"vip", []string{"internal/names", "vip/internal/record"}, 0},
		{"vip", []string{"promote"}, 1},
		{"nginxsync", []string{"vip/boltstore"}, 1},
		{"nginxsync/vipsource", []string{"nginxsync", "vip"}, 0},
		{"nginxsync/vipsource", []string{"nginxsync", "vip", "vip/audit"}, 0},
		{"nginxsync/vipsource", []string{"nginxsync", "promote", "vip"}, 1},
		{"internal/names", []string{"vip"}, 1},
	} {
		require.Len(t, wrong(c.from, c.imported), c.problems, "%s imports %v", c.from, c.imported)
	}
}

// The page shows the drawing between two lines of three backticks after a comment that names the
// command.
func TestGraphInArchitecture(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(top, "docs", "architecture.md"))
	require.NoError(t, err)
	const mark = "<!-- go run ./internal/depcheck/graph -->\n```\n"
	_, after, found := strings.Cut(string(page), mark)
	require.True(t, found, "docs/architecture.md has no drawing after %q", mark)
	drawn, _, _ := strings.Cut(after, "```\n")
	now, err := Graph()
	require.NoError(t, err)
	require.Equal(t, now, drawn, "put the output of go run ./internal/depcheck/graph into "+
		"docs/architecture.md")
}

// uncovered are the modules that make check and make test leave out, with the reason.
var uncovered = map[string]string{
	"envconfig/bench/peers": "pins programs that make bench-envconfig builds; " +
		"nothing imports it",
	"internal/testbed/tools/buildkit":   "pins programs that make tools builds with -mod=readonly",
	"internal/testbed/tools/consul":     "as above",
	"internal/testbed/tools/containerd": "as above",
	"internal/testbed/tools/crane":      "as above",
	"internal/testbed/tools/etcd":       "as above",
	"internal/testbed/tools/kubernetes": "as above",
	"internal/testbed/tools/runc":       "as above",
	"internal/testbed/tools/toxiproxy":  "as above",
}

func TestModules(t *testing.T) {
	t.Parallel()
	var there []string
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		switch name := e.Name(); {
		case err != nil:
			return err
		case e.IsDir() && (name == "testdata" || name == "bin" || len(name) > 2 && name[0] == '.'):
			return fs.SkipDir
		case name != "go.mod":
			return nil
		}
		dir, err := filepath.Rel(top, filepath.Dir(path))
		if uncovered[dir] == "" {
			there = append(there, dir)
		}
		return err
	})
	require.NoError(t, err)

	out, err := exec.Command(filepath.Join(top, "scripts", "modules")).Output()
	require.NoError(t, err)
	require.ElementsMatch(t, there, strings.Fields(string(out)), "scripts/modules and the "+
		"modules in the tree")

	work, err := os.ReadFile(filepath.Join(top, "go.work"))
	require.NoError(t, err)
	var used []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+)$`).FindAllStringSubmatch(string(work), -1) {
		used = append(used, filepath.Clean(m[1]))
	}
	require.ElementsMatch(t, there, used, "go.work and the modules in the tree")
}

// The importer has older clients than our tests use. Adding vip raises the requirements of the
// library only.
func TestImporterKeepsItsVersions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := filepath.Abs(top)
	require.NoError(t, err)
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("go.mod", "module example.com/platform\n\ngo 1.26.5\n\nrequire "+
		"(\n\tgithub.com/hashicorp/consul/api v1.30.0\n"+
		"\tgo.etcd.io/bbolt v1.3.11\n\tk8s.io/client-go v0.32.0\n)\n\nreplace "+module+" => "+
		root+"\n")
	const before = "package main\n\nimport (\n\t_ \"github.com/hashicorp/consul/api\"\n\t_ " +
		"\"go.etcd.io/bbolt\"\n" +
		"\t_ \"k8s.io/client-go/util/homedir\"\n"
	write("main.go", before+")\n\nfunc main() {}\n")
	versions := func() map[string]string {
		goCommand(t, dir, "mod", "tidy")
		found := map[string]string{}
		for line := range strings.Lines(goCommand(t, dir, "list", "-m", "all")) {
			if f := strings.Fields(line); len(f) > 1 {
				found[f[0]] = f[1]
			}
		}
		return found
	}
	old := versions()
	require.Equal(t, "v0.32.0", old["k8s.io/client-go"])

	write("main.go", before+"\t_ \""+module+"/vip\"\n)\n\nfunc main() {}\n")
	goCommand(t, dir, "mod", "edit", "-require="+module+"@v0.0.0")
	now := versions()

	// with GOWORK=off: the root's alone
	ours := goCommand(t, root, "list", "-m", "-f", "{{.Path}}", "all")
	for path, version := range now {
		if path == module || old[path] == version {
			continue
		}
		t.Logf("%s: %q becomes %q", path, old[path], version)
		for _, foreign := range []string{"k8s.io/", "sigs.k8s.io/", "github.com/Shopify/toxiproxy",
			"github.com/anishathalye/porcupine"} {
			if strings.HasPrefix(path, foreign) {
				t.Errorf("adding vip changes %s from %q to %q", path, old[path], version)
			}
		}
		if !slices.Contains(strings.Fields(ours), path) {
			t.Errorf("adding vip changes %s from %q to %q, which the library does not require",
				path, old[path], version)
		}
	}
	require.Equal(t, old["k8s.io/client-go"], now["k8s.io/client-go"])
}

func goCommand(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if args[0] == "list" {
		cmd.Env = append(cmd.Env, "GOFLAGS=-mod=readonly")
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "go %s: %s", strings.Join(args, " "), stderr.String())
	return string(out)
}
