// Command graph prints which packages of this module import which, tests left out, one line a
// package:
//
//	go run ./internal/depcheck/graph
//
// The page docs/architecture.md shows its output, and a test of package depcheck holds the page to
// the code.
package main

import (
	"fmt"
	"os"

	"github.com/sluice-deploy/sluice/internal/depcheck"
)

func main() {
	text, err := depcheck.Graph()
	if err != nil {
		fmt.Fprintln(os.Stderr, "graph:", err)
		os.Exit(1)
	}
	fmt.Print(text)
}
