//go:build !linux

// Command envconfig is the entrypoint of a Linux container image. On other systems it prints that
// and ends with 69; envconfig-check, which writes and checks manifests, runs everywhere.
package main

import (
	"fmt"
	"os"
)

// unavailable is EX_UNAVAILABLE of sysexits.h.
const unavailable = 69

func main() {
	fmt.Fprintln(os.Stderr, "envconfig: it runs on Linux only, as the entrypoint of a container "+
		"image: "+
		"build it with GOOS=linux; to write or check a manifest here, use envconfig-check")
	os.Exit(unavailable)
}
