package promote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ApprovalGate lets a digest into an environment when enough people approved of it there, and none
// rejects it: see Promoter.Review. The requester's own approval never counts.
// Approvals are of one digest at one target and are used up when it becomes current there. A
// rollback passes.
type ApprovalGate struct {
	// Rules are by environment. An environment without a rule needs no approval.
	Rules map[string]ApprovalRule
}

// ApprovalRule says whose approvals an environment needs.
type ApprovalRule struct {
	// Count is how many people have to approve: at least 1.
	Count int
	// Approvers are those whose reviews count. Empty means everybody's.
	Approvers []string
	// NotBuilder leaves out the approval of the actor that bound the version to its digest.
	NotBuilder bool
	// Within is how long an approval counts. The default is without limit. A rejection counts until
	// the same person approves.
	Within time.Duration
}

var _ Gate = ApprovalGate{}

// Name returns "approval".
func (ApprovalGate) Name() string { return "approval" }

// Validate reports every rule that could not be met, or that is for an environment that the
// pipeline does not have.
func (g ApprovalGate) Validate(p Pipeline) error {
	var list problems
	list.environments(p, slices.Sorted(maps.Keys(g.Rules)))
	for _, environment := range slices.Sorted(maps.Keys(g.Rules)) {
		rule := g.Rules[environment]
		if rule.Count < 1 {
			list.add("Rules[%q].Count: %d: want 1 or more", environment, rule.Count)
		}
		if rule.Within < 0 {
			list.add("Rules[%q].Within: %s: want 0 (the default, no limit) or more", environment,
				rule.Within)
		}
		people := slices.Compact(slices.Sorted(slices.Values(rule.Approvers)))
		if len(people) > 0 && len(people) < rule.Count {
			list.add("Rules[%q].Count: %d approvals of %d approvers", environment, rule.Count,
				len(people))
		}
	}
	return errors.Join(list...)
}

// Check implements Gate.
func (g ApprovalGate) Check(_ context.Context, c Change) error {
	rule, ok := g.Rules[c.Environment]
	if !ok || c.Op == OpRollback {
		return nil
	}
	var approved, not, reasons []string
	for _, r := range c.Reviews {
		switch {
		case len(rule.Approvers) > 0 && !slices.Contains(rule.Approvers, r.Actor):
			not = append(not, r.Actor+" is not an approver")
		case !r.Approve:
			reason := fmt.Sprintf("%s rejected %s (%s) for %s at %s", r.Actor, c.Version,
				c.Digest.Short(), c.Environment, stamp(r.Time))
			if r.Reason != "" {
				reason += ": " + r.Reason
			}
			reasons = append(reasons, reason)
		case r.Actor == c.Actor:
			not = append(not, r.Actor+" asks for it")
		case rule.NotBuilder && r.Actor == c.Builder:
			not = append(not, r.Actor+" built it")
		case rule.Within > 0 && c.Time.Sub(r.Time) > rule.Within:
			not = append(not, r.Actor+"'s is older than "+rule.Within.String())
		default:
			approved = append(approved, r.Actor)
		}
	}
	if len(approved) < rule.Count {
		reason := fmt.Sprintf("%s needs %d approvals of %s (%s) and has %d", c.Environment,
			rule.Count, c.Version, c.Digest.Short(), len(approved))
		if len(approved) > 0 {
			reason += " (" + strings.Join(approved, ", ") + ")"
		}
		if len(not) > 0 {
			reason += ", not counting: " + strings.Join(not, ", ")
		}
		reasons = append(reasons, reason)
	}
	if len(reasons) > 0 {
		return &Refusal{Reasons: reasons}
	}
	return nil
}
