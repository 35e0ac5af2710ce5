package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// Rollout moves targets from one image to the next. It is a promote.Deployer. It is safe for
// concurrent use; several may share the Records, Instances and Routes, as long as no two roll out
// the same target at once without the fence of a generation.
type Rollout struct {
	cfg Config

	mu    sync.Mutex
	works map[promote.Target]*work // the call at work on a target
}

var (
	_ promote.Deployer = (*Rollout)(nil)
	_ promote.Observer = (*Rollout)(nil)
)

// work is a call at work on a target.
type work struct {
	generation uint64
	cancel     context.CancelCauseFunc
	done       chan struct{}
	wake       chan struct{} // holds a value after Continue
}

// Batch is the state of a rollout that Config.Check judges.
type Batch struct {
	Target     promote.Target
	Generation uint64
	Image      Image
	// Serving are the instances of the image that take requests; Count is how many are to.
	Serving []Instance
	Count   int
}

// Deploy implements promote.Deployer: it returns nil once Policy.Count instances of the image, and
// no others, take the target's requests, and instances that are not kept have ended. It stops at
// the first failure: see StoppedError. The instances of the image that serve already stay.
func (r *Rollout) Deploy(ctx context.Context, d promote.Deployment) (err error) {
	defer r.observed("deploy", &err)()
	image := Image{Version: d.Version, Digest: d.Digest, Repository: d.Repository}
	if d.Digest == "" {
		return fmt.Errorf("deploy to %s: no digest: %w", d.Target, promote.ErrInvalid)
	}
	return r.change(ctx, "deploy to", d.Target, d.Generation, image)
}

// Remove implements promote.Deployer: it takes the target out of the routes and ends its instances.
func (r *Rollout) Remove(ctx context.Context, d promote.Deployment) (err error) {
	defer r.observed("remove", &err)()
	return r.change(ctx, "remove from", d.Target, d.Generation, Image{})
}

func (r *Rollout) change(ctx context.Context, op string, target promote.Target, generation uint64,
	image Image) error {
	wrap := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s %s: %w", op, target, err)
	}
	if ctx.Err() != nil {
		return wrap(context.Cause(ctx))
	}
	if err := r.check(target); err != nil {
		return wrap(err)
	}
	// The fence first: a call at work under an older generation ends by it.
	rec, err := r.cfg.Records.Update(ctx, target, func(rec Record) (Record, error) {
		rec, err := rec.see(generation, image)
		rec.Revision++
		return rec, err
	})
	if err != nil {
		return wrap(withCause(ctx, err))
	}
	return wrap(r.work(ctx, rec))
}

// check returns why nothing can be rolled out to the target, or nil.
func (r *Rollout) check(target promote.Target) error {
	if target.Cluster == "" || target.Environment == "" {
		return fmt.Errorf("target %q: want a cluster and an environment: %w", target,
			promote.ErrInvalid)
	}
	return r.cfg.Policy(target).validate()
}

// work rolls a target out under the generation that rec has seen. One call at a time works on a
// target; one under an older generation is fenced off first.
func (r *Rollout) work(ctx context.Context, rec Record) error {
	ctx, end, err := r.begin(ctx, rec.Target, rec.Seen)
	if err != nil {
		return err
	}
	defer end()
	run := &run{Rollout: r, target: rec.Target, generation: rec.Seen,
		policy: r.cfg.Policy(rec.Target), started: map[string]bool{}, ended: map[string]bool{}}
	return withCause(ctx, run.carryOut(ctx))
}

func (r *Rollout) begin(ctx context.Context, target promote.Target, generation uint64) (
	_ context.Context, end func(), err error) {
	w := &work{generation: generation, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	for {
		r.mu.Lock()
		other := r.works[target]
		if other == nil {
			ctx, w.cancel = context.WithCancelCause(ctx)
			r.works[target] = w
			r.mu.Unlock()
			return ctx, func() {
				r.mu.Lock()
				delete(r.works, target)
				r.mu.Unlock()
				close(w.done)
				w.cancel(nil)
			}, nil
		}
		r.mu.Unlock()
		if other.generation < generation {
			other.cancel(fmt.Errorf("generation %d: generation %d was seen: %w", other.generation,
				generation, promote.ErrFenced))
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// busy reports whether a call of this Rollout is at work on the target.
func (r *Rollout) busy(target promote.Target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.works[target] != nil
}

// update changes a record while generation is the highest one that was seen.
func (r *Rollout) update(ctx context.Context, target promote.Target, generation uint64,
	change func(*Record)) (Record, error) {
	return r.cfg.Records.Update(ctx, target, func(rec Record) (Record, error) {
		if rec.Seen != generation {
			return rec, fmt.Errorf("generation %d: generation %d was seen: %w", generation,
				rec.Seen, promote.ErrFenced)
		}
		rec = rec.clone()
		change(&rec)
		rec.Revision++
		return rec, nil
	})
}

// at returns the instances of one target.
func (r *Rollout) at(ctx context.Context, target promote.Target) ([]Instance, error) {
	list, err := r.cfg.Instances.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	return slices.DeleteFunc(list, func(i Instance) bool { return i.Target != target }), nil
}

// observed calls Config.Observe when the returned function is called.
func (r *Rollout) observed(op string, err *error) func() {
	start := r.cfg.Now()
	return func() { r.cfg.Observe(op, r.cfg.Now().Sub(start), *err) }
}

// asked calls a method of Instances or Routes.
func (r *Rollout) asked(op string, f func() error) (err error) {
	defer r.observed(op, &err)()
	return f()
}

// withCause adds the context's cause to an error that lacks it.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err == nil || cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// within bounds a step by a duration.
func within(ctx context.Context, d time.Duration, what string) (context.Context,
	context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("%s took more than %s: %w", what, d,
		context.DeadlineExceeded))
}
