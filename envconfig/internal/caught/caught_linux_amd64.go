package caught

import (
	"math/bits"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// action is the kernel's struct sigaction.
type action struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

const (
	onStack  = 0x08000000 // SA_ONSTACK: the Go runtime has a signal stack on every thread
	restart  = 0x10000000 // SA_RESTART
	restorer = 0x04000000 // SA_RESTORER
	ignored  = 1          // SIG_IGN
)

// before holds the actions that the Go runtime had installed, by signal; noted has the bit n-1 for
// each signal n that has one. It is no map, which would touch new memory at each start.
var (
	before [65]action
	noted  uint64
)

// handlers returns the addresses of the handler and of the code that it returns to.
func handlers() (handler, back uintptr)

// Start begins to note the signals. One that is ignored stays ignored.
func Start(signals ...syscall.Signal) {
	handler, back := handlers()
	own := action{handler: handler, flags: onStack | restart | restorer, restorer: back,
		mask: ^uint64(0)}
	for _, s := range signals {
		if noted&(1<<(s-1)) != 0 {
			continue
		}
		var old action
		if !set(s, &own, &old) { // looks and sets at once: a start does this for fifty signals
			continue
		}
		if old.handler == ignored {
			set(s, &old, nil)
			atomic.AndUint64(&pending, ^(uint64(1) << (s - 1)))
			continue
		}
		before[s] = old
		noted |= 1 << (s - 1)
	}
}

// collect has nothing to do: the handler notes.
func collect() {}

// Pass has the Go runtime send the signals to the channel from now on, and sends the signals that
// have come since Start, each of these once.
func Pass(to chan<- os.Signal) {
	handler, _ := handlers()
	for ; noted != 0; noted &= noted - 1 {
		s := syscall.Signal(bits.TrailingZeros64(noted) + 1)
		old := before[s]
		signal.Notify(to, s)
		// Where the runtime had a handler from the beginning, Notify installs none.
		var now action
		if set(s, nil, &now) && now.handler == handler {
			set(s, &old, nil)
		}
	}
	for _, s := range take() {
		to <- s
	}
}

func set(s syscall.Signal, to, old *action) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s),
		uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	return errno == 0
}
