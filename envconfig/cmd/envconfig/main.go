//go:build linux

// Command envconfig is the entrypoint of an image that carries the configuration of every environment: it puts the files
// of the selected one in place and becomes the service. See envconfig --help.
package main

import (
	"os"
	"syscall"
)

func main() {
	growStack()
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
