package vip_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

// call is one call as its caller saw it.
type call struct {
	op   string // "allocate", "release", "renew"
	task string
	id   string
	gen  uint64
}

type answer struct {
	id  string
	gen uint64
	err error
}

// board is what a linearizable allocator has: for each address the latest tenure and its holder, "" when it is free.
type board string

func boardOf(b board) map[string][2]string { // address → lease id, task
	rows := map[string][2]string{}
	for _, line := range strings.Fields(string(b)) {
		parts := strings.Split(line, "=")
		rows[parts[0]] = [2]string{parts[1], parts[2]}
	}
	return rows
}

func (b board) with(addr, id, task string, size int) board {
	rows := boardOf(b)
	rows[addr] = [2]string{id, task}
	var s strings.Builder
	for i := range size {
		addr := fmt.Sprint("10.0.0.", i+1)
		if r, ok := rows[addr]; ok {
			fmt.Fprintf(&s, "%s=%s=%s ", addr, r[0], r[1])
		}
	}
	return board(s.String())
}

func model(size int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return board("") },
		Step: func(state, input, output any) (bool, any) {
			b, in, out := state.(board), input.(call), output.(answer)
			rows := boardOf(b)
			if in.op == "allocate" {
				held, taken := "", 0
				for _, r := range rows {
					if r[1] != "" {
						taken++
					}
					if r[1] == in.task {
						held = r[0]
					}
				}
				if errors.Is(out.err, vip.ErrExhausted) {
					return held == "" && taken == size, b
				}
				if held != "" {
					return out.id == held, b
				}
				addr, _, _ := strings.Cut(out.id, "-")
				r := rows[addr]
				return r[1] == "" && out.gen == genOf(r[0])+1, b.with(addr, out.id, in.task, size)
			}
			addr, _, _ := strings.Cut(in.id, "-")
			r := rows[addr]
			switch {
			case r[0] != in.id: // somebody has had it since
				return errors.Is(out.err, vip.ErrFenced), b
			case in.op == "renew":
				return (r[1] != "") == (out.err == nil), b
			}
			return out.err == nil, b.with(addr, in.id, "", size)
		},
		DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
	}
}

func genOf(id string) uint64 {
	var gen uint64
	if _, after, ok := strings.Cut(id, "-"); ok {
		_, _ = fmt.Sscan(after, &gen)
	}
	return gen
}

// Many callers at once see a history that one caller after the other could have seen.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) vip.Store{
		"memory": func(*testing.T) vip.Store { return vip.NewMemStore() },
		"bbolt": func(t *testing.T) vip.Store {
			s, err := boltstore.Open(filepath.Join(t.TempDir(), "vip.db"))
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size, callers, calls, rounds = 4, 6, 40, 10
			for round := range rounds {
				p := pool(t, "p", fmt.Sprintf("10.0.0.1-10.0.0.%d", size))
				p.CoolDown = -1
				a, err := vip.New(t.Context(), open(t), []vip.Pool{p}, vip.Config{})
				require.NoError(t, err)
				var mu sync.Mutex
				var history []porcupine.Operation
				var wg sync.WaitGroup
				start := time.Now()
				for c := range callers {
					wg.Go(func() {
						rnd := rand.New(rand.NewPCG(uint64(round), uint64(c)))
						var had []answer
						for range calls {
							in := call{op: "allocate", task: fmt.Sprint("T", rnd.IntN(7))}
							if n := len(had); n > 0 && rnd.IntN(2) == 0 {
								l := had[rnd.IntN(n)]
								in = call{op: []string{"release", "renew"}[rnd.IntN(2)], id: l.id, gen: l.gen}
							}
							begin := time.Since(start).Nanoseconds()
							var l vip.Lease
							var err error
							switch in.op {
							case "allocate":
								l, err = a.Allocate(t.Context(), vip.Request{Owner: owner(in.task)})
							case "release":
								_, err = a.Release(t.Context(), in.id, in.gen, "")
							case "renew":
								_, err = a.Renew(t.Context(), in.id, in.gen, 0)
							}
							end := time.Since(start).Nanoseconds()
							if err == nil && in.op == "allocate" {
								had = append(had, answer{id: l.ID, gen: l.Generation})
							}
							mu.Lock()
							history = append(history, porcupine.Operation{ClientId: c, Input: in, Call: begin, Output: answer{l.ID, l.Generation, err}, Return: end})
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(model(size), history, time.Minute), "round %d: %d calls", round, len(history))
			}
		})
	}
}
