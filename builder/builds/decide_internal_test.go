package builds

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/builder"
)

func sample(id string) Order {
	return Order{ID: id, Actor: "ann", Dockerfile: "FROM scratch\nCOPY a /a\n",
		Repository: "registry.example.com/hello_web"}
}

// machine applies decisions.
type machine struct {
	*state
	all *[]Entry // that were added
}

func (m machine) add(e Entry) Entry {
	e.Seq = m.seq + 1
	if e.Kind == Started {
		e.Attempt = e.Seq
	}
	m.apply(e)
	if m.all != nil {
		*m.all = append(*m.all, e)
	}
	return e
}

func (m machine) submit(t testing.TB, o Order) {
	t.Helper()
	e, ok, err := m.state.submit(o)
	if err != nil || !ok {
		t.Fatalf("submit %s: %t, %v", o.ID, ok, err)
	}
	m.add(e)
}

// start returns the id of the build that starts next, "" for none.
func (m machine) start() string {
	e, ok := m.next("one")
	if !ok {
		return ""
	}
	return m.add(e).Build
}

// TestTransitions is the table of states and commands.
func TestTransitions(t *testing.T) {
	t.Parallel()
	failed := outcome{failure: &builder.Failure{Reason: builder.ReasonCommand}}
	retryable := outcome{failure: &builder.Failure{Retryable: true}}
	commands := map[string]func(m machine) (Entry, bool, error){
		"cancel": func(m machine) (Entry, bool, error) { return m.cancel("a", "bob", "why") },
		"start": func(m machine) (Entry, bool, error) {
			e, ok := m.next("one")
			return e, ok, nil
		},
		"orphan": func(m machine) (Entry, bool, error) {
			e, ok := m.orphaned("a", m.builds["a"].Attempt)
			return e, ok, nil
		},
		"succeed": func(m machine) (Entry, bool, error) {
			return m.ends(outcome{result: &builder.Result{}})
		},
		"fail":  func(m machine) (Entry, bool, error) { return m.ends(failed) },
		"retry": func(m machine) (Entry, bool, error) { return m.ends(retryable) },
		"stop": func(m machine) (Entry, bool, error) {
			return m.ends(outcome{failure: failed.failure, stopped: true})
		},
	}
	paths := map[State][]string{StateQueued: {}, StateRunning: {"start"},
		StateCancelling: {"start", "cancel"}, StateSucceeded: {"start", "succeed"},
		StateFailed: {"start", "fail"}, StateCancelled: {"cancel"}}
	want := map[State]map[string]State{
		StateQueued: {"cancel": StateCancelled, "start": StateRunning},
		StateRunning: {"cancel": StateCancelling, "orphan": StateQueued, "succeed": StateSucceeded,
			"fail": StateFailed, "retry": StateQueued, "stop": StateQueued},
		StateCancelling: {"orphan": StateCancelled, "succeed": StateSucceeded,
			"fail":  StateCancelled,
			"retry": StateCancelled, "stop": StateCancelled},
		StateSucceeded: {}, StateFailed: {}, StateCancelled: {},
	}
	text, err := os.ReadFile("../../docs/builds.md")
	if err != nil {
		t.Fatal(err)
	}
	for from, path := range paths {
		for name, command := range commands {
			m := machine{state: newState()}
			o := sample("a")
			o.Attempts = 2
			m.submit(t, o)
			for _, step := range path {
				e, _, _ := commands[step](m)
				m.add(e)
			}
			if got := m.builds["a"].State; got != from {
				t.Fatalf("path to %s leads to %s", from, got)
			}
			e, ok, err := command(m)
			to, moves := want[from][name]
			row := fmt.Sprintf("| %s | %s | %s |\n", from, name, to)
			if strings.Contains(string(text), row) != moves {
				t.Errorf("docs/builds.md: row %q: want it: %t", row, moves)
			}
			if ok != moves {
				t.Errorf("%s in %s: got %+v, %t, %v, want a move: %t", name, from, e, ok, err,
					moves)
				continue
			}
			if !moves {
				if err != nil && !errors.Is(err, ErrFenced) {
					t.Errorf("%s in %s: got %v, want ErrFenced or nil", name, from, err)
				}
				continue
			}
			m.add(e)
			if got := m.builds["a"].State; got != to {
				t.Errorf("%s in %s: got %s, want %s", name, from, got, to)
			}
		}
	}
}

