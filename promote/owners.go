package promote

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Owners knows which Promoters of a journal are alive. Each carries out its own changes, and
// Recover takes over only those of an owner that is not. All methods are safe for concurrent use.
//
// A journal that one process locks, such as boltjournal's file, needs none: whoever has the lock is
// the only one alive.
type Owners interface {
	// Join makes owner count as living until Leave, until its process ends, or until its tenure is
	// lost, as a session of Consul is that cannot be renewed. The context that it returns ends,
	// with a cause, before owner counts as dead for anybody else. Its parent is not ctx, which is
	// for the call alone.
	Join(ctx context.Context, owner string) (context.Context, error)
	// Leave ends the tenure of owner, if it has one.
	Leave(ctx context.Context, owner string) error
	// Lives reports whether owner counts as living. An error means that this is not known; then
	// its changes stay with it.
	Lives(ctx context.Context, owner string) (bool, error)
}

// MemOwners is an Owners for Promoters of one process that share a journal.
type MemOwners struct {
	mu      sync.Mutex
	tenures map[string]context.CancelCauseFunc
}

var _ Owners = (*MemOwners)(nil)

// NewMemOwners returns an Owners without any owner.
func NewMemOwners() *MemOwners {
	return &MemOwners{tenures: map[string]context.CancelCauseFunc{}}
}

// Join implements Owners.
func (o *MemOwners) Join(ctx context.Context, owner string) (context.Context, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	tenure, end := context.WithCancelCause(context.Background())
	o.mu.Lock()
	defer o.mu.Unlock()
	if before := o.tenures[owner]; before != nil {
		before(fmt.Errorf("owner %s has joined again: %w", owner, ErrFenced))
	}
	o.tenures[owner] = end
	return tenure, nil
}

// Leave implements Owners.
func (o *MemOwners) Leave(ctx context.Context, owner string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if end := o.tenures[owner]; end != nil {
		end(fmt.Errorf("owner %s has left: %w", owner, ErrClosed))
		delete(o.tenures, owner)
	}
	return nil
}

// Lives implements Owners.
func (o *MemOwners) Lives(ctx context.Context, owner string) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tenures[owner] != nil, nil
}

