//go:build linux

package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
)

// printEarly prints ./directory for each of earlyOf, if a tool that the tests in patterns need is
// not there yet; otherwise nothing, since all tests can run at once.
func printEarly(w io.Writer, patterns []string) error {
	needs, err := neededBy(patterns)
	if err != nil {
		return err
	}
	missing, err := missingOf(toolsOf(needs), asBuilt)
	if err != nil || len(missing) == 0 {
		return err
	}
	dirs, err := earlyOf(patterns)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, strings.Join(dirs, "\n"))
	return err
}

// earlyOf are the directories in patterns whose tests need neither a tool nor the Nginx of another
// release of Debian: go test would keep a result without the latter in its cache.
func earlyOf(patterns []string) ([]string, error) {
	files := map[string][][]byte{}
	for _, pattern := range patterns {
		err := eachTest(pattern, func(path string, data []byte) {
			dir, _, _ := strings.Cut(path, "/testdata/")
			if dir == path {
				dir = filepath.Dir(path)
			}
			files["./"+dir] = append(files["./"+dir], data)
		})
		if err != nil {
			return nil, err
		}
	}
	var dirs []string
	for dir, data := range files {
		needs := needsOf(data)
		if len(toolsOf(needs)) == 0 && !onOthers(needs) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return dirs, nil
}
