package promote

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the table of states and commands")

const (
	tableFile  = "../docs/promote-states.md"
	tableBegin = "<!-- table: go test ./promote -run TestTable -update -->\n"
)

var (
	testTarget  = Target{Cluster: "web", Environment: "test"}
	errTest     = errors.New("it does not start")
	testDigests = []Digest{Digest("sha256:" + strings.Repeat("01", 32)),
		Digest("sha256:" + strings.Repeat("02", 32))}
)

// machine drives a state by commands, without a clock, a deployer or a journal.
type machine struct {
	*state
	open Entry // of the promoter at work: the newest entry that gave it the right to act
}

func newMachine() *machine {
	m := &machine{state: newState(DefaultPipeline())}
	for i, d := range testDigests {
		e, _, err := m.bind(Binding{Cluster: "web", Version: fmt.Sprint("v", i+1), Digest: d,
			Repository: "r/web", Actor: "ci"})
		m.take(e, err)
	}
	return m
}

// take applies a decision as Promoter.commit does, and returns the entry's kind or the refusal.
func (m *machine) take(e Entry, err error) string {
	switch {
	case errors.Is(err, ErrConflict):
		return "conflict"
	case errors.Is(err, ErrFenced):
		return "fenced"
	case errors.Is(err, ErrAborted):
		return "counts as a failure"
	case err != nil:
		return "refused"
	case e.Kind == "":
		return "nothing"
	}
	e.Seq = m.head("web").Seq + 1
	m.number(&e)
	if err := e.seal(m.head("web").Chain); err != nil {
		return "BROKEN: " + err.Error()
	}
	if err := m.apply(e); err != nil {
		return "BROKEN: " + err.Error()
	}
	switch e.Kind {
	case Started, Resumed, Restoring:
		m.open = e
	}
	return string(e.Kind)
}

func when(e Entry, ok bool, err error) (Entry, error) {
	if !ok {
		return Entry{}, err
	}
	return e, err
}

// commands are everything that can happen to a target.
var commands = []struct {
	name string
	do   func(*machine) string
}{
	{"Start", func(m *machine) string {
		return m.take(m.promote(Request{Target: testTarget, Expect: Any, Version: "v2",
			Actor: "alice"}))
	}},
	{"StartRollback", func(m *machine) string {
		return m.take(m.rollback(RollbackRequest{Target: testTarget, Expect: Any,
			Digest: testDigests[1],
			Actor:  "alice"}))
	}},
	{"StartRetire", func(m *machine) string {
		return m.take(m.retire(RetireRequest{Target: testTarget, Expect: Any, Actor: "alice"}))
	}},
	{"Abort", func(m *machine) string {
		return m.take(when(m.abort(testTarget, m.open.Change, "bob", "wrong")))
	}},
	{"Recover", func(m *machine) string {
		return m.take(when(m.resume(testTarget, m.open.Change)))
	}},
	{"the deployer cannot be asked", func(m *machine) string {
		return m.take(when(m.wait(m.open, ErrUnavailable)))
	}},
	{"the deployer succeeds", func(m *machine) string {
		return m.take(m.end(m.open, nil, ""))
	}},
	{"the deployer fails", func(m *machine) string {
		return m.take(m.restore(m.open, errTest))
	}},
	{"restored", func(m *machine) string {
		return m.take(m.end(m.open, errTest, ""))
	}},
	{"not restored", func(m *machine) string {
		return m.take(m.end(m.open, errTest, "the host is gone"))
	}},
	{"Review", func(m *machine) string {
		return m.take(m.review(Review{Target: testTarget, Version: "v2", Approve: true,
			Actor: "bob"}))
	}},
	{"Adopt", func(m *machine) string {
		return m.take(m.adopt(AdoptRequest{Target: testTarget, Expect: Any, Version: "v1",
			Actor: "carol"}))
	}},
	{"Quarantine", func(m *machine) string {
		return m.take(m.quarantined(QuarantineRequest{Cluster: "web", Digest: testDigests[1],
			Actor: "bob", Reason: "CVE"}), nil)
	}},
	{"Release of a quarantined digest", func(m *machine) string {
		m.take(m.quarantined(QuarantineRequest{Cluster: "web", Digest: testDigests[1],
			Actor: "bob", Reason: "CVE"}), nil)
		return m.take(when(m.released(QuarantineRequest{Cluster: "web", Digest: testDigests[1],
			Actor: "bob", Reason: "mended"})))
	}},
	{"Progress", func(m *machine) string {
		e, ok := m.progress(Progress{Target: testTarget, Generation: m.open.Generation,
			Op: "switched", Detail: "5 %"})
		return m.take(when(e, ok, nil))
	}},
	{"Note", func(m *machine) string {
		return m.take(m.note(Note{Target: testTarget, Op: "restart", Actor: "bob"}), nil)
	}},
}

