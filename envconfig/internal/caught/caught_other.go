//go:build !(linux && amd64)

package caught

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

var from = make(chan os.Signal, 64)

// Start begins to note the signals. One that is ignored stays ignored.
func Start(signals ...syscall.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(from, s)
		}
	}
	go func(from <-chan os.Signal) {
		for s := range from {
			atomic.OrUint64(&pending, 1<<(s.(syscall.Signal)-1))
		}
	}(from)
}

// Stop gives the signals back to the Go runtime. Those that have come meanwhile are still there to be taken.
func Stop() { signal.Stop(from) }
