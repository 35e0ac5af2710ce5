package depcheck

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Roots are the packages that never import each other. A package below one of them may import one
// other root, or packages below that one.
var Roots = []string{"builder", "envconfig", "nginxsync", "promote", "vip"}

// imports returns the packages of this module, by their paths in it, with the packages of this
// module that each imports, sorted. Tests are left out, as are packages that only they, benchmarks
// and checks of this repository use.
func imports() (map[string][]string, error) {
	pkgs, err := list(module + "/...")
	if err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, p := range pkgs {
		path, ok := inLibrary(p.ImportPath)
		if !ok {
			continue
		}
		own := []string{}
		for _, i := range p.Imports {
			if to, ok := inLibrary(i); ok {
				own = append(own, to)
			}
		}
		slices.Sort(own)
		found[path] = own
	}
	return found, nil
}

// inLibrary returns the path of a package within this module, and whether importers can reach it.
func inLibrary(importPath string) (path string, ok bool) {
	path, ok = strings.CutPrefix(importPath, module+"/")
	if !ok {
		return "", false
	}
	for _, apart := range []string{
		"internal/testbed", "internal/depcheck", "internal/linearizable", "internal/conventions",
		"internal/metrics", "examples", "envconfig/bench", "nginxsync/bench",
		"nginxsync/internal/nginxtest",
		"vip/bench",
	} {
		if path == apart || strings.HasPrefix(path, apart+"/") {
			return "", false
		}
	}
	return path, true
}

// rootOf returns the root that a package belongs to, "" for one in internal/.
func rootOf(path string) string {
	first, _, _ := strings.Cut(path, "/")
	if slices.Contains(Roots, first) {
		return first
	}
	return ""
}

// wrong returns the imports of a package that break the rule of Roots, each with its reason.
func wrong(from string, imported []string) []string {
	var found []string
	others := map[string]bool{}
	for _, to := range imported {
		root := rootOf(to)
		if root == "" || root == rootOf(from) {
			continue
		}
		others[root] = true
		switch rootOf(from) {
		case from:
			found = append(found, fmt.Sprintf("%s imports %s: roots never import each other", from,
				to))
		case "":
			found = append(found, fmt.Sprintf("%s imports %s: what roots share must not know them",
				from, to))
		}
	}
	if len(others) > 1 {
		found = append(found, fmt.Sprintf("%s imports %v: a leaf may import one other root",
			from, slices.Sorted(maps.Keys(others))))
	}
	return found
}

// Graph draws the imports within the library, one line a package in the order of their paths, as
// "package → packages that it imports". Packages without such imports have no arrow.
func Graph() (string, error) {
	all, err := imports()
	if err != nil {
		return "", err
	}
	width := 0
	for path := range all {
		width = max(width, len(path))
	}
	var b strings.Builder
	last := ""
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if group, _, _ := strings.Cut(path, "/"); group != last {
			if last != "" {
				b.WriteByte('\n')
			}
			last = group
		}
		if len(all[path]) == 0 {
			fmt.Fprintln(&b, path)
			continue
		}
		fmt.Fprintf(&b, "%-*s → %s\n", width, path, strings.Join(all[path], ", "))
	}
	return b.String(), nil
}
