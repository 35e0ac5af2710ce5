// Command envconfig is the entrypoint of an image that carries the configuration of every environment: it puts the files
// of the selected one in place and becomes the service. See envconfig --help.
package main

import (
	"os"
)

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
