// Package caught notes which signals have come. It takes neither a goroutine nor a thread, each of
// which package os/signal needs and which are a good part of the cost of a start, and it does no
// more than that: a signal that has come twice is noted once, as the kernel itself does with one
// that is blocked.
package caught

import (
	"math/bits"
	"sync/atomic"
	"syscall"
)

// pending has the bit n-1 for signal n.
var pending uint64

// Has returns the first of the signals that has come, or 0.
func Has(signals ...syscall.Signal) syscall.Signal {
	collect()
	came := atomic.LoadUint64(&pending)
	for _, s := range signals {
		if came&(1<<(s-1)) != 0 {
			return s
		}
	}
	return 0
}

// take returns the signals that have come, lowest number first, and forgets them.
func take() []syscall.Signal {
	var out []syscall.Signal
	for came := atomic.SwapUint64(&pending, 0); came != 0; came &= came - 1 {
		out = append(out, syscall.Signal(bits.TrailingZeros64(came)+1))
	}
	return out
}
