//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-deploy/sluice/internal/testbed/debian"
)

// onOthers reports whether tests with these needs run on the Nginx of other releases.
func onOthers(needs []need) bool {
	return slices.ContainsFunc(needs, func(n need) bool { return n.mark == others })
}

// fetch brings the Nginx of the other releases of Debian. A release that cannot be had is no error:
// its tests are not run, which is said here, and at the end by report.
func fetch(ctx context.Context, out io.Writer) {
	var all sync.WaitGroup
	for _, r := range debian.Others() {
		if _, err := r.Cached(); err != nil {
			fmt.Fprintf(out, "Fetching Nginx of %s for tests, some 60 MB.\n", r.Title)
		}
		all.Go(func() {
			if _, err := r.Fetch(ctx); err != nil {
				fmt.Fprintf(out, "Nginx of %s could not be fetched: %v\n", r.Title, err)
			}
		})
	}
	all.Wait()
}

// report says which Nginx the tests in the directories ran on, and on which they did not run.
func report(out io.Writer, directories []string) {
	needs, err := neededBy(directories)
	if err != nil || !onOthers(needs) {
		return
	}
	text, err := exec.Command("/usr/sbin/nginx", "-v").CombinedOutput()
	if err != nil {
		text = []byte(err.Error())
	}
	fmt.Fprintf(out, "Tests of Nginx ran on the machine's own (%s)\n",
		strings.TrimSpace(string(text)))
	for _, r := range debian.Others() {
		root, err := r.Cached()
		switch {
		case err != nil:
			fmt.Fprintf(out, "  NOT RUN on another Nginx: %v\n", err)
		case os.Geteuid() != 0:
			fmt.Fprintf(out, "  NOT RUN on Nginx of %s (%s): that needs root\n", r.Title, root)
		default:
			fmt.Fprintf(out, "  and on %s of %s, fetched on %s\n", root, r.Title,
				root.Fetched.Format("2006-01-02"))
		}
	}
}
