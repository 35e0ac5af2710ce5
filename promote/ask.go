package promote

import (
	"context"
	"errors"
	"fmt"
)

// answers are the answers of the gates to a change, in the order of the gates; nil lets it pass.
type answers struct {
	change Change
	errs   []error
}

// hold reports whether the answers are those to c, too. The keys of a quarantine and a hold are
// compared as well, which no gate decides on.
func (p *Promoter) hold(a answers, c Change) bool {
	if !a.change.Quarantine.equal(c.Quarantine) || !a.change.Hold.equal(c.Hold) {
		return false
	}
	for _, gate := range p.gates {
		if !readsOf(gate).same(a.change, c) {
			return false
		}
	}
	return a.change.sameRequest(c)
}

// ask puts change to every gate, except to those whose earlier answer, where there is one, still
// holds. The error is that of ctx.
func (p *Promoter) ask(ctx context.Context, change Change, earlier *answers) (answers, error) {
	now := answers{change: change, errs: make([]error, len(p.gates))}
	question := p.question(change)
	for i, gate := range p.gates {
		if earlier != nil && readsOf(gate).same(earlier.change, change) {
			now.errs[i] = earlier.errs[i]
			continue
		}
		err := p.check(ctx, gate, question)
		if err != nil && ctx.Err() != nil {
			return answers{}, fmt.Errorf("%s %s: %s gate: %w", change.Op, change.Target,
				gate.Name(), withCause(ctx, err))
		}
		now.errs[i] = err
	}
	return now, nil
}

// question returns change with the facts that depend on the time and on the rules.
func (p *Promoter) question(change Change) Change {
	if now := p.now().UTC(); now.After(change.Time) { // else another clock is ahead of this one
		change.Time = now
	}
	change.Fast = p.rollback.fast(change)
	change.Policy = p.policy(change.Target)
	return change
}

// refused returns a *RefusedError with every answer that is not yes, or nil.
func (p *Promoter) refused(a answers) error {
	refused := &RefusedError{Change: p.question(a.change), Gates: a.change.kept()}
	for i, gate := range p.gates {
		if err := a.errs[i]; err != nil {
			refused.Gates = append(refused.Gates, refusalOf(gate, err))
		}
	}
	if len(refused.Gates) > 0 {
		return refused
	}
	return nil
}

// refusalOf is the answer of a gate that is not yes.
func refusalOf(gate Gate, err error) GateRefusal {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return GateRefusal{Gate: gate.Name(), Refusal: *refusal}
	}
	return GateRefusal{Gate: gate.Name(), Err: err,
		Refusal: Refusal{Reasons: []string{"could not be decided: " + err.Error()}}}
}
