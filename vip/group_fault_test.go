package vip_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/vip"
)

// fault is how a call of a faultyStore goes wrong.
type fault struct {
	name   string
	effect bool // the store does what it is asked
	answer bool // and the caller hears of it
	cancel bool // the caller's context ends
	stays  bool // all later calls go wrong, too
	late   bool // a commit is made after the allocation has returned
	last   bool // and after the owner has asked again
}

var faults = []fault{
	{name: "fails"}, {name: "answer is lost", effect: true},
	{name: "goes away", stays: true},
	{name: "goes away after the effect", effect: true, stays: true},
	{name: "is late", late: true, stays: true},
	{name: "is very late", late: true, last: true, stays: true},
	{name: "cancelled before", cancel: true, stays: true},
	{name: "cancelled after the effect", cancel: true, effect: true, stays: true},
	{name: "cancelled, then answers", cancel: true, effect: true, answer: true},
	{name: "cancelled, then late", cancel: true, late: true, stays: true},
}

var (
	errAway    = errors.New("the store is away")
	errGivenUp = errors.New("the caller has given up")
)

// faultyStore goes wrong at one of its calls. It has no lock: the test calls one thing at a time.
type faultyStore struct {
	vip.Store
	at     int // 1 for the next call; 0 for none
	fault  fault
	went   bool // wrong
	cancel context.CancelCauseFunc
	late   [][]vip.Change
}

// wrong reports whether this call goes wrong.
func (s *faultyStore) wrong() bool {
	if s.at == 0 {
		return false
	}
	s.at--
	if s.at > 0 {
		return false
	}
	s.went = true
	if s.fault.stays {
		s.at = 1
	}
	if s.fault.cancel {
		s.cancel(errGivenUp)
	}
	return true
}

func (s *faultyStore) err() error {
	switch {
	case s.fault.answer:
		return nil
	case s.fault.cancel:
		return errGivenUp
	}
	return errAway
}

func (s *faultyStore) List(ctx context.Context, prefix string) ([]vip.Record, error) {
	found, err := s.Store.List(context.WithoutCancel(ctx), prefix)
	if s.wrong() {
		err = s.err()
	}
	return found, err
}

func (s *faultyStore) Get(ctx context.Context, keys ...string) ([]vip.Record, error) {
	found, err := s.Store.Get(context.WithoutCancel(ctx), keys...)
	if s.wrong() {
		err = s.err()
	}
	return found, err
}

func (s *faultyStore) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	if !s.wrong() {
		return s.Store.Commit(ctx, changes...)
	}
	if s.fault.late {
		s.late = append(s.late, changes)
	}
	if !s.fault.effect {
		return 0, s.err()
	}
	rev, err := s.Store.Commit(context.WithoutCancel(ctx), changes...)
	if err == nil {
		err = s.err()
	}
	return rev, err
}

// arrive makes the late commits, the latest first: only one of them can be made.
func (s *faultyStore) arrive() {
	for len(s.late) > 0 {
		last := len(s.late) - 1
		_, _ = s.Store.Commit(context.Background(), s.late[last]...)
		s.late = s.late[:last]
	}
}

// together asks for the group of task.
type together func(ctx context.Context, a *vip.Allocator, task string) ([]vip.Lease, error)

func three(ctx context.Context, a *vip.Allocator, task string) ([]vip.Lease, error) {
	return a.AllocateN(ctx, vip.Request{Owner: owner(task), TTL: time.Hour, Pool: "four"}, 3)
}

func dualStack(ctx context.Context, a *vip.Allocator, task string) ([]vip.Lease, error) {
	v4, v6, err := a.AllocateDual(ctx, vip.Request{Owner: owner(task), TTL: time.Hour})
	if err != nil {
		return nil, err
	}
	return []vip.Lease{v4, v6}, nil
}

// groupTest is an allocation of a group during which the store goes wrong at one call.
type groupTest struct {
	ask    together
	size   int
	before string // what the owner had
	shared bool
	fault  fault
	at     int

	c     *clock
	inner *vip.MemStore
	store *faultyStore
}

// start makes the store, which works so far.
func (g *groupTest) start() vip.Store {
	g.c, g.inner = newClock(), vip.NewMemStore()
	g.store = &faultyStore{Store: g.inner, fault: g.fault}
	if g.shared {
		return g.store
	}
	return exclusiveFaults{g.store}
}

// open opens an allocator on the store: the one of the test, or its successor.
func (g *groupTest) open(t *testing.T, store vip.Store) *vip.Allocator {
	t.Helper()
	four, six := pool(t, "four", "10.0.0.1-10.0.0.6"), pool(t, "six", "fd00::1-fd00::3")
	four.CoolDown, six.CoolDown = -1, -1
	return allocator(t, sharedIf(g.shared, store), g.c, vip.Config{}, four, six)
}