// join returns the context of this Promoter's tenure, which it takes up first where it has none.
func (p *Promoter) join(ctx context.Context) (context.Context, error) {
	if err := p.isClosed(); err != nil {
		return nil, err
	}
	if p.owners == nil {
		return p.living, nil
	}
	select {
	case p.joining <- struct{}{}:
		defer func() { <-p.joining }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if p.tenure != nil && p.tenure.Err() == nil {
		return p.tenure, nil
	}
	joined, err := p.owners.Join(ctx, p.owner)
	if err != nil {
		return nil, fmt.Errorf("owner %s: join: %w", p.owner, withCause(ctx, err))
	}
	tenure, end := context.WithCancelCause(p.living)
	context.AfterFunc(joined, func() { end(context.Cause(joined)) })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tenure = tenure
	return tenure, nil
}

// leave ends the tenure.
func (p *Promoter) leave(ctx context.Context) error {
	if p.owners == nil {
		return nil
	}
	if err := p.owners.Leave(ctx, p.owner); err != nil {
		return fmt.Errorf("owner %s: leave: %w", p.owner, withCause(ctx, err))
	}
	return nil
}

// orphan reports whether this Promoter may take the open change over: no living owner has it.
func (p *Promoter) orphan(ctx context.Context, open Entry) (bool, error) {
	if p.owners == nil || open.Owner == p.owner || open.Owner == "" {
		return true, nil
	}
	lives, err := p.owners.Lives(ctx, open.Owner)
	if err != nil {
		return false, fmt.Errorf("%s %s: change %s: does its owner %s live? %w", open.Op,
			open.Target, open.ID(), open.Owner, withCause(ctx, err))
	}
	return !lives, nil
}

// Observation is the state of a target as a Deployer finds it.
type Observation struct {
	// Digest is the digest that runs; None when nothing does, and empty when several do or when it
	// is not known.
	Digest Digest `json:"digest"`
	// Generation is the highest one seen.
	Generation uint64 `json:"generation"`
	// Instances run, and Ready of them serve.
	Instances int `json:"instances"`
	Ready     int `json:"ready"`
	// Messages are for a person: why an instance does not serve.
	Messages []string `json:"messages,omitempty"`
}

// Observer is a Deployer that knows the running deployments. Promoter.Observe asks it, and so does a
// change that the deployer has fenced off although the journal knows of no newer generation: where
// the journal was restored from a backup, the change goes on under a generation above the one seen.
type Observer interface {
	// Observe returns the state of t, and changes nothing. It wraps ErrUnavailable when that cannot
	// be found out now.
	Observe(ctx context.Context, t Target) (Observation, error)
}

// Drift is a target as the journal has it and as it is.
type Drift struct {
	Observation
	// Current is the digest that the journal has as current, or None.
	Current Digest `json:"current"`
	// Newest is the newest generation in the journal.
	Newest uint64 `json:"newest"`
	// Differences are sentences for a person, one for each; none while a change is under way.
	Differences []string `json:"differences,omitempty"`
}

// Observe asks the deployer for the state of a target, and compares it with the journal. A
// deployer that is no Observer is ErrInvalid.
func (p *Promoter) Observe(ctx context.Context, t Target) (_ Drift, err error) {
	defer p.watched("observe", &err)()
	observer, ok := p.deployer.(Observer)
	if !ok {
		return Drift{}, fmt.Errorf("observe %s: Config.Deployer: want an Observer: %w", t,
			ErrInvalid)
	}
	seen, err := observer.Observe(ctx, t)
	if err != nil {
		return Drift{}, fmt.Errorf("observe %s: %w", t, withCause(ctx, err))
	}
	var d Drift
	err = p.view(ctx, func(s *state) { d = s.place(t).drift(seen) })
	return d, err
}

// drift compares the journal with an observation.
func (p place) drift(seen Observation) Drift {
	d := Drift{Observation: seen, Current: None, Newest: p.generation}
	if p.current != nil {
		d.Current = p.current.Digest
	}
	if p.open != nil {
		return d
	}
	if seen.Digest != d.Current {
		d.Differences = append(d.Differences, fmt.Sprintf("the journal has %s, and %s runs: "+
			"deploy again what should run", d.Current.Short(), seen.Digest.describe()))
	}
	if seen.Generation > p.generation {
		d.Differences = append(d.Differences, fmt.Sprintf("the journal ends with generation %d, "+
			"and generation %d was deployed: it was restored from an older copy",
			p.generation, seen.Generation))
	}
	return d
}

// describe is the digest of an observation in words.
func (d Digest) describe() string {
	switch d {
	case "":
		return "no single digest"
	case None:
		return "nothing"
	}
	return d.Short()
}

// overtake goes on with a change that the deployer has fenced off although the journal gives this
// Promoter the right to act, under a generation above the one that the deployer has seen.
func (p *Promoter) overtake(w *work, open Entry, fenced error) (Entry, error) {
	observer, ok := p.deployer.(Observer)
	if !ok || !errors.Is(fenced, ErrFenced) || w.deploying.Err() != nil {
		return open, fenced
	}
	seen, err := observer.Observe(w.deploying, open.Target)
	if err != nil || seen.Generation <= open.Generation {
		return open, errors.Join(fenced, err)
	}
	resumed, err := p.record(func(s *state) (Entry, bool, error) {
		if err := s.holds(open); err != nil {
			return Entry{}, false, err
		}
		e := open
		e.Kind, e.Generation = Resumed, seen.Generation+1
		e.Note = fmt.Sprintf("the journal had generation %d, and generation %d with %s was "+
			"deployed: it was restored from an older copy", open.Generation, seen.Generation,
			seen.Digest.describe())
		return e, true, nil
	})
	if err != nil {
		return open, errors.Join(fenced, err)
	}
	return resumed, nil
}
