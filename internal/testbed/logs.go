//go:build linux

package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tailLines is how many lines of a log a failure shows.
const tailLines = 60

// number matches the suffix that Owner.MakeDir adds to the name of a process.
var number = regexp.MustCompile(`-\d+$`)

// ShowLogs logs the end of the log of each process below dir when the test has failed. dir is that
// of an owner whose processes StartShared runs: they belong to no test, so no test shows their logs
// otherwise.
func ShowLogs(t testing.TB, dir string) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		logs, err := filepath.Glob(filepath.Join(dir, "*", logName))
		if err != nil || len(logs) == 0 {
			t.Logf("no log below %s: %v", dir, err)
		}
		for _, log := range logs {
			server := number.ReplaceAllString(filepath.Base(filepath.Dir(log)), "")
			t.Logf("the end of the log of %s:\n%s", server, tail(log))
		}
	})
}

// tail returns the last lines of each file that is not empty, under the name and the number of
// lines of the file.
func tail(files ...string) string {
	var b strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
		if err == nil && len(text) > 0 {
			last := strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
			fmt.Fprintf(&b, "%s (%d lines)\n%s\n", filepath.Base(name), len(lines), last)
		}
	}
	return b.String()
}
