package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Binding ties the name of a version to the one digest that it always means.
type Binding struct {
	Cluster string `json:"cluster"`
	Version string `json:"version"`
	Digest  Digest `json:"digest"`
	// Repository is where the image can be pulled from, registry included:
	// "127.0.0.1:5800/hello_web".
	Repository string `json:"repository"`
	// Actor built or bound it.
	Actor string `json:"actor"`
	// Time is when it was bound. Bind sets it.
	Time time.Time `json:"time"`
}

// Bind binds a version to a digest. Binding it to the same digest again does nothing. A version
// that has another digest is a *ReboundError. Two versions may have the same digest. Repository and
// Actor stay those of the first time.
func (p *Promoter) Bind(ctx context.Context, b Binding) (err error) {
	defer p.watched("bind", &err)()
	list, err := p.checkNames(ctx, Target{Cluster: b.Cluster}, b.Version)
	if err != nil {
		return err
	}
	if b.Version == "" {
		list.check(names.Version(b.Version))
	}
	list.digest(b.Digest)
	list.repository(b.Repository)
	list.texts(b.Actor, "")
	if err := list.err("bind"); err != nil {
		return err
	}
	_, err = p.commit(ctx, func(s *state) (Entry, bool, error) { return s.bind(b) })
	return err
}

// Request asks for a version at a target.
type Request struct {
	Target
	Version string
	// Expect is the digest that the caller expects to be current at the target, None, or Any; it
	// must not be empty. When another digest is current, the answer is a *ConflictError. Any stands
	// for the digest that is current when the call begins.
	Expect Digest
	// Key makes the request one that can be repeated: a request of the cluster with the Key of an
	// earlier change returns the ID of that change, however that ended, and starts nothing. Both
	// have to ask for the same: where the operation, the target, the version or digest, the actor,
	// the reason or the facts differ, the answer is ErrConflict, and nothing starts. Expect and
	// Override may differ: they say when a request may start, and the earlier one has started. A
	// request that started nothing leaves its Key free. It has up to 128 bytes. Empty stands for
	// none.
	Key string
	// Actor is the requester. It must not be empty.
	Actor string
	// Reason may be empty.
	Reason string
	// Facts are for the gates of the embedder, such as a ticket and a commit: up to 32 of them,
	// keys of up to 64 bytes and values of up to 1024. They stand in the journal.
	// The default is none.
	Facts map[string]string
	// Override is why gates that refuse are to be overridden: an actor out of Config.Breakers may
	// do so, and the Started entry's Note says which gates were not met. Quarantine cannot be
	// overridden. Empty overrides nothing.
	Override string
}

// checkTarget returns every problem of a request at once: of its target, of its version unless that
// is nil, and the problems that check adds.
func (p *Promoter) checkTarget(ctx context.Context, op string, t Target, version *string,
	check func(*problems)) error {
	var v string
	if version != nil {
		v = *version
	}
	list, err := p.checkNames(ctx, t, v)
	if err != nil {
		return err
	}
	if version != nil && v == "" {
		list.check(names.Version(v))
	}
	known := false // a target of an earlier pipeline
	if op == "retire" {
		if err := p.view(ctx, func(s *state) { known = s.knows(t) }); err != nil {
			return err
		}
	}
	if !known {
		list.place(p.pipeline, t)
	}
	check(&list)
	return list.err(op)
}

func (p *Promoter) checkRequest(ctx context.Context, r Request) error {
	return p.checkTarget(ctx, "promote", r.Target, &r.Version, func(list *problems) {
		list.expect(r.Expect)
		list.key(r.Key)
		list.texts(r.Actor, r.Reason)
		list.facts(r.Facts)
		list.reason("override", r.Override)
	})
}

// Start begins to deploy a bound version at a target, once every gate lets it pass, and returns
// when the change is in the journal: from then on it is carried out whatever becomes of ctx. Wait
// follows it, Abort ends it, and a Recover goes on with it after a crash. A version that is current
// already is deployed again. While another change of the same target is under way, and when Expect
// does not hold, the answer is a *ConflictError that names the other change and its actor; gates
// that do not let it pass are a *RefusedError.
//
// An error of the journal leaves open whether the change has begun: look at Open.
func (p *Promoter) Start(ctx context.Context, r Request) (_ ChangeID, err error) {
	defer p.watched("start", &err)()
	id, _, err := p.startPromotion(ctx, r)
	return id, err
}

func (p *Promoter) startPromotion(ctx context.Context, r Request) (ChangeID, *work,
	error) {
	if err := p.checkRequest(ctx, r); err != nil {
		return "", nil, err
	}
	return p.start(ctx, asking{Target: r.Target, Op: OpPromote, Version: r.Version, Key: r.Key,
		Expect: r.Expect, Actor: r.Actor, Override: r.Override, Reason: r.Reason, Facts: r.Facts},
		func(s *state, expect Digest) (Entry, error) {
			r.Expect = expect
			return s.promote(r)
		})
}