// exclusiveFaults is a faultyStore for one allocator.
type exclusiveFaults struct{ *faultyStore }

func (exclusiveFaults) Exclusive() bool { return true }

// live opens the store anew, and lists the unexpired leases of the task.
func (g *groupTest) live(t *testing.T, task string) (all []vip.Lease) {
	t.Helper()
	for _, l := range g.open(t, g.inner).List(vip.Query{Task: task,
		States: []vip.State{vip.Leased}}) {
		if l.Expires.After(g.c.Now()) {
			all = append(all, l)
		}
	}
	return all
}

// whole requires that the leases are one group.
func (g *groupTest) whole(t *testing.T, all []vip.Lease) {
	t.Helper()
	require.Len(t, all, g.size)
	for i, l := range all {
		require.Equal(t, g.c.Now().Add(time.Hour), l.Expires)
		if g.size == 2 {
			require.Equal(t, all[1-i].ID, l.Peer)
		} else {
			require.Equal(t, g.size, l.Count)
		}
	}
}

// run reports whether the store had so many calls that it went wrong.
func (g *groupTest) run(t *testing.T, restart bool) bool {
	t.Helper()
	store := g.start()
	a := g.open(t, store)
	if g.before != "nothing" {
		had, err := g.ask(t.Context(), a, "T1")
		require.NoError(t, err)
		switch g.before {
		case "expired":
			g.c.Add(2 * time.Hour)
		case "released":
			for _, l := range had {
				release(t, a, l)
			}
		case "others took it":
			for _, l := range had {
				release(t, a, l)
			}
			// of an allocator that this one has not heard of
			_, err := g.ask(t.Context(), g.open(t, g.inner), "T2")
			require.NoError(t, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	g.store.cancel, g.store.at = cancel, g.at
	got, err := g.ask(ctx, a, "T1")
	g.store.at = 0

	stored := g.live(t, "T1")
	if err == nil {
		g.whole(t, got)
		require.ElementsMatch(t, ids(got), ids(stored), "acknowledged")
	} else {
		require.Empty(t, got)
		if g.fault.cancel {
			require.ErrorIs(t, err, errGivenUp)
		} else {
			require.ErrorIs(t, err, errAway)
		}
		require.Contains(t, []int{0, g.size}, len(stored), "all or none: %v", ids(stored))
	}
	if !g.fault.last {
		g.store.arrive()
	}
	stored = g.live(t, "T1")
	require.Contains(t, []int{0, g.size}, len(stored), "a late commit: %v", ids(stored))

	if restart {
		a = g.open(t, store)
	}
	again, err := g.ask(t.Context(), a, "T1")
	require.NoError(t, err)
	g.whole(t, again)
	if len(stored) > 0 {
		require.ElementsMatch(t, ids(stored), ids(again), "the owner gets the group that it has")
	}
	g.store.arrive()
	require.ElementsMatch(t, ids(again), ids(g.live(t, "T1")))
	if g.before != "others took it" {
		other, err := g.ask(t.Context(), a, "T2")
		require.NoError(t, err, "no address is lost")
		g.whole(t, other)
	}
	conserved(t, a)
	return g.store.went
}

func ids(all []vip.Lease) []string {
	list := []string{}
	for _, l := range all {
		list = append(list, l.ID)
	}
	return list
}

// A group is leased as a whole or not at all, whichever call of the store goes wrong and however,
// by the allocator that made the call and by its successor.
func TestGroupsWhenTheStoreFails(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]together{"three": three, "pair": dualStack} {
		for _, before := range []string{"nothing", "a group", "expired", "released",
			"others took it"} {
			for _, shared := range []bool{false, true} {
				if before == "others took it" && !shared {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/shared_%t", name, before, shared), func(t *testing.T) {
					t.Parallel()
					size := map[string]int{"three": 3, "pair": 2}[name]
					calls := 0
					for _, f := range faults {
						for at := 1; ; at++ {
							wrong := false
							for _, restart := range []bool{false, true} {
								ok := t.Run(fmt.Sprintf("%s_at_%d_restart_%t", f.name, at, restart),
									func(t *testing.T) {
										g := &groupTest{ask: ask, size: size, before: before,
											shared: shared, fault: f, at: at}
										wrong = g.run(t, restart)
									})
								if !ok {
									return
								}
							}
							if !wrong {
								break
							}
							calls++
						}
					}
					if before != "a group" || shared { // else the store is not asked
						require.GreaterOrEqual(t, calls, len(faults))
					}
				})
			}
		}
	}
}
