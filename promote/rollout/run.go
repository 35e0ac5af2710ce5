package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// run is one call at work on a target.
type run struct {
	*Rollout
	target     promote.Target
	generation uint64
	policy     Policy
	started    map[string]bool // ids of instances that this call has started
	ended      map[string]bool // ids of instances that this call has ended
	kept       bool            // this call has kept instances for a restore
	applied    bool            // the routes of the record are verified
	batches    int             // that serve
}

// carryOut asks for the next step and carries it out until none is left.
func (r *run) carryOut(ctx context.Context) error {
	for {
		s, err := r.look(ctx)
		if err != nil {
			return err
		}
		step := Next(s)
		switch step.Kind {
		case StepStart:
			err = r.start(ctx, s, step)
		case StepRoute:
			err = r.route(ctx, s, step)
		case StepEnd:
			err = r.end(ctx, s.Record, step.Instances)
		case StepFail:
			err = r.lose(s, step)
		case StepDone:
			changed := false // by a Restart or a Scale since the look
			rec, err := r.update(ctx, r.target, r.generation, func(rec *Record) {
				if changed = rec.Revision != s.Record.Revision; !changed {
					rec.Done, rec.Replace = true, nil
				}
			})
			if err == nil && changed {
				continue
			}
			if err == nil {
				r.event(ctx, rec, EventDone, "", "", nil)
			}
			return err
		}
		if err != nil {
			return r.stop(ctx, err)
		}
	}
}

// look returns the situation that the next step depends on. The instances come last: a record
// never names one that is not there yet.
func (r *run) look(ctx context.Context) (Situation, error) {
	if ctx.Err() != nil {
		return Situation{}, context.Cause(ctx)
	}
	rec, err := r.cfg.Records.Get(ctx, r.target)
	if err != nil {
		return Situation{}, fmt.Errorf("record: %w", err)
	}
	if rec.Seen != r.generation {
		return Situation{}, fmt.Errorf("generation %d: generation %d was seen: %w", r.generation,
			rec.Seen, promote.ErrFenced)
	}
	instances, err := r.at(ctx, r.target)
	if err != nil {
		return Situation{}, err
	}
	return Situation{Record: rec, Instances: instances, Policy: r.policy, Now: r.cfg.Now(),
		Started: r.started, Kept: r.kept, Applied: r.applied}, nil
}

// start starts a batch of instances at once and waits until all are ready.
func (r *run) start(ctx context.Context, s Situation, step Step) error {
	if err := r.proceed(ctx); err != nil {
		return err
	}
	var first uint64
	rec, err := r.update(ctx, r.target, r.generation, func(rec *Record) {
		first = rec.Started + 1
		rec.Started += uint64(step.New)
	})
	if err != nil {
		return err
	}
	var specs []Spec
	for _, i := range step.Instances {
		specs = append(specs, i.Spec)
	}
	for n := range uint64(step.New) {
		specs = append(specs, Spec{ID: InstanceID(r.target, r.generation, first+n),
			Target: r.target, Image: rec.Image, Generation: r.generation, Number: first + n})
	}
	outer := ctx
	ctx, free := within(ctx, r.cfg.Progress, "the start of a batch")
	defer free()
	ctx, cancel := context.WithCancelCause(ctx)
	errs := make([]error, len(specs))
	each(len(specs), func(n int) {
		r.event(ctx, rec, EventStarting, specs[n].ID, "", nil)
		errs[n] = r.asked("instances.start", func() error {
			_, err := r.cfg.Instances.Start(ctx, specs[n])
			return withCause(ctx, err)
		})
		if errs[n] == nil {
			r.event(ctx, rec, EventReady, specs[n].ID, "", nil)
		} else {
			cancel(errSibling)
		}
	})
	for n, spec := range specs {
		if errs[n] == nil {
			r.started[spec.ID] = true
		}
	}
	cancel(nil)
	at := slices.IndexFunc(errs, func(err error) bool {
		return err != nil && !errors.Is(err, errSibling)
	})
	if at < 0 || outer.Err() != nil {
		return errors.Join(errs...)
	}
	stopped := r.stopped(s, ReasonStart, specs[at].ID, errs[at])
	var failed *InstanceError
	if errors.As(errs[at], &failed) {
		stopped.Lines = failed.Lines
	}
	return stopped
}

