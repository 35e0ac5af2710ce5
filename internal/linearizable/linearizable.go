// Package linearizable records the calls of concurrent callers of vip.Allocators, and checks with
// porcupine that some order of the calls, one after the other, explains all answers: with one
// allocator, or with several that share a store. Its tests run it over the stores of vip. It is a
// module so that porcupine stays out of the library's requirements.
package linearizable

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/sluice-deploy/sluice/vip"
)

// Load is the mix of calls of the callers. Each goes to one of the allocators at random.
type Load struct {
	Seed    uint64
	Callers int
	Calls   int // of each caller
	Tasks   int // for which they ask; more of them than there are addresses show exhaustion
	Size    int // of the pool: see Pool

	// Until, when set, makes the callers go on after Calls until it is closed, with a rest of Pause
	// between two calls.
	Until <-chan struct{}
	Pause time.Duration
	// Lost says that the store may lose answers. A release that was made is then answered ErrFenced
	// when another allocator has given the address away before the store could be asked.
	Lost bool
	// Answered, when set, counts the calls that have been answered.
	Answered *atomic.Int64
}

// Counts holds the numbers of calls by outcome.
type Counts struct {
	Calls, Allocated, Same, Ended, Exhausted, Fenced, Unknown int
}

// Add adds up.
func (c *Counts) Add(o Counts) {
	c.Calls += o.Calls
	c.Allocated += o.Allocated
	c.Same += o.Same
	c.Ended += o.Ended
	c.Exhausted += o.Exhausted
	c.Fenced += o.Fenced
	c.Unknown += o.Unknown
}

// Pool is the pool that the allocators are to have: small, without cool-down.
func (l Load) Pool() vip.Pool {
	p, err := vip.ParsePool("p", fmt.Sprintf("10.0.0.1-10.0.0.%d", l.Size))
	if err != nil {
		panic(err)
	}
	p.CoolDown = -1
	return p
}

func (l Load) goesOn() bool {
	if l.Until == nil {
		return false
	}
	select {
	case <-l.Until:
		return false
	default:
		return true
	}
}

type call struct {
	op    string // "allocate", "release", "renew"
	task  string
	lease vip.Lease // released or renewed
}

type answer struct {
	lease vip.Lease
	err   error
}

// unknown says whether the call may have had an effect, or may still have one, although it failed.
func (a answer) unknown() bool {
	return a.err != nil && !errors.Is(a.err, vip.ErrFenced) && !errors.Is(a.err, vip.ErrNotFound) &&
		!errors.Is(a.err, vip.ErrExhausted)
}

// Check makes the calls and checks the history of them. A call whose outcome is not known, because
// the store was away, may have been made at any time after it began, or never.
func Check(t testing.TB, allocators []*vip.Allocator, load Load) Counts {
	t.Helper()
	var mu sync.Mutex
	var history []porcupine.Operation
	var counts Counts
	var wg sync.WaitGroup
	start := time.Now()
	for c := range load.Callers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(load.Seed, uint64(c)))
			var had []vip.Lease
			for i := 0; i < load.Calls || load.goesOn(); i++ {
				time.Sleep(load.Pause)
				in := call{op: "allocate", task: fmt.Sprint("T", rnd.IntN(load.Tasks))}
				if n := len(had); n > 0 && rnd.IntN(2) == 0 {
					in = call{op: []string{"release", "renew"}[rnd.IntN(2)],
						lease: had[max(n-1-rnd.IntN(4), 0)]}
				}
				begin := time.Since(start).Nanoseconds()
				out := in.make(t.Context(), allocators[rnd.IntN(len(allocators))])
				end := time.Since(start).Nanoseconds()
				if load.Answered != nil {
					load.Answered.Add(1)
				}
				if out.unknown() {
					t.Logf("caller %d: %s %s%s: %v", c, in.op, in.task, in.lease.ID, out.err)
					end = math.MaxInt64
				} else if out.err == nil && in.op == "allocate" {
					had = append(had, out.lease)
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: c, Input: in, Call: begin,
					Output: out, Return: end})
				counts.count(in, out)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{board("")} },
		Step: func(state, in, out any) []any {
			return state.(board).step(load, len(allocators) > 1, in.(call), out.(answer))
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
	}
	result, info := porcupine.CheckOperationsVerbose(m.ToModel(), history, time.Minute)
	if result != porcupine.Ok {
		t.Errorf("seed %d: history of %d calls: %s\n%s", load.Seed, len(history), result,
			stuck(history, info))
	}
	return counts
}

