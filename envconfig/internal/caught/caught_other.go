//go:build !(linux && amd64)

package caught

import (
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
)

var (
	mu     sync.Mutex
	from   = make(chan os.Signal, room)
	passed bool // the signals of from go to the channel of Pass
)

// room is for a burst of signals between two looks.
const room = 1024

// Start begins to note the signals. One that is ignored stays ignored.
func Start(signals ...syscall.Signal) {
	mu.Lock()
	defer mu.Unlock()
	if passed {
		signal.Stop(from)
		from, passed = make(chan os.Signal, room), false
	}
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(from, s)
		}
	}
}

// collect notes the signals that os/signal has delivered.
func collect() {
	mu.Lock()
	defer mu.Unlock()
	for !passed {
		select {
		case s := <-from:
			atomic.OrUint64(&pending, 1<<(s.(syscall.Signal)-1))
		default:
			return
		}
	}
}

// Pass sends the signals to the channel from now on, and the signals that have come since Start,
// each of these once.
func Pass(to chan<- os.Signal) {
	collect()
	mu.Lock()
	defer mu.Unlock()
	passed = true
	for _, s := range take() {
		to <- s
	}
	go func(from <-chan os.Signal) {
		for s := range from {
			to <- s
		}
	}(from)
}
