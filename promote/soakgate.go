package promote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// SoakGate lets a digest into an environment when it has been live in the one before for long
// enough without a break. Of several runs there the longest counts, and deploying the same digest
// again does not break a run. A fast rollback passes.
type SoakGate struct {
	// Times are by the environment to enter: how long the digest must have been live in the one
	// before.
	Times map[string]time.Duration
}

var _ PureGate = SoakGate{}

// Name returns "soak".
func (SoakGate) Name() string { return "soak" }

// Validate reports a time that is not positive, and an environment that the pipeline does not have
// or that is its first.
func (g SoakGate) Validate(p Pipeline) error {
	var list problems
	list.environments(p, slices.Sorted(maps.Keys(g.Times)))
	for _, environment := range slices.Sorted(maps.Keys(g.Times)) {
		if soak := g.Times[environment]; soak <= 0 || p.Index(environment) == 0 {
			list.add("Times[%q]: %s: want a positive time, and an environment with one before it",
				environment, soak)
		}
	}
	return errors.Join(list...)
}

// Policy returns the time for an environment.
func (g SoakGate) Policy(t Target) any { return g.Times[t.Environment] }

// Reads implements PureGate.
func (SoakGate) Reads() Reads { return ReadsRunsBefore | ReadsHistory }

// Check implements Gate.
func (g SoakGate) Check(_ context.Context, c Change) error { return g.Judge(c).answer() }

// Judge implements PureGate. Until of the refusal is set while the digest is live in the
// environment before.
func (g SoakGate) Judge(c Change) *Refusal {
	soak, ok := g.Times[c.Environment]
	if !ok || c.passes() {
		return nil
	}
	var longest time.Duration
	var opens time.Time
	for _, run := range c.Runs {
		if run.Environment != c.PreviousEnvironment {
			continue
		}
		until := run.Until
		if until.IsZero() {
			until = c.Time
			if at := run.From.Add(soak); opens.IsZero() || at.Before(opens) {
				opens = at
			}
		}
		longest = max(longest, until.Sub(run.From))
	}
	if longest >= soak {
		return nil
	}
	reason := fmt.Sprintf("%s %s (%s) has been live in %s for %s of %s", c.Cluster, c.Version,
		c.Digest.Short(),
		c.PreviousEnvironment, longest.Truncate(time.Second), soak)
	if opens.IsZero() {
		reason += " and is not live there now: deploy it there again"
	} else {
		reason += ": wait until " + stamp(opens)
	}
	return &Refusal{Reasons: []string{reason}, Until: opens}
}