// errSibling ends the starts of a batch in which another start has failed.
var errSibling = errors.New("another instance of the batch did not start")

// each calls f for 0 to n-1 at once and returns when all calls have.
func each(n int, f func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// proceed waits while the rollout is paused, and between two batches.
func (r *run) proceed(ctx context.Context) error {
	if r.batches > 0 && r.policy.Pause > 0 {
		select {
		case <-time.After(r.policy.Pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return r.waitContinued(ctx)
}

// route writes the serving instances down, moves the routes and waits until they are verified.
func (r *run) route(ctx context.Context, s Situation, step Step) error {
	if !slices.Equal(step.Serving, s.Record.Serving) {
		if err := r.waitContinued(ctx); err != nil {
			return err
		}
	}
	rec, err := r.update(ctx, r.target, r.generation, func(rec *Record) {
		rec.Serving = step.Serving
		if len(without(step.Kept, rec.Kept)) > 0 {
			rec.KeptUntil = r.cfg.Now().UTC().Round(0).Add(r.policy.Retain)
		}
		rec.Kept = step.Kept
	})
	if err != nil {
		return err
	}
	r.kept = r.kept || len(without(step.Kept, s.Record.Kept)) > 0
	a := Assignment{Target: r.target, Revision: rec.Revision}
	for _, i := range s.Instances {
		if slices.Contains(rec.Serving, i.ID) {
			a.Instances = append(a.Instances, i)
		}
	}
	slices.SortFunc(a.Instances, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	if err := r.apply(ctx, a); err != nil {
		return r.stopped(s, ReasonRoutes, "", err)
	}
	r.applied = true
	r.event(ctx, rec, EventRouted, "", strings.Join(rec.Serving, " "), nil)
	r.batches++
	if r.cfg.Check == nil || len(rec.Serving) == 0 {
		return nil
	}
	batch := Batch{Target: r.target, Generation: r.generation, Image: rec.Image, Count: s.count()}
	for _, i := range a.Instances {
		if i.Image.same(rec.Image) {
			batch.Serving = append(batch.Serving, i)
		}
	}
	if err := r.cfg.Check(ctx, batch); err != nil {
		s.Record = rec
		return r.stopped(s, ReasonCheck, "", withCause(ctx, err))
	}
	r.event(ctx, rec, EventChecked, "", fmt.Sprintf("%d of %d instances", len(batch.Serving),
		batch.Count), nil)
	return nil
}

func (r *Rollout) apply(ctx context.Context, a Assignment) error {
	ctx, cancel := within(ctx, r.cfg.Progress, "the routes")
	defer cancel()
	return r.asked("routes.apply", func() error {
		return withCause(ctx, r.cfg.Routes.Apply(ctx, a))
	})
}

// end drains and stops instances that are out of the routes.
func (r *run) end(ctx context.Context, rec Record, instances []Instance) error {
	for _, i := range instances {
		if r.ended[i.ID] {
			return &StoppedError{Target: r.target, Generation: r.generation, Reason: ReasonStop,
				Instance: i.ID, Err: errors.New("it was stopped and is still listed")}
		}
	}
	if err := r.finish(ctx, rec, instances); err != nil {
		return err
	}
	for _, i := range instances {
		r.ended[i.ID] = true
		delete(r.started, i.ID)
	}
	return nil
}

// finish marks instances as ending, drains them and stops them, all at once. It leaves out those
// that serve again meanwhile.
func (r *Rollout) finish(ctx context.Context, rec Record, instances []Instance) error {
	ids := make([]string, len(instances))
	for n, i := range instances {
		ids[n] = i.ID
	}
	rec, err := r.update(ctx, rec.Target, rec.Seen, func(rec *Record) {
		ids = without(ids, rec.Serving)
		rec.Ending, rec.Kept = union(rec.Ending, ids), without(rec.Kept, ids)
	})
	if err != nil {
		return err
	}
	instances = slices.DeleteFunc(slices.Clone(instances), func(i Instance) bool {
		return !slices.Contains(ids, i.ID)
	})
	if len(instances) == 0 {
		return nil
	}
	if err := r.drain(ctx, rec, instances); err != nil {
		return err
	}
	errs := make([]error, len(instances))
	func() {
		ctx, cancel := within(ctx, r.cfg.Progress, "the end of an instance")
		defer cancel()
		each(len(instances), func(n int) {
			id := instances[n].ID
			errs[n] = r.asked("instances.stop", func() error {
				return withCause(ctx, r.cfg.Instances.Stop(ctx, id))
			})
			if errs[n] == nil {
				r.event(ctx, rec, EventEnded, id, "", nil)
			}
		})
	}()
	var gone []string
	for n, i := range instances {
		if errs[n] == nil {
			gone = append(gone, i.ID)
			continue
		}
		errs[n] = &StoppedError{Target: rec.Target, Generation: rec.Seen, Reason: ReasonStop,
			Instance: i.ID, Err: fmt.Errorf("stop instance %s: %w", i.ID, errs[n])}
	}
	if len(gone) > 0 {
		_, err = r.update(ctx, rec.Target, rec.Seen, func(rec *Record) {
			rec.Ending = without(rec.Ending, gone)
		})
	}
	return errors.Join(append(errs, err)...)
}

// drain waits until the instances have no request in flight, at most for Config.Drain: an error of
// Routes is no proof that there is none.
func (r *Rollout) drain(ctx context.Context, rec Record, instances []Instance) error {
	drain, cancel := within(ctx, r.cfg.Drain, "the drain")
	defer cancel()
	err := r.asked("routes.drain", func() error { return r.cfg.Routes.Drain(drain, instances) })
	if err != nil {
		<-drain.Done()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	kind := EventDrained
	if err != nil {
		kind = EventCut
	}
	for _, i := range instances {
		r.event(ctx, rec, kind, i.ID, "", err)
	}
	return nil
}

// lose is the failure of instances that this call has started.
func (r *run) lose(s Situation, step Step) error {
	if len(step.Instances) == 0 {
		return r.stopped(s, ReasonStart, "", errors.New("the policy lets nothing start or go"))
	}
	i := step.Instances[0]
	return r.stopped(s, ReasonLost, i.ID, fmt.Errorf("instance %s was ready and is %s now", i.ID,
		i.State))
}

func (r *run) stopped(s Situation, reason Reason, instance string, err error) *StoppedError {
	e := &StoppedError{Target: r.target, Generation: r.generation, Reason: reason,
		Instance: instance, Count: s.count(), Err: err}
	for _, i := range s.Instances {
		if slices.Contains(s.Record.Serving, i.ID) && i.Image.same(s.Record.Image) {
			e.Serving++
		}
	}
	return e
}

// restoreTime is how long the instances that a stopped rollout has taken out of the routes stay at
// least, so that a restore moves the routes only.
const restoreTime = time.Minute

// stop ends the instances that a failed rollout has started and that do not serve, and writes down
// that it has ended. A call that was cancelled or fenced off, or that could not ask
// (promote.ErrUnavailable), leaves all that to the next call, which goes on from there.
func (r *run) stop(ctx context.Context, failure error) error {
	var stopped *StoppedError
	if ctx.Err() != nil || errors.Is(failure, promote.ErrFenced) ||
		errors.Is(failure, promote.ErrUnavailable) || !errors.As(failure, &stopped) {
		return failure
	}
	instances, err := r.at(ctx, r.target)
	if err != nil {
		return errors.Join(failure, err)
	}
	rec, err := r.update(ctx, r.target, r.generation, func(rec *Record) {
		rec.Done, rec.Replace, rec.Paused = true, nil, false
		for _, i := range instances { // for the restore
			if i.Generation != r.generation && i.State == Ready &&
				!slices.Contains(slices.Concat(rec.Serving, rec.Ending, rec.Kept), i.ID) {
				rec.Kept = union(rec.Kept, []string{i.ID})
				rec.KeptUntil = r.cfg.Now().UTC().Round(0).Add(max(r.policy.Retain, restoreTime))
			}
		}
	})
	if err != nil {
		return errors.Join(failure, err)
	}
	r.event(ctx, rec, EventStopped, stopped.Instance, string(stopped.Reason), failure)
	instances = slices.DeleteFunc(instances, func(i Instance) bool {
		return i.Generation != r.generation || slices.Contains(rec.Serving, i.ID) ||
			slices.Contains(rec.Kept, i.ID) || r.ended[i.ID]
	})
	if len(instances) > 0 {
		err = r.finish(ctx, rec, instances)
	}
	return errors.Join(failure, err)
}