func (m machine) ends(o outcome) (Entry, bool, error) {
	o.log.Verdict = Complete
	e, err := m.end("a", m.builds["a"].Attempt, o)
	return e, err == nil, err
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	m := machine{state: newState()}
	o := sample("a")
	o.Attempts = 2
	m.submit(t, o)
	try := func(out outcome) State {
		m.start()
		e, _, err := m.ends(out)
		if err != nil {
			t.Fatal(err)
		}
		m.add(e)
		return m.builds["a"].State
	}
	away := outcome{failure: &builder.Failure{Retryable: true}}
	away.stopped = true
	for range 3 { // attempts that a process cut off do not count
		if got := try(away); got != StateQueued {
			t.Fatalf("after a stop: %s", got)
		}
	}
	away.stopped = false
	if got := try(away); got != StateQueued {
		t.Errorf("after the first failure of 2: got %s, want queued", got)
	}
	if got := try(away); got != StateFailed {
		t.Errorf("after the second failure of 2: got %s, want failed", got)
	}
	if got := m.builds["a"].Log.Verdict; got != Complete {
		t.Errorf("log after attempts that all ended by themselves: got %s, want complete", got)
	}
}

func TestOrphanedLogHasAGap(t *testing.T) {
	t.Parallel()
	m := machine{state: newState()}
	m.submit(t, sample("a"))
	m.start()
	e, _ := m.orphaned("a", m.builds["a"].Attempt)
	m.add(e)
	m.start()
	e, _, _ = m.ends(outcome{result: &builder.Result{}})
	m.add(e)
	if got := m.builds["a"].Log.Verdict; got != Gap {
		t.Errorf("log with an attempt whose process died: got %s, want gap", got)
	}
}

func TestGroups(t *testing.T) {
	t.Parallel()
	in := func(id string, p Policy) Order {
		o := sample(id)
		o.Group, o.Policy = "hello_web", p
		return o
	}
	end := func(m machine, id string) {
		e, err := m.end(id, m.builds[id].Attempt, outcome{result: &builder.Result{}})
		if err != nil {
			t.Fatal(err)
		}
		m.add(e)
	}
	t.Run("serial", func(t *testing.T) {
		t.Parallel()
		m := machine{state: newState()}
		m.submit(t, in("a", Serial))
		m.submit(t, in("b", Serial))
		m.submit(t, sample("c"))
		got := fmt.Sprint(m.start(), m.start(), m.start())
		end(m, "a")
		if got += m.start(); got != "a c b" && got != "ac"+"b" {
			t.Errorf("started %q, want a, c and after the end of a, b", got)
		}
	})
	t.Run("latest only", func(t *testing.T) {
		t.Parallel()
		m := machine{state: newState()}
		m.submit(t, in("a", LatestOnly))
		m.start()
		m.submit(t, in("b", LatestOnly))
		m.submit(t, sample("other"))
		m.submit(t, in("c", LatestOnly))
		if a, b := m.builds["a"].State, m.builds["b"].State; a != StateCancelling ||
			b != StateSuperseded {
			t.Errorf("a is %s and b %s, want cancelling and superseded", a, b)
		}
		if got := m.start() + m.start(); got != "other" {
			t.Errorf("started %q while a ends, want other alone", got)
		}
		e, err := m.end("a", m.builds["a"].Attempt, outcome{failure: &builder.Failure{}})
		if err != nil {
			t.Fatal(err)
		}
		m.add(e)
		if got := m.builds["a"].State; got != StateSuperseded {
			t.Errorf("a ended as %s, want superseded", got)
		}
		if got := m.start(); got != "c" {
			t.Errorf("started %q, want c", got)
		}
		if got := m.builds["b"].Reason; got != "superseded by build c" {
			t.Errorf("reason of b: %q", got)
		}
	})
	t.Run("teams share", func(t *testing.T) {
		t.Parallel()
		m := machine{state: newState()}
		for i := range 4 {
			o := sample(fmt.Sprint("x", i))
			o.Team = "x"
			m.submit(t, o)
		}
		o := sample("y0")
		o.Team = "y"
		m.submit(t, o)
		if got := strings.Join([]string{m.start(), m.start(), m.start()}, " "); got != "x0 y0 x1" {
			t.Errorf("started %s, want x0 y0 x1", got)
		}
	})
}

