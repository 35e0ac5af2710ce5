// Command envconfig-check finds mistakes in the configuration of all environments while an image is
// built. It holds the parsers that the entrypoint envconfig does without. See envconfig-check
// --help.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
