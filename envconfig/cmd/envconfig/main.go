//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command envconfig is the entrypoint of an image that carries the configuration of every environment: it puts the files
// of the selected one in place and becomes the service. See envconfig --help.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
)

// startMemory is what a start may allocate before the first collection; most end, or become the service, long before.
const startMemory = 32 << 20

func main() {
	// One processor and no collection: a start is over in milliseconds, and helper threads would cost more of them.
	runtime.GOMAXPROCS(1)
	debug.SetMemoryLimit(startMemory)
	debug.SetGCPercent(-1)
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, log(syscall.Stderr)))
}

// log is a descriptor that a line is written to if it can be: package os would end the process when nobody reads.
type log int

// Write never fails: what the service does must not depend on its log.
func (l log) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n, err := syscall.Write(int(l), rest)
		if err != nil && err != syscall.EINTR {
			break
		}
		rest = rest[max(n, 0):]
	}
	return len(p), nil
}
