package vip_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/vip"
)

// oracle is the allocator as a person would keep it on paper: a list of addresses that is walked from end to end.
type oracle struct {
	now   time.Time
	pools []vip.Pool
	rows  []*row
}

type row struct {
	addr    netip.Addr
	pool    string
	cool    time.Duration
	state   vip.State
	task    string
	gen     uint64
	ids     []string  // of its tenures
	expires time.Time // zero: never
	until   time.Time // end of cool-down or quarantine
	freed   time.Time // zero: never used
}

func (o *oracle) tick() {
	for _, r := range o.rows {
		if (r.state == vip.Cooling || r.state == vip.Quarantined) && !r.until.IsZero() && !r.until.After(o.now) {
			r.state, r.freed = vip.Free, r.until
		}
	}
}

func (o *oracle) sweep() {
	for _, r := range o.rows {
		if o.over(r) {
			o.end(r)
		}
	}
}

func (o *oracle) over(r *row) bool {
	return r.state == vip.Leased && !r.expires.IsZero() && !r.expires.After(o.now)
}

func (o *oracle) end(r *row) { r.state, r.until = vip.Cooling, o.now.Add(r.cool) }

func (o *oracle) holder(task string) *row {
	for _, r := range o.rows {
		if r.state == vip.Leased && r.task == task {
			return r
		}
	}
	return nil
}

// best lists the addresses that a request of task may get now.
func (o *oracle) best(task string) []*row {
	for _, p := range o.pools {
		var free []*row
		for _, r := range o.rows {
			if r.pool == p.Name && r.state == vip.Free {
				free = append(free, r)
			}
		}
		for _, r := range o.rows { // its last one, wherever
			if r.state == vip.Free && r.task == task && r.gen > 0 {
				return o.lasts(task)
			}
		}
		if len(free) == 0 {
			continue
		}
		oldest := slices.MinFunc(free, func(a, b *row) int { return a.freed.Compare(b.freed) })
		return slices.DeleteFunc(free, func(r *row) bool { return !r.freed.Equal(oldest.freed) })
	}
	return nil
}

func (o *oracle) lasts(task string) []*row {
	var all []*row
	for _, r := range o.rows {
		if r.state == vip.Free && r.task == task && r.gen > 0 {
			all = append(all, r)
		}
	}
	return all
}

func (o *oracle) row(addr netip.Addr) *row {
	return o.rows[slices.IndexFunc(o.rows, func(r *row) bool { return r.addr == addr })]
}

func (o *oracle) counts(pool string) [6]uint64 {
	var n [6]uint64
	for _, r := range o.rows {
		if r.pool == pool {
			n[r.state]++
		}
	}
	return n
}

func newOracle(t require.TestingT) *oracle {
	p, err := vip.ParsePool("p", "10.0.0.0/29")
	require.NoError(t, err)
	q, err := vip.ParsePool("q", "10.0.1.1-10.0.1.3")
	require.NoError(t, err)
	p.MaxQuarantined, q.MaxQuarantined, q.CoolDown = 1, 1, 30*time.Second
	o := &oracle{now: newClock().now, pools: []vip.Pool{p, q}}
	for _, pool := range o.pools {
		for a := pool.Ranges[0].First; a.Compare(pool.Ranges[0].Last) <= 0; a = a.Next() {
			r := &row{addr: a, pool: pool.Name, cool: vip.DefaultCoolDown}
			if pool.CoolDown > 0 {
				r.cool = pool.CoolDown
			}
			if _, reserved := pool.Reserved[a]; reserved {
				r.state = vip.Reserved
			}
			o.rows = append(o.rows, r)
		}
	}
	return o
}

