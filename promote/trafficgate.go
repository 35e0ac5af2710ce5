package promote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Traffic counts requests. An embedder writes one on the metrics of its data plane.
type Traffic interface {
	// Requests returns how many requests the instances with d have answered at t between from and
	// until. An error means that it is not known.
	Requests(ctx context.Context, t Target, d Digest, from, until time.Time) (uint64, error)
}

// TrafficGate lets a digest into an environment when it has answered enough requests in the one
// before, in all its runs there together. A fast rollback passes.
type TrafficGate struct {
	// Source must not be nil.
	Source Traffic
	// Requests are by the environment to enter: how many the digest must have answered in the one
	// before.
	Requests map[string]uint64
}

var _ Gate = TrafficGate{}

// Name returns "traffic".
func (TrafficGate) Name() string { return "traffic" }

// Validate reports a missing Source, a number of 0, and an environment that the pipeline does not
// have or that is its first.
func (g TrafficGate) Validate(p Pipeline) error {
	var list problems
	if g.Source == nil {
		list.add("Source: nil: want one")
	}
	list.environments(p, slices.Sorted(maps.Keys(g.Requests)))
	for _, environment := range slices.Sorted(maps.Keys(g.Requests)) {
		if n := g.Requests[environment]; n == 0 || p.Index(environment) == 0 {
			list.add("Requests[%q]: %d: want 1 or more, and an environment with one before it",
				environment, n)
		}
	}
	return errors.Join(list...)
}

// Policy returns the number for an environment.
func (g TrafficGate) Policy(t Target) any { return g.Requests[t.Environment] }

// Reads says that the gate reads the runs in the environment before.
func (TrafficGate) Reads() Reads { return ReadsRunsBefore | ReadsHistory }

// Check implements Gate. Need and Have of the refusal are numbers of approvals and stay empty.
func (g TrafficGate) Check(ctx context.Context, c Change) error {
	need, ok := g.Requests[c.Environment]
	if !ok || c.passes() {
		return nil
	}
	var have uint64
	live := false
	for _, run := range c.runsBefore() {
		until := run.Until
		if until.IsZero() {
			live, until = true, c.Time
		}
		n, err := g.Source.Requests(ctx, run.Target, c.Digest, run.From, until)
		if err != nil {
			return fmt.Errorf("requests of %s in %s: %w", c.Digest.Short(), run.Target, err)
		}
		if have += min(n, need-have); have == need {
			return nil
		}
	}
	next := "wait for more"
	if !live {
		next = "it is not live there now: deploy it there again"
	}
	return &Refusal{Reasons: []string{fmt.Sprintf("%s %s (%s) has answered %d of %d requests in "+
		"%s: %s", c.Cluster, c.Version, c.Digest.Short(), have, need, c.PreviousEnvironment, next)}}
}
