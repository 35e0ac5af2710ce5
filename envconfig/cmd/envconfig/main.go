// Command envconfig is the entrypoint of an image that carries the configuration of every environment: it puts the files
// of the selected one in place and becomes the service. See envconfig --help.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// startMemory is what a start may allocate before the first collection; most end, or become the service, long before.
const startMemory = 32 << 20

func main() {
	// One processor and no collection: a start is over in milliseconds, and helper threads would cost more of them.
	runtime.GOMAXPROCS(1)
	debug.SetMemoryLimit(startMemory)
	debug.SetGCPercent(-1)
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
