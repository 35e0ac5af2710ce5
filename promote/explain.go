package promote

import (
	"context"
	"errors"
	"time"
)

// PureGate is a Gate that decides on the facts of a change alone, without I/O and without a clock
// of its own, so that Explain can ask it about a later time.
type PureGate interface {
	Gate
	// Judge returns the answer of Check: nil to let c pass, or a refusal. It neither modifies nor
	// keeps the slices and maps of c.
	Judge(c Change) *Refusal
	// Reads returns the facts that Judge reads besides the request, the rules and the time.
	Reads() Reads
}

// Answer is the answer of a gate to a change.
type Answer struct {
	Gate Gate
	// Err is the result of Check. Explain asks a PureGate itself and ignores its Err.
	Err error
}

// Explanation is everything that stands between a request and its start.
type Explanation struct {
	// Change are the facts that the gates have judged.
	Change Change
	// Conflict is not nil when the target is not as expected, or has a change under way.
	Conflict *ConflictError
	// Gates are the refusals, each with its reasons, the people who may approve, the files that are
	// missing, and the time until which the gate refuses with nothing done about it.
	Gates []GateRefusal
	// Opens is when every gate will let it pass with nothing done about it: zero when they do now,
	// and when that is not known. Approvals that have expired by then do not count, and a freeze
	// that begins before then does.
	Opens time.Time
}

// Passes reports whether Start would begin the change.
func (e Explanation) Passes() bool { return e.Conflict == nil && len(e.Gates) == 0 }

// maxOpenings limits how often Explain asks the gates about a later time.
const maxOpenings = 1000

// Explain sums up all that stands between a change and its start at c.Time. It is pure: it asks
// each PureGate itself, takes the answers of the others as they are, and adds quarantines and
// holds.
func Explain(c Change, conflict *ConflictError, answers []Answer) Explanation {
	e := Explanation{Change: c, Conflict: conflict, Gates: unmet(c, answers)}
	gates := e.Gates
	for range maxOpenings {
		if len(gates) == 0 {
			if len(e.Gates) > 0 {
				e.Opens = c.Time
			}
			break
		}
		now := c.Time
		for _, g := range gates {
			if !g.Until.After(now) { // only an act opens it
				return e
			}
			if g.Until.After(c.Time) {
				c.Time = g.Until
			}
		}
		gates = unmet(c, answers)
	}
	return e
}

// unmet returns the refusals of c at c.Time.
func unmet(c Change, answers []Answer) []GateRefusal {
	list := c.kept()
	for _, a := range answers {
		if gate, ok := a.Gate.(PureGate); ok {
			if refusal := gate.Judge(c); refusal != nil {
				list = append(list, GateRefusal{Gate: gate.Name(), Refusal: *refusal})
			}
			continue
		}
		if a.Err == nil {
			continue
		}
		if r := refusalOf(a.Gate, a.Err); r.Until.IsZero() || r.Until.After(c.Time) {
			list = append(list, r)
		}
	}
	return list
}

// Explain asks every gate about a promotion, also while another change of the target is under way
// or something else is current than expected, and changes nothing.
func (p *Promoter) Explain(ctx context.Context, r Request) (_ Explanation, err error) {
	defer p.watched("explain", &err)()
	if err := p.checkRequest(ctx, r); err != nil {
		return Explanation{}, err
	}
	var conflict *ConflictError
	_, change, err := p.preview(ctx, func(s *state) (Entry, error) {
		e, err := s.promote(r)
		if errors.As(err, &conflict) {
			e.Op, e.Target, e.Actor, e.Reason = OpPromote, r.Target, r.Actor, r.Reason
			e.Facts = r.Facts
			if now := s.place(r.Target).current; now != nil {
				e.Previous = now.Digest
			}
			return e, nil
		}
		return e, err
	})
	if err != nil {
		return Explanation{}, err
	}
	asked, err := p.ask(ctx, change, nil)
	if err != nil {
		return Explanation{}, err
	}
	list := make([]Answer, len(p.gates))
	for i, gate := range p.gates {
		list[i] = Answer{Gate: gate, Err: asked.errs[i]}
	}
	return Explain(p.question(change), conflict, list), nil
}
