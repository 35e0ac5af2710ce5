package promote

import (
	"context"
	"fmt"
	"slices"
)

// AdoptRequest declares which version runs at a target that this Promoter did not deploy there: a
// service from before Sluice, what a restored journal does not know of, and what runs after a
// change that could not be undone (Deployment.Doubt).
type AdoptRequest struct {
	Target
	// Version is the version that runs. It has to be bound: Bind takes the digest of an image that
	// another builder made.
	Version string
	// Expect is as in Request: None where the journal has nothing there yet.
	Expect Digest
	// Actor is the requester, one of Config.Adopters.
	Actor string
	// Reason says how the actor knows. It must not be empty.
	Reason string
	// Override is as in Request.
	Override string
}

// Adopt writes down that a version is live at a target, without a call that changes anything: from
// then on the digest is current there, a promotion replaces it, a failed one restores it, and it
// counts for the environments after this one, a soak from this moment on. It returns the
// deployment. Where the version is current already, and without a Doubt, it does nothing.
//
// The gates are asked. Of this package, ApprovalGate judges an adoption as it does a promotion, so
// that no adopter brings a digest past it; quarantine and holds keep a digest from being adopted,
// and the other gates let it pass, for it changes nothing that runs. A Deployer that is an Observer
// and finds another digest at the target, or several, makes it an ErrConflict; one that
// cannot find out makes it an error that wraps ErrUnavailable. One that finds nothing does not
// know what other tools have started there, and the adoption passes.
func (p *Promoter) Adopt(ctx context.Context, r AdoptRequest) (d Deployment, err error) {
	defer p.watched("adopt", &err)()
	err = p.checkTarget(ctx, "adopt", r.Target, &r.Version, func(list *problems) {
		list.expect(r.Expect)
		list.texts(r.Actor, r.Reason)
		list.wanted("reason", r.Reason, "how it is known that the version runs")
		list.reason("override", r.Override)
	})
	if err != nil {
		return Deployment{}, err
	}
	_, _, err = p.start(ctx, asking{Target: r.Target, Op: OpAdopt, Version: r.Version,
		Expect: r.Expect, Actor: r.Actor, Override: r.Override},
		func(s *state, expect Digest) (Entry, error) {
			r.Expect = expect
			return s.adopt(r)
		})
	if err != nil {
		return Deployment{}, err
	}
	err = p.view(ctx, func(s *state) {
		if now := s.place(r.Target); now.current != nil {
			d = *now.current
			d.Doubt = now.doubt
		}
	})
	return d, err
}

// adopt decides on an adoption; it returns the zero Entry when there is nothing to write down.
func (s *state) adopt(r AdoptRequest) (Entry, error) {
	b, ok := s.clusters[r.Cluster].bound(r.Version)
	if !ok {
		return Entry{}, unbound(r.Target, r.Version)
	}
	p := s.place(r.Target)
	if p.open == nil && p.doubt == "" && p.current != nil && p.current.Digest == b.Digest {
		return Entry{}, nil
	}
	e, err := s.start(OpAdopt, r.Target, r.Expect, r.Actor, r.Reason)
	e.Kind, e.Needs = Adopted, formatAdopted
	e.Version, e.Digest, e.Repository = b.Version, b.Digest, b.Repository
	return e, err
}

// mayAdopt refuses an adoption that another one than Config.Adopters asks for, and one of a digest
// of which the deployer knows that another one runs.
func (p *Promoter) mayAdopt(ctx context.Context, c Change) error {
	if !among(p.adopters, c.Actor) {
		return &RefusedError{Change: c, Gates: []GateRefusal{{Gate: "adopt", Refusal: Refusal{
			Reasons: []string{c.Actor + " may not say what runs: ask one who may"},
			Who:     slices.Clone(p.adopters)}}}}
	}
	observer, ok := p.deployer.(Observer)
	if !ok {
		return nil
	}
	seen, err := observer.Observe(ctx, c.Target)
	if err != nil {
		return fmt.Errorf("adopt %s %s: observe: %w", c.Target, c.Version, withCause(ctx, err))
	}
	switch {
	case seen.Digest == c.Digest, seen.Digest == None && seen.Instances == 0:
		return nil
	case seen.Digest == "":
		return fmt.Errorf("adopt %s %s (%s): the deployer finds no single digest there: deploy "+
			"what should run: %w", c.Target, c.Version, c.Digest.Short(), ErrConflict)
	}
	return fmt.Errorf("adopt %s %s (%s): the deployer finds %s there: adopt that version, or "+
		"deploy this one: %w", c.Target, c.Version, c.Digest.Short(), seen.Digest.Short(),
		ErrConflict)
}
