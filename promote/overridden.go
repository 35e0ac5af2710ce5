package promote

import (
	"context"
	"slices"
	"strings"
	"time"
)

// Overridden is a digest that is current because a breaker has overridden gates for it, and the
// approvals that it still has to get afterwards.
type Overridden struct {
	Deployment
	// Change is the change that brought it; empty for an adoption.
	Change ChangeID `json:"change,omitempty"`
	// Note says which gates were overridden, and why.
	Note string `json:"note"`
	// Breaker overrode them, at At.
	Breaker string    `json:"breaker"`
	At      time.Time `json:"at"`
	// Missing are the answers of the gates that read reviews, to the same promotion by the same
	// actor as if it were asked for again. There is at least one.
	Missing []GateRefusal `json:"missing"`
}

// Overridden returns the current deployments that an override has brought and that lack, up to
// now, the approvals that the rules ask for: Review gives them afterwards. They are judged at the
// time of the last review, so that they do not expire once there are enough of them. The list is
// sorted as Current is.
func (p *Promoter) Overridden(ctx context.Context) (list []Overridden, err error) {
	defer p.watched("overridden", &err)()
	var asked []Change
	err = p.view(ctx, func(s *state) {
		for _, d := range s.current(p.pipeline) {
			e := s.place(d.Target).broken
			if e == nil {
				continue
			}
			list = append(list, Overridden{Deployment: d, Change: e.ID(), Note: e.Note,
				Breaker: e.Actor, At: e.Time})
			c := s.change(p.pipeline, *e)
			c.Op, c.Current, c.Actor = OpPromote, "", e.Actor
			asked = append(asked, c)
		}
	})
	for i := range list {
		list[i].Missing = p.owed(asked[i])
	}
	return slices.DeleteFunc(list, func(o Overridden) bool { return len(o.Missing) == 0 }), err
}

// owed returns the answers of the gates that read reviews, as they were at the last review.
func (p *Promoter) owed(c Change) (missing []GateRefusal) {
	c.Policy = p.policy(c.Target)
	if n := len(c.Reviews); n > 0 {
		c.Time, c.Policy = c.Reviews[n-1].Time, c.Reviews[n-1].Policy
	}
	for _, gate := range p.gates {
		g, ok := gate.(PureGate)
		if !ok || g.Reads()&ReadsReviews == 0 {
			continue
		}
		if refusal := g.Judge(c); refusal != nil {
			missing = append(missing, GateRefusal{Gate: g.Name(), Refusal: *refusal})
		}
	}
	return missing
}

// overrides begins the note of a Started or Adopted entry whose gates were overridden.
const overrides = "override: "

// overridden reports whether gates were overridden for e.
func (e Entry) overridden() bool { return strings.HasPrefix(e.Note, overrides) }
