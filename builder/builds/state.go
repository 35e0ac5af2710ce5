package builds

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
)

// State says how far a build is.
type State string

// The states of a build.
const (
	StateQueued     State = "queued"
	StateRunning    State = "running"
	StateCancelling State = "cancelling" // its owner is to end it
	StateSucceeded  State = "succeeded"
	StateFailed     State = "failed"
	StateCancelled  State = "cancelled"
	StateSuperseded State = "superseded"
)

// Ended reports whether nothing more will happen to a build in this state.
func (s State) Ended() bool {
	return s != StateQueued && s != StateRunning && s != StateCancelling
}

// Build is a build as the journal has it.
type Build struct {
	Order
	State State `json:"state"`
	// Seq is that of its newest entry: Follow after it waits for news.
	Seq       uint64    `json:"seq"`
	Submitted time.Time `json:"submitted"`
	// Changed is the time of the newest entry.
	Changed time.Time `json:"changed"`
	// Owner carries the attempt out, or did so last; Attempt is the attempt's number in the journal
	// and Tries how many there were.
	Owner   string `json:"owner,omitempty"`
	Attempt uint64 `json:"attempt,omitempty"`
	Tries   int    `json:"tries,omitempty"`
	// Identity names the files that Order.Source gave to the first attempt that fetched it, and
	// gives to each later one; nil before.
	Identity *source.Identity `json:"identity,omitempty"`
	// By asked for its end, for the Reason.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`

	Result  *builder.Result  `json:"result,omitempty"`
	Failure *builder.Failure `json:"failure,omitempty"`
	Log     *LogState        `json:"log,omitempty"`
}

// record is a build with the facts that only decisions need.
type record struct {
	Build
	sum        string
	logName    string
	entries    []Entry
	counted    int    // attempts that count
	broken     bool   // the log of an earlier attempt may have a gap
	supersedes string // the newer build of its group that it has to make place for
}

// state is the fold of a journal.
type state struct {
	seq    uint64
	builds map[string]*record
	order  []*record // of submission
	open   []*record // the records of order that have not ended

	forgot    uint64            // Seq of the newest Forgotten entry
	forgotten map[string]uint64 // Seq of the newest one of each build that tidy has not removed
	oldLogs   map[string]uint64 // Seq of the one of each log that tidy has not removed
	trusted   uint64            // Seq up to which no Forgotten entry was missed
}

func newState() *state {
	return &state{builds: map[string]*record{}, forgotten: map[string]uint64{},
		oldLogs: map[string]uint64{}}
}

// apply adds an entry. One that does not fit is left out, so that a damaged record harms only its
// own build.
func (s *state) apply(e Entry) {
	s.seq = e.Seq
	if e.Kind == Forgotten {
		s.forget(e)
		return
	}
	r := s.builds[e.Build]
	if e.Kind == Submitted {
		if r == nil && e.Order != nil && e.Order.ID == e.Build {
			s.submitted(e)
		}
		return
	}
	if r == nil || r.State.Ended() {
		return
	}
	switch e.Kind {
	case Started:
		r.State, r.Owner, r.Attempt, r.Tries = StateRunning, e.Owner, e.Seq, r.Tries+1
	case Fetched:
		if e.Attempt != r.Attempt || r.State == StateQueued || r.Identity != nil {
			return
		}
		r.Identity = e.Identity
	case Requeued:
		r.State = StateQueued
		r.broken = r.broken || e.Log == nil || e.Log.Verdict == Gap
		if e.Counts {
			r.counted++
			r.Failure = e.Failure
		}
	case Cancelling:
		r.State, r.By, r.Reason = StateCancelling, e.Actor, e.Reason
	case Cancelled:
		r.State = StateCancelled
		if e.Actor != "" {
			r.By, r.Reason = e.Actor, e.Reason
		}
		if r.supersedes != "" {
			r.State = StateSuperseded
		}
	case Succeeded:
		r.State, r.Result, r.Failure = StateSucceeded, e.Result, nil
	case Failed:
		r.State, r.Failure = StateFailed, e.Failure
	default:
		return
	}
	if r.State.Ended() {
		r.Log = e.Log
	}
	s.note(r, e)
}

// submitted adds a build and, of a group of which only the latest counts, ends the earlier builds.
func (s *state) submitted(e Entry) {
	r := &record{Build: Build{Order: *e.Order, State: StateQueued, Submitted: e.Time},
		sum: e.Order.sum(), logName: cmp.Or(e.LogName, e.Build)}
	if r.Policy == LatestOnly {
		for _, old := range slices.Clone(s.open) {
			if old.Group == r.Group {
				s.superseded(old, e)
			}
		}
	}
	s.builds[e.Build] = r
	s.order, s.open = append(s.order, r), append(s.open, r)
	s.note(r, e)
}

// superseded ends a build that a newer one takes the place of. One that runs is to be cancelled.
func (s *state) superseded(r *record, by Entry) {
	r.By, r.Reason = by.Order.Actor, "superseded by build "+by.Build
	r.supersedes = by.Build
	if r.State == StateQueued {
		r.State = StateSuperseded
		r.Log = &LogState{Verdict: Complete}
		if r.broken {
			r.Log.Verdict = Gap
		}
	} else {
		r.State = StateCancelling
	}
	s.note(r, Entry{Seq: by.Seq, Time: by.Time, Kind: Superseded, Build: r.ID,
		Actor: by.Order.Actor,
		By:    by.Build, Attempt: r.Attempt})
}

func (s *state) note(r *record, e Entry) {
	r.entries = append(r.entries, e)
	r.Seq, r.Changed = e.Seq, e.Time
	if r.State.Ended() {
		s.open = slices.DeleteFunc(s.open, func(o *record) bool { return o == r })
	}
}