// stuck shows where the longest order that was found ends: its last calls, and the calls that
// cannot follow although they began before any other of the rest had returned.
func stuck(history []porcupine.Operation, info porcupine.LinearizationInfo) string {
	var longest []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, order := range partition {
			if len(order) > len(longest) {
				longest = order
			}
		}
	}
	same := func(a, b porcupine.Operation) bool {
		return a.ClientId == b.ClientId && a.Call == b.Call
	}
	rest := slices.DeleteFunc(slices.Clone(history), func(o porcupine.Operation) bool {
		return slices.ContainsFunc(longest, func(p porcupine.Operation) bool { return same(o, p) })
	})
	slices.SortFunc(rest, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	first := int64(math.MaxInt64)
	for _, o := range rest {
		first = min(first, o.Return)
	}
	var text strings.Builder
	show := func(o porcupine.Operation) {
		in, out := o.Input.(call), o.Output.(answer)
		fmt.Fprintf(&text, "  %s–%s caller %d: %s %s%s → %s of %q, %v\n", time.Duration(o.Call),
			time.Duration(o.Return), o.ClientId,
			in.op, in.task, in.lease.ID, out.lease.ID, out.lease.Owner.Task, out.err)
	}
	fmt.Fprintf(&text, "%d calls in an order that may be, the last of them:\n", len(longest))
	for _, o := range longest[max(0, len(longest)-24):] {
		show(o)
	}
	text.WriteString("none of these can follow:\n")
	for _, o := range rest {
		if o.Call <= first {
			show(o)
		}
	}
	return text.String()
}

func (in call) make(ctx context.Context, a *vip.Allocator) (out answer) {
	switch in.op {
	case "allocate":
		out.lease, out.err = a.Allocate(ctx, vip.Request{Owner: vip.Owner{Task: in.task},
			TTL: vip.Forever})
	case "release":
		out.lease, out.err = a.Release(ctx, in.lease.ID, "")
	case "renew":
		out.lease, out.err = a.Renew(ctx, in.lease.ID, 0)
	}
	return out
}

func (c *Counts) count(in call, out answer) {
	c.Calls++
	switch {
	case out.unknown():
		c.Unknown++
	case errors.Is(out.err, vip.ErrExhausted):
		c.Exhausted++
	case out.err != nil:
		c.Fenced++
	case in.op == "allocate":
		c.Allocated++
	case in.op == "release":
		c.Ended++
	default:
		c.Same++
	}
}

// board is the state: for each address that was used "address generation task", the task "" once it
// is free again.
type board string

type square struct {
	addr string
	gen  uint64
	task string
}

func (b board) squares() []square {
	var all []square
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), ",")
		gen, _ := strconv.ParseUint(f[1], 10, 64)
		all = append(all, square{f[0], gen, f[2]})
	}
	return all
}

func (b board) at(addr string) square {
	for _, s := range b.squares() {
		if s.addr == addr {
			return s
		}
	}
	return square{addr: addr}
}

func (b board) with(s square) board {
	all := slices.DeleteFunc(b.squares(), func(o square) bool { return o.addr == s.addr })
	all = append(all, s)
	slices.SortFunc(all, func(a, b square) int { return strings.Compare(a.addr, b.addr) })
	var text strings.Builder
	for _, s := range all {
		fmt.Fprintf(&text, "%s,%d,%s\n", s.addr, s.gen, s.task)
	}
	return board(text.String())
}

// step returns the states in which a call may leave the board; none when the answer is wrong.
func (b board) step(load Load, several bool, in call, out answer) []any {
	if in.op == "allocate" {
		return b.allocate(load, several, in, out)
	}
	s, gen := b.at(in.lease.Addr.String()), in.lease.Generation
	freed := b.with(square{s.addr, s.gen, ""})
	switch stale := s.gen != gen; {
	case out.unknown() && in.op == "release" && !stale:
		return []any{b, freed}
	case out.unknown():
		return []any{b}
	case load.Lost && in.op == "release" && errors.Is(out.err, vip.ErrFenced) && !stale:
		return []any{freed}
	case stale || in.op == "renew" && s.task == "":
		return when(errors.Is(out.err, vip.ErrFenced), b)
	case in.op == "renew":
		return when(out.err == nil && out.lease.Generation == gen, b)
	}
	return when(out.err == nil, freed)
}

func (b board) allocate(load Load, several bool, in call, out answer) []any {
	taken := 0
	for _, s := range b.squares() {
		if s.task == in.task { // it is answered with the lease that it has
			return when(out.unknown() || out.err == nil && out.lease.Addr.String() == s.addr &&
				out.lease.Generation == s.gen, b)
		}
		if s.task != "" {
			taken++
		}
	}
	switch {
	case errors.Is(out.err, vip.ErrExhausted):
		// of several allocators one may not have seen yet what another gave back
		return when(taken == load.Size || several, b)
	case out.unknown():
		states := []any{b}
		for a := load.Pool().Ranges[0].First; len(states) <= load.Size; a = a.Next() {
			s := b.at(a.String())
			if s.task != "" {
				states = append(states, b)
				continue
			}
			states = append(states, b.with(square{s.addr, s.gen + 1, in.task}))
		}
		return states
	}
	s := b.at(out.lease.Addr.String())
	return when(out.err == nil && s.task == "" && out.lease.Generation == s.gen+1,
		b.with(square{s.addr, s.gen + 1, in.task}))
}

func when(right bool, b board) []any {
	if right {
		return []any{b}
	}
	return nil
}
