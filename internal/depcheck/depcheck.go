// Package depcheck holds a package to the imports that it is allowed to have, so that a light
// package stays light.
package depcheck

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// module is the import path prefix of this project: its own packages are followed, not judged.
const module = "github.com/sluice-deploy/sluice"

type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// StdlibOnly fails t when the package path, or a package of this project that it pulls in, imports
// anything outside the standard library, or one of the forbidden standard packages. It names the
// chain of imports that led there.
func StdlibOnly(t *testing.T, path string, forbidden ...string) {
	t.Helper()
	Allow(t, path, nil, forbidden...)
}

// Allow is StdlibOnly with exceptions: third-party import path prefixes that are accepted.
func Allow(t *testing.T, path string, allowed []string, forbidden ...string) {
	t.Helper()
	pkgs, err := list(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pkgs {
		switch {
		case slices.Contains(forbidden, p.ImportPath):
			t.Errorf("%s must not depend on %s, by way of %s", path, p.ImportPath,
				chain(pkgs, path, p.ImportPath))
		case p.Standard, strings.HasPrefix(p.ImportPath, module):
		case slices.ContainsFunc(allowed, func(a string) bool {
			return strings.HasPrefix(p.ImportPath, a)
		}):
		default:
			t.Errorf("%s may import the standard library only, got %s, by way of %s", path,
				p.ImportPath, chain(pkgs, path, p.ImportPath))
		}
	}
}

func list(path string) (map[string]pkg, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports", path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -deps %s: %w: %s", path, err, stderr.Bytes())
	}
	pkgs := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list -deps %s: %w", path, err)
		}
		pkgs[p.ImportPath] = p
	}
}

// chain is a shortest path of imports between two packages.
func chain(pkgs map[string]pkg, from, to string) string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at == to {
			break
		}
		for _, next := range pkgs[at].Imports {
			if _, seen := before[next]; !seen {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	path := []string{to}
	for at := before[to]; at != ""; at = before[at] {
		path = append(path, at)
	}
	slices.Reverse(path)
	return strings.Join(path, " > ")
}
