//go:build linux

package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/internal/soak"
)

// essential are programs that each Debian and Ubuntu has, or that Go brings.
var essential = []string{
	"apt-get", "bash", "dpkg-deb", "dpkg-query", "env", "go", "ldd", "ls", "mount", "script", "setsid",
	"sh", "sleep", "umount", "unshare",
}

var executed = regexp.MustCompile(`exec\.(?:Command\(|CommandContext\([^,"]+, ?)"([^"]+)"`)

// A test that executes a program has to have it installed: each program that a test names is
// essential, or a mark of needs brings a package that holds it.
func TestEachExecutedProgramIsBrought(t *testing.T) {
	root := filepath.Join("..", "..", "..", "..")
	found := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range executed.FindAllSubmatch(data, -1) {
			name := filepath.Base(string(m[1]))
			found++
			if !strings.HasPrefix(string(m[1]), "/proc/") && !brought(data, name) {
				t.Errorf("%s executes %s, which no entry of needs brings: add its package to "+
					"needed.go", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 10 {
		t.Errorf("found %d executed programs: the expression no longer finds them", found)
	}
}

// brought reports whether the program is essential, or whether a need whose mark stands in data
// brings it.
func brought(data []byte, program string) bool {
	return slices.Contains(essential, program) || slices.ContainsFunc(needs, func(n need) bool {
		return bytes.Contains(data, []byte(n.mark)) && slices.ContainsFunc(n.packages,
			func(p string) bool {
				name, _, _ := strings.Cut(p, "=")
				return filepath.Base(name) == program
			})
	})
}

// What the soak cases alone need is a matter of make soak.
func TestMakeSoakBringsMore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "some_test.go")
	if err := os.WriteFile(file, []byte("package catalogtest\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]bool{"": false, "1": true} {
		t.Setenv(soak.Variable, value)
		found, err := neededBy([]string{dir})
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(packagesOf(found), "dnf=dnf"); got != want {
			t.Errorf("%s=%q: dnf is in the list: %v, want %v", soak.Variable, value, got, want)
		}
	}
}