// Promote is Start, then Wait. When ctx ends, Promote returns the cause and the change goes on.
func (p *Promoter) Promote(ctx context.Context, r Request) (_ Deployment, err error) {
	defer p.watched("promote", &err)()
	id, w, err := p.startPromotion(ctx, r)
	if err != nil {
		return Deployment{}, err
	}
	return p.wait(ctx, id, w)
}

// Check returns the error that Promote would return before it asks the deployer, and changes
// nothing: nil when Promote would start.
func (p *Promoter) Check(ctx context.Context, r Request) (err error) {
	defer p.watched("check", &err)()
	if err := p.checkRequest(ctx, r); err != nil {
		return err
	}
	_, change, err := p.preview(ctx, func(s *state) (Entry, error) { return s.promote(r) })
	if err != nil {
		return err
	}
	asked, err := p.ask(ctx, change, nil)
	if err != nil {
		return err
	}
	return p.refused(asked)
}

// RollbackRequest asks for a digest that was live in the target's environment before.
type RollbackRequest struct {
	Target
	Digest Digest
	// Expect, Key, Actor and Reason are as in Request.
	Expect Digest
	Key    string
	Actor  string
	Reason string
}

// StartRollback begins to deploy a digest again that was live in the environment before, under the
// version that it had when it last was. The gates are asked: see Config.Rollback. A digest that was
// never live there is a *RefusedError that lists the digests that were. Otherwise it is as Start.
func (p *Promoter) StartRollback(ctx context.Context, r RollbackRequest) (_ ChangeID, err error) {
	defer p.watched("start", &err)()
	id, _, err := p.startRollback(ctx, r)
	return id, err
}

func (p *Promoter) startRollback(ctx context.Context, r RollbackRequest) (ChangeID, *work,
	error) {
	err := p.checkTarget(ctx, "roll back", r.Target, nil, func(list *problems) {
		list.digest(r.Digest)
		list.expect(r.Expect)
		list.key(r.Key)
		list.texts(r.Actor, r.Reason)
	})
	if err != nil {
		return "", nil, err
	}
	return p.start(ctx, asking{Target: r.Target, Op: OpRollback, Digest: r.Digest, Key: r.Key,
		Expect: r.Expect, Actor: r.Actor, Reason: r.Reason},
		func(s *state, expect Digest) (Entry, error) {
			r.Expect = expect
			return s.rollback(r)
		})
}

// Rollback is StartRollback, then Wait. When ctx ends it returns the cause and the change goes on.
func (p *Promoter) Rollback(ctx context.Context, r RollbackRequest) (_ Deployment, err error) {
	defer p.watched("rollback", &err)()
	id, w, err := p.startRollback(ctx, r)
	if err != nil {
		return Deployment{}, err
	}
	return p.wait(ctx, id, w)
}

// Review is the verdict of an actor on a version at a target. ApprovalGate counts reviews.
type Review struct {
	Target
	Version string
	// Approve is false for a rejection.
	Approve bool
	// Actor is the reviewer. The last review of each actor counts.
	Actor string
	// Reason may be empty.
	Reason string
	// Policy names the rules in force when it was given, and Time is when that was. Promoter.Review
	// sets both.
	Policy string
	Time   time.Time
}

// Review writes a review down. It is of the digest that the version is bound to, which stands for
// the configuration in the image, too, of the target, and of the rules in force: the pipeline,
// Config.Rollback, and the settings of the gates for the environment. It holds until that digest
// becomes current at the target: then it is used up. A gate of an embedder has its settings counted
// by a method Policy(Target) any that returns them as values for JSON.
func (p *Promoter) Review(ctx context.Context, r Review) (err error) {
	defer p.watched("review", &err)()
	err = p.checkTarget(ctx, "review", r.Target, &r.Version, func(list *problems) {
		list.texts(r.Actor, r.Reason)
	})
	if err != nil {
		return err
	}
	r.Policy = p.policy(r.Target)
	_, err = p.commit(ctx, func(s *state) (Entry, bool, error) {
		e, err := s.review(r)
		return e, true, err
	})
	return err
}

// RetireRequest asks for the end of a target.
type RetireRequest struct {
	Target
	// Expect, Key, Actor and Reason are as in Request.
	Expect Digest
	Key    string
	Actor  string
	Reason string
}

// StartRetire begins to end a target: the deployer removes the deployment, and nothing is current
// any more. The digest still counts as having been live there. A target where nothing is current is
// retired already: that is no error, and the ID is empty. A target of an earlier pipeline can be
// retired, too. The gates are asked; of this package, only
// FreezeGate holds a retirement.
func (p *Promoter) StartRetire(ctx context.Context, r RetireRequest) (_ ChangeID, err error) {
	defer p.watched("start", &err)()
	id, _, err := p.startRetire(ctx, r)
	return id, err
}

