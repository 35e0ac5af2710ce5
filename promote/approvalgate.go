package promote

import (
	"cmp"
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
// Approvals are of one digest at one target under one set of rules, and are used up when the digest
// becomes current there. A fast rollback (Config.Rollback) and the digest that is current need
// none, but a rejection refuses both.
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
	// NotBuilder leaves out the approvals of the actors that bound a version to the digest.
	NotBuilder bool
	// NotDeployer refuses a promotion and an adoption that one of these actors asks for.
	NotDeployer bool
	// Within is how long an approval counts. The default is a day. A rejection counts until the
	// same person approves.
	Within time.Duration
}

const defaultWithin = day

var _ PureGate = ApprovalGate{}

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
			list.add("Rules[%q].Within: %s: want 0 (the default, a day) or more", environment,
				rule.Within)
		}
		if n := len(people(rule.Approvers)); n > 0 && n < rule.Count {
			list.add("Rules[%q].Count: %d approvals of %d approvers", environment, rule.Count, n)
		}
	}
	return errors.Join(list...)
}

// Policy returns the rule for an environment: an approval under another rule does not count.
func (g ApprovalGate) Policy(t Target) any {
	rule := g.Rules[t.Environment]
	if rule.Within == defaultWithin { // written out, it is the same rule
		rule.Within = 0
	}
	return rule
}

// Reads implements PureGate.
func (ApprovalGate) Reads() Reads { return ReadsBuilders | ReadsReviews | ReadsHistory }

// Check implements Gate.
func (g ApprovalGate) Check(_ context.Context, c Change) error { return g.Judge(c).answer() }

// Judge implements PureGate.
func (g ApprovalGate) Judge(c Change) *Refusal {
	rule, ok := g.Rules[c.Environment]
	if !ok || c.Op == OpRetire {
		return nil
	}
	refusal := &Refusal{}
	var approved, not []string
	for _, r := range c.Reviews {
		switch why := rule.discounts(c, r); {
		case !r.Approve && (len(rule.Approvers) == 0 || among(rule.Approvers, r.Actor)):
			reason := fmt.Sprintf("%s rejected %s (%s) for %s at %s", r.Actor, c.Version,
				c.Digest.Short(), c.Environment, stamp(r.Time))
			if r.Reason != "" {
				reason += ": " + r.Reason
			}
			refusal.Reasons = append(refusal.Reasons, reason)
		case why != "":
			not = append(not, r.Actor+why)
		default:
			approved = append(approved, r.Actor)
		}
	}
	if rule.NotDeployer && c.Op != OpRollback && among(c.Builders, c.Actor) {
		refusal.Reasons = append(refusal.Reasons, fmt.Sprintf("%s built %s (%s): another one has "+
			"to deploy it", c.Actor, c.Version, c.Digest.Short()))
	}
	if len(approved) < rule.Count && !c.Fast && c.Digest != c.Current {
		refusal.Need, refusal.Have = rule.Count, len(approved)
		for _, actor := range rule.Approvers {
			if !among(approved, actor) && !SameActor(actor, c.Actor) &&
				!(rule.NotBuilder && among(c.Builders, actor)) {
				refusal.Who = append(refusal.Who, actor)
			}
		}
		reason := fmt.Sprintf("%s needs %d approvals of %s (%s) and has %d", c.Environment,
			rule.Count, c.Version, c.Digest.Short(), len(approved))
		if len(approved) > 0 {
			reason += " (" + strings.Join(approved, ", ") + ")"
		}
		if len(not) > 0 {
			reason += ", not counting: " + strings.Join(not, ", ")
		}
		refusal.Reasons = append(refusal.Reasons, reason)
	}
	if len(refusal.Reasons) > 0 {
		return refusal
	}
	return nil
}

// discounts returns why a review does not count, to be put behind its actor; empty where it does.
func (rule ApprovalRule) discounts(c Change, r Review) string {
	within := cmp.Or(rule.Within, defaultWithin)
	switch {
	case len(rule.Approvers) > 0 && !among(rule.Approvers, r.Actor):
		return " is not an approver"
	case SameActor(r.Actor, c.Actor):
		return " asks for it"
	case rule.NotBuilder && among(c.Builders, r.Actor):
		return " built it"
	case c.Time.Sub(r.Time) > within:
		return "'s is older than " + within.String()
	case r.Policy != c.Policy:
		return "'s was given under other rules"
	}
	return ""
}