// do carries the commands out by name.
func (m *machine) do(names ...string) {
	for _, name := range names {
		for _, c := range commands {
			if c.name == name {
				c.do(m)
			}
		}
	}
}

// states are the states of a target, each with the commands that lead to it.
var states = []struct {
	name string
	by   []string
}{
	{"nothing current", nil},
	{"current", []string{"Start", "the deployer succeeds"}},
	{"uncertain", []string{"Start", "the deployer fails", "not restored"}},
	{string(Deploying), []string{"Start"}},
	{"deploying, waiting", []string{"Start", "the deployer cannot be asked"}},
	{string(Stopping), []string{"Start", "Abort"}},
	{string(PuttingBack), []string{"Start", "the deployer fails"}},
	{string(GivingUp), []string{"Start", "the deployer fails", "Abort"}},
}

// TestTable holds the table of the documentation to the decisions.
func TestTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("| |")
	for _, s := range states {
		b.WriteString(" " + s.name + " |")
	}
	b.WriteString("\n|" + strings.Repeat(" --- |", len(states)+1) + "\n")
	for _, c := range commands {
		b.WriteString("| " + c.name + " |")
		for _, s := range states {
			m := newMachine()
			m.do(s.by...)
			answer := c.do(m)
			require.NotContains(t, answer, "BROKEN", "%s while %s", c.name, s.name)
			b.WriteString(" " + answer + " |")
		}
		b.WriteString("\n")
	}
	file, err := os.ReadFile(tableFile)
	require.NoError(t, err)
	text, old, found := strings.Cut(string(file), tableBegin)
	require.True(t, found)
	if *update {
		require.NoError(t, os.WriteFile(tableFile, []byte(text+tableBegin+b.String()), 0o644))
		return
	}
	require.Equal(t, old, b.String(), "run go test ./promote -run TestTable -update")
}

// Any order of commands leaves at most one change open, generations that grow, ends that are final,
// and no success after an abort; and every change can be brought to an end.
func TestAnyOrderOfCommands(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine()
		ended, aborted := map[uint64]bool{}, map[uint64]bool{}
		var generation uint64
		for range rapid.IntRange(1, 60).Draw(rt, "length") {
			c := rapid.SampledFrom(commands).Draw(rt, "command")
			before := m.head("web").Seq
			answer := c.do(m)
			require.NotContains(rt, answer, "BROKEN")
			if m.head("web").Seq == before {
				continue
			}
			entries := m.clusters["web"].entries
			e := entries[len(entries)-1]
			require.False(rt, e.Change != 0 && ended[e.Change], "%s after the end", e.Kind)
			switch e.Kind {
			case Aborting:
				aborted[e.Change] = true
			case Started, Resumed, Restoring, Adopted:
				require.Greater(rt, e.Generation, generation)
				generation = e.Generation
			case Succeeded, Failed:
				ended[e.Change] = true
				require.False(rt, e.Kind == Succeeded && aborted[e.Change])
			}
			if open := m.place(testTarget).open; open != nil {
				status, err := m.status("web", open.Change)
				require.NoError(rt, err)
				require.Equal(rt, open.state, status.State)
				require.Equal(rt, open.Generation == generation, true)
			}
		}
		m.do("Recover", "the deployer fails", "not restored")
		require.Nil(rt, m.place(testTarget).open)
	})
}