func (p *Promoter) startRetire(ctx context.Context, r RetireRequest) (ChangeID, *work,
	error) {
	err := p.checkTarget(ctx, "retire", r.Target, nil, func(list *problems) {
		list.expect(r.Expect)
		list.key(r.Key)
		list.texts(r.Actor, r.Reason)
	})
	if err != nil {
		return "", nil, err
	}
	return p.start(ctx, asking{Target: r.Target, Op: OpRetire, Key: r.Key,
		Expect: r.Expect, Actor: r.Actor, Reason: r.Reason},
		func(s *state, expect Digest) (Entry, error) {
			r.Expect = expect
			return s.retire(r)
		})
}

// Retire is StartRetire, then Wait. When ctx ends it returns the cause and the change goes on.
func (p *Promoter) Retire(ctx context.Context, r RetireRequest) (err error) {
	defer p.watched("retire", &err)()
	id, w, err := p.startRetire(ctx, r)
	if err == nil && id != "" {
		_, err = p.wait(ctx, id, w)
	}
	return err
}

// Recover brings every change to an end that was started and has neither succeeded nor failed, and
// that this Promoter is not at work on: it asks the deployer again under a new generation, all
// targets at once, and writes down how that ended. It returns the entries with which the changes
// ended, and an error for each that failed or could not be ended. When ctx ends it returns the
// cause, and the changes that it has taken over go on.
//
// Call it at the start, once the deployer works, and every few seconds from then on: it takes over
// the changes of a process that has died since, by Config.Owners, and those of this one whose
// outcome could not be written down. It leaves alone the changes of an owner that lives, or of
// which that is not known.
func (p *Promoter) Recover(ctx context.Context) (_ []Entry, err error) {
	defer p.watched("recover", &err)()
	if _, err := p.join(ctx); err != nil {
		return nil, err
	}
	var open []Entry
	if err := p.view(ctx, func(s *state) { open = s.open(p.pipeline) }); err != nil {
		return nil, err
	}
	ended, errs := make([]Entry, len(open)), make([]error, len(open))
	var wg sync.WaitGroup
	for i, o := range open {
		wg.Go(func() { ended[i], errs[i] = p.takeOver(ctx, o) })
	}
	wg.Wait()
	ended = slices.DeleteFunc(ended, func(e Entry) bool { return e.Seq == 0 })
	return ended, errors.Join(errs...)
}

// takeOver goes on with an open change, unless this Promoter is at work on it, and waits for its
// end.
func (p *Promoter) takeOver(ctx context.Context, open Entry) (Entry, error) {
	if orphan, err := p.orphan(ctx, open); !orphan {
		return Entry{}, err
	}
	_, w, err := p.launch(ctx, func(s *state) (Entry, bool, error) {
		if p.busy(open.ID()) {
			return Entry{}, false, nil
		}
		if at := s.place(open.Target).open; at != nil && at.Owner != open.Owner {
			return Entry{}, false, nil // another one was faster
		}
		return s.resume(open.Target, open.Change)
	})
	if err != nil || w == nil {
		return Entry{}, err
	}
	select {
	case <-w.done:
		return w.ended, w.err
	case <-ctx.Done():
		return Entry{}, fmt.Errorf("wait for change %s: %w", w.id, context.Cause(ctx))
	}
}

// Current returns the current deployments, sorted by cluster, by the pipeline's order, and by task.
// While a change is under way the earlier deployment is still current.
func (p *Promoter) Current(ctx context.Context) (list []Deployment, err error) {
	err = p.view(ctx, func(s *state) { list = s.current(p.pipeline) })
	return list, err
}

// Open returns the changes under way, sorted as Current does, as their Started entries with the
// newest generation.
func (p *Promoter) Open(ctx context.Context) (list []Entry, err error) {
	err = p.view(ctx, func(s *state) { list = s.open(p.pipeline) })
	return list, err
}

// History returns the entries of the journal that match t, oldest first. An empty field of t
// matches everything, so a Target with only a cluster returns all of the cluster, its bindings too.
func (p *Promoter) History(ctx context.Context, t Target) (list []Entry, err error) {
	err = p.view(ctx, func(s *state) { list = s.history(t) })
	return list, err
}

// Bindings returns the versions of a cluster, oldest first; those of all clusters when cluster is
// empty.
func (p *Promoter) Bindings(ctx context.Context, cluster string) (list []Binding, err error) {
	err = p.view(ctx, func(s *state) { list = s.bindings(cluster) })
	return list, err
}

// Watch blocks until the journal has entries with an At above after and returns them, or some of
// them, oldest first. A caller asks again with the At of the last one; 0 begins at the beginning.
func (p *Promoter) Watch(ctx context.Context, after uint64) ([]Entry, error) {
	for {
		entries, err := p.journal.Read(ctx, after)
		if err != nil {
			return nil, withCause(ctx, err)
		}
		if len(entries) > 0 {
			return entries, nil
		}
		if err := p.journal.Wait(ctx, after); err != nil {
			return nil, withCause(ctx, err)
		}
	}
}
