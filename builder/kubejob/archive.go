package kubejob

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
)

const (
	// maxHeld is how many bytes of lines are held back behind a gap, and how many wait for a store
	// that fails
	maxHeld = 64 << 20
	// flushSize and flushEvery say when lines go to the store
	flushSize  = 64 << 10
	flushEvery = time.Second
	page       = 256 << 10 // bytes that are read of a log at a time
)

// archive takes the numbered lines of a pod's log in their order. Lines after a gap are held back
// until the gap is filled or given up. The caller hears a line at once, the store gets many lines
// at a time.
type archive struct {
	key   string      // of the log in store: the UID of the Job
	store builds.Logs // nil for none
	to    io.Writer   // the caller's; may be nil

	mu     sync.Mutex
	lines  int64 // that were told, and their bytes
	bytes  int64
	held   []pod.Line
	size   int // bytes of held
	ahead  int64
	end    *pod.Verdict
	state  builds.LogState
	missed int64

	// The store has the first kept bytes, as far as it is known; waiting follows them. cut says
	// that waiting was full: the text behind it is not in memory.
	kept    int64
	waiting []byte
	cut     bool
	broken  error // of the last try to store; nil after a success

	stop    chan struct{} // ends the goroutine that stores each flushEvery
	stopped chan struct{}
}

// gapLine is the line that stands in place of lines that are missing. No pod writes such a line: it
// indents output.
var gapLine = regexp.MustCompile(`^\[(\d+) lines of the log are missing here: \d+ to \d+\]$`)

// open finds the end of the log that is kept already. A line of which a killed process has stored
// the beginning counts as not stored.
func (a *archive) open(ctx context.Context) error {
	a.lines, a.bytes, a.missed = 0, 0, 0
	var rest []byte
	for at := int64(0); ; {
		data, _, err := a.store.ReadLog(ctx, a.key, at, page)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			a.kept = a.bytes
			return nil
		}
		at += int64(len(data))
		rest = append(rest, data...)
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			n := int64(1)
			if m := gapLine.FindSubmatch(rest[:i]); m != nil {
				n, _ = strconv.ParseInt(string(m[1]), 10, 64)
				a.missed += n
			}
			a.lines += n
			a.bytes += int64(i) + 1
			rest = rest[i+1:]
		}
	}
}

// start stores the waiting lines, each flushEvery, until close.
func (a *archive) start(ctx context.Context) {
	a.stop, a.stopped = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(a.stopped)
		tick := time.NewTicker(flushEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				a.mu.Lock()
				a.flush(ctx)
				a.mu.Unlock()
			case <-a.stop:
				return
			}
		}
	}()
}

// close ends the goroutine of start.
func (a *archive) close() {
	if a.stop != nil {
		close(a.stop)
		<-a.stopped
		a.stop = nil
	}
}

// stored returns the name of the log in the store, "" without one.
func (a *archive) stored() string {
	if a.store == nil {
		return ""
	}
	return a.key
}

// next returns the number of the line that a follower needs.
func (a *archive) next() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(a.lines, a.ahead) + 1
}

func (a *archive) verdict() *pod.Verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.end
}

// take takes a line of the pod.
func (a *archive) take(ctx context.Context, l pod.Line) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case l.End != nil:
		a.end = l.End
	case l.Number == 0 || l.Number <= max(a.lines, a.ahead):
	case l.Number == a.lines+1 && len(a.held) == 0:
		a.write(ctx, l.Text+"\n", 1)
	case a.size+len(l.Text) <= maxHeld:
		a.held = append(a.held, l)
		a.size += len(l.Text)
		a.ahead = l.Number
	}
}

// write writes whole lines to the caller, and adds them to the text for the store.
func (a *archive) write(ctx context.Context, text string, lines int64) {
	if a.to != nil {
		io.WriteString(a.to, text)
	}
	a.lines += lines
	a.bytes += int64(len(text))
	if a.store == nil {
		return
	}
	if a.cut = a.cut || len(a.waiting)+len(text) > maxHeld; a.cut {
		return
	}
	a.waiting = append(a.waiting, text...)
	if len(a.waiting) >= flushSize && a.broken == nil {
		a.flush(ctx)
	}
}

// flush stores the waiting text. A store that has more already, of a process that was killed or of
// an append that failed after it came through, has the same text: it is passed over.
func (a *archive) flush(ctx context.Context) {
	for a.store != nil && len(a.waiting) > 0 {
		if a.broken = a.store.AppendLog(ctx, a.key, a.kept, a.waiting); a.broken == nil {
			a.kept += int64(len(a.waiting))
			a.waiting = nil
			return
		}
		_, size, err := a.store.ReadLog(ctx, a.key, 0, 0)
		if err != nil || size <= a.kept {
			return
		}
		n := min(size-a.kept, int64(len(a.waiting)))
		a.kept += n
		a.waiting = append([]byte(nil), a.waiting[n:]...)
		a.broken = nil
	}
}

// sync stores the waiting text.
func (a *archive) sync(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flush(ctx)
	return a.broken
}

// settle ends the log: lines that are missing come from whole, the text of all lines, where it is
// known, and are counted otherwise.
func (a *archive) settle(ctx context.Context, whole []byte, trailer *pod.Trailer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if whole != nil && a.missed == 0 {
		rest := whole
		for range a.lines {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			rest = rest[i+1:]
		}
		if len(rest) > 0 {
			a.write(ctx, string(rest), int64(bytes.Count(rest, []byte("\n"))))
		}
		a.held = nil
	}
	for _, l := range a.held {
		a.gap(ctx, l.Number-1)
		a.write(ctx, l.Text+"\n", 1)
	}
	a.held = nil
	a.state.Verdict = builds.Complete
	switch {
	case trailer == nil:
		a.state.Verdict = builds.Truncated
	case trailer.Lines > a.lines:
		a.gap(ctx, trailer.Lines)
	}
	if trailer != nil && trailer.Lost > 0 {
		a.state.Verdict, a.state.Lost = builds.Truncated, trailer.Lost
	}
	if a.missed > 0 {
		a.state.Verdict = builds.Gap
	}
	a.state.Bytes = a.bytes
}

// gap notes that lines up to a number are missing.
func (a *archive) gap(ctx context.Context, last int64) {
	n := last - a.lines
	if n <= 0 {
		return
	}
	text := fmt.Sprintf("[%d lines of the log are missing here: %d to %d]\n", n, a.lines+1, last)
	a.missed += n
	a.write(ctx, text, n)
}

// replace stores another text in place of the log.
func (a *archive) replace(ctx context.Context, text []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.store.RemoveLog(ctx, a.key); err != nil {
		return err
	}
	a.kept, a.waiting, a.cut, a.bytes = 0, text, false, int64(len(text))
	a.flush(ctx)
	return a.broken
}