// compacted fails unless the entries that are left after a compaction give the same builds as all.
func compacted(t *rapid.T, m machine, all []Entry) {
	left := newState()
	for i, e := range all {
		if i == len(all)-1 || !m.dropped(e) {
			left.apply(e)
		}
	}
	if len(left.order) != len(m.order) || len(left.open) != len(m.open) {
		t.Fatalf("%d builds and %d open ones are left, want %d and %d", len(left.order),
			len(left.open), len(m.order), len(m.open))
	}
	for i, r := range m.order {
		if got := left.order[i]; got.ID != r.ID || got.State != r.State || got.Seq != r.Seq ||
			got.Attempt != r.Attempt || got.supersedes != r.supersedes {
			t.Fatalf("after a compaction: got %+v, want %+v", got.Build, r.Build)
		}
	}
}

// TestHistories looks in random histories for a group with two builds at once, an ended build that
// changes, and entries of a build that do not grow.
func TestHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var all []Entry
		m := machine{newState(), &all}
		ended := map[string]State{}
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			var ids []string
			for _, r := range m.order {
				ids = append(ids, r.ID)
			}
			id := ""
			if len(ids) > 0 {
				id = rapid.SampledFrom(ids).Draw(t, "id")
			}
			switch rapid.IntRange(0, 6).Draw(t, "command") {
			case 6:
				keep := rapid.IntRange(0, 3).Draw(t, "keep")
				if e, ok := m.forgettable(keep, time.Time{}); ok {
					for _, id := range e.Builds {
						if !m.builds[id].State.Ended() {
							t.Fatalf("build %s is %s and forgotten", id, m.builds[id].State)
						}
						delete(ended, id)
					}
					m.add(e)
				}
			case 0:
				o := sample(fmt.Sprint("b", i))
				o.Policy = rapid.SampledFrom([]Policy{Parallel, Serial, LatestOnly}).Draw(t,
					"policy")
				o.Group = rapid.SampledFrom([]string{"g", "h"}).Draw(t, "group")
				o.Attempts = rapid.IntRange(0, 2).Draw(t, "attempts")
				e, _, err := m.state.submit(o)
				if err != nil {
					t.Fatal(err)
				}
				m.add(e)
			case 1:
				m.start()
			case 2:
				if e, ok, _ := m.cancel(id, "bob", "why"); ok {
					m.add(e)
				}
			case 3:
				if r := m.builds[id]; r != nil {
					if e, ok := m.orphaned(id, r.Attempt); ok {
						m.add(e)
					}
				}
			default:
				if r := m.builds[id]; r != nil {
					o := outcome{failure: &builder.Failure{
						Retryable: rapid.Bool().Draw(t, "retryable")},
						stopped: rapid.Bool().Draw(t, "stopped")}
					if rapid.Bool().Draw(t, "success") {
						o.result = &builder.Result{}
					}
					if e, err := m.end(id, r.Attempt, o); err == nil {
						m.add(e)
					}
				}
			}
			compacted(t, m, all)
			running := map[string]int{}
			open := 0
			for _, r := range m.order {
				if was, ok := ended[r.ID]; ok && was != r.State {
					t.Fatalf("build %s was %s and is %s", r.ID, was, r.State)
				}
				if r.State.Ended() {
					ended[r.ID] = r.State
					if r.Log == nil {
						t.Fatalf("build %s is %s without a verdict on its log", r.ID, r.State)
					}
				} else {
					open++
				}
				if r.State == StateRunning && r.Policy == LatestOnly {
					running[r.Group]++
				}
				for j := 1; j < len(r.entries); j++ {
					if r.entries[j].Seq <= r.entries[j-1].Seq {
						t.Fatalf("build %s: entry %d follows %d", r.ID, r.entries[j].Seq,
							r.entries[j-1].Seq)
					}
				}
			}
			if open != len(m.open) {
				t.Fatalf("%d builds have not ended, %d are listed", open, len(m.open))
			}
			for g, n := range running {
				if n > 1 {
					t.Fatalf("group %s has %d builds of latestOnly at once", g, n)
				}
			}
		}
	})
}