func TestStateMachine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o, c, store := newOracle(t), newClock(), vip.NewMemStore()
		start := func() *vip.Allocator {
			a, err := vip.New(t.Context(), store, o.pools, vip.Config{Now: c.Now})
			require.NoError(t, err)
			return a
		}
		a := start()
		tasks := rapid.SampledFrom([]string{"A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L"})
		some := rapid.Custom(func(t *rapid.T) *row { return rapid.SampledFrom(o.rows).Draw(t, "row") })
		// lease draws a lease, mostly the latest of its address
		lease := func(t *rapid.T) (*row, uint64, string) {
			r := some.Draw(t, "lease")
			gen := r.gen
			if gen > 0 && rapid.IntRange(0, 4).Draw(t, "stale") == 0 {
				gen = rapid.Uint64Range(1, gen).Draw(t, "generation")
			}
			if gen == 0 {
				return r, gen, fmt.Sprint(r.addr, "-1")
			}
			return r, gen, r.ids[gen-1]
		}
		t.Repeat(map[string]func(*rapid.T){
			"allocate": func(t *rapid.T) {
				task, ttl := tasks.Draw(t, "task"), time.Duration(rapid.IntRange(1, 300).Draw(t, "ttl"))*time.Second
				l, err := a.Allocate(t.Context(), vip.Request{Owner: owner(task), TTL: ttl})
				if r := o.holder(task); r != nil && o.over(r) {
					o.end(r)
				}
				if r := o.holder(task); r != nil {
					require.NoError(t, err)
					require.Equal(t, r.addr, l.Addr)
					return
				}
				best := o.best(task)
				if len(best) == 0 {
					require.ErrorIs(t, err, vip.ErrExhausted)
					return
				}
				require.NoError(t, err)
				i := slices.IndexFunc(best, func(r *row) bool { return r.addr == l.Addr })
				require.GreaterOrEqual(t, i, 0, "%s, free since %s, is not one of the best: %s, free since %s", l.Addr, o.row(l.Addr).freed, best[0].addr, best[0].freed)
				r := best[i]
				*r = row{addr: r.addr, pool: r.pool, cool: r.cool, state: vip.Leased, task: task, gen: r.gen + 1, ids: append(r.ids, l.ID), expires: o.now.Add(ttl)}
				require.Equal(t, r.gen, l.Generation)
			},
			"allocate by name": func(t *rapid.T) {
				task, r := tasks.Draw(t, "task"), some.Draw(t, "addr")
				held := o.holder(task)
				l, err := a.Allocate(t.Context(), vip.Request{Owner: owner(task), Addr: r.addr, TTL: vip.Forever})
				if held != nil && o.over(held) {
					o.end(held)
					held = nil
				}
				switch {
				case held != nil && held != r:
					require.ErrorIs(t, err, vip.ErrConflict)
				case held == r:
					require.NoError(t, err)
				case r.state != vip.Free:
					require.ErrorIs(t, err, vip.ErrTaken)
				default:
					require.NoError(t, err)
					require.Equal(t, r.addr, l.Addr)
					*r = row{addr: r.addr, pool: r.pool, cool: r.cool, state: vip.Leased, task: task, gen: r.gen + 1, ids: append(r.ids, l.ID)}
				}
			},
			"renew": func(t *rapid.T) {
				r, gen, id := lease(t)
				_, err := a.Renew(t.Context(), id, gen, time.Minute)
				switch {
				case r.gen == 0:
					require.ErrorIs(t, err, vip.ErrNotFound)
				case gen != r.gen || r.state != vip.Leased || o.over(r):
					require.ErrorIs(t, err, vip.ErrFenced)
				default:
					require.NoError(t, err)
					r.expires = o.now.Add(time.Minute)
				}
			},
			"release": func(t *rapid.T) {
				r, gen, id := lease(t)
				_, err := a.Release(t.Context(), id, gen, "")
				switch {
				case r.gen == 0:
					require.ErrorIs(t, err, vip.ErrNotFound)
				case gen != r.gen:
					require.ErrorIs(t, err, vip.ErrFenced)
				default:
					require.NoError(t, err)
					if r.state == vip.Leased {
						o.end(r)
					}
				}
			},
			"quarantine": func(t *rapid.T) {
				r, rest := some.Draw(t, "addr"), time.Duration(rapid.IntRange(0, 100).Draw(t, "rest"))*time.Second
				_, err := a.Quarantine(t.Context(), r.addr, "bad", rest)
				if r.state == vip.Reserved {
					require.ErrorIs(t, err, vip.ErrTaken)
					return
				}
				if errors.Is(err, vip.ErrQuarantineFull) {
					require.Equal(t, uint64(8), o.counts(r.pool)[vip.Quarantined])
					return
				}
				require.NoError(t, err)
				if r.state != vip.Free && r.gen > 0 && rest > 0 {
					rest = max(rest, r.cool)
				}
				r.state, r.until = vip.Quarantined, time.Time{}
				if rest > 0 {
					r.until = o.now.Add(rest)
				}
			},
			"restore": func(t *rapid.T) {
				r := some.Draw(t, "addr")
				_, err := a.Restore(t.Context(), r.addr, "good")
				if r.state == vip.Reserved {
					require.ErrorIs(t, err, vip.ErrTaken)
					return
				}
				require.NoError(t, err)
				if r.state == vip.Quarantined {
					o.end(r)
				}
			},
			"time passes": func(t *rapid.T) {
				d := time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * time.Second
				c.Add(d)
				o.now = o.now.Add(d)
			},
			"sweep": func(t *rapid.T) {
				require.NoError(t, a.Sweep(t.Context()))
				o.sweep()
			},
			"restart": func(*rapid.T) { a = start() },
			"": func(t *rapid.T) {
				o.tick()
				for _, s := range a.Stats() {
					n := o.counts(s.Pool)
					got := [6]uint64{s.Free, s.Leased, s.Draining, s.Cooling, s.Quarantined, s.Reserved}
					require.Equal(t, n, got, "pool %s", s.Pool)
				}
				for _, l := range a.List(vip.Query{}) {
					r := o.row(l.Addr)
					require.Equal(t, []any{r.state, r.task, r.gen}, []any{l.State, l.Owner.Task, l.Generation}, "%s", l.Addr)
				}
			},
		})
	})
}
