package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// Scale changes how many instances serve at the target, and returns once they do. It lasts until
// the target is removed. A target where nothing runs is promote.ErrNotFound.
func (r *Rollout) Scale(ctx context.Context, target promote.Target, count int) (err error) {
	defer r.observed("scale", &err)()
	if count < 1 {
		return fmt.Errorf("scale %s to %d: want 1 or more: %w", target, count, promote.ErrInvalid)
	}
	return r.again(ctx, "scale", target, func(rec *Record) error {
		rec.Count = count
		return nil
	})
}

// Restart replaces instances that serve by new ones of the same image, as the policy says for a
// new image, and returns once that is done. Without ids it replaces all. When it fails or is cut
// off the old ones go on. An id that does not serve, and a target where nothing runs, is
// ErrNotFound.
func (r *Rollout) Restart(ctx context.Context, target promote.Target, ids ...string) (err error) {
	defer r.observed("restart", &err)()
	return r.again(ctx, "restart", target, func(rec *Record) error {
		replace := ids
		if len(ids) == 0 {
			replace = rec.Serving
		}
		if unknown := without(replace, rec.Serving); len(unknown) > 0 {
			return fmt.Errorf("instance %s: it does not serve: %w", unknown[0], ErrNotFound)
		}
		rec.Replace = union(rec.Replace, replace)
		return nil
	})
}

// ErrNotFound is wrapped by Scale, Restart, Pause and Continue for a target or an instance that is
// not there.
var ErrNotFound = errors.New("not found")

// again works on a target once more under the generation that it has seen.
func (r *Rollout) again(ctx context.Context, op string, target promote.Target,
	change func(*Record) error) error {
	rec, err := r.edit(ctx, op, target, func(rec *Record) error {
		rec.Done = false
		return change(rec)
	})
	if err != nil {
		return err
	}
	if err := r.work(ctx, rec); err != nil {
		return fmt.Errorf("%s %s: %w", op, target, err)
	}
	return nil
}

// edit changes the record of a target where an image is to run.
func (r *Rollout) edit(ctx context.Context, op string, target promote.Target,
	change func(*Record) error) (rec Record, err error) {
	if err = r.check(target); err == nil {
		rec, err = r.cfg.Records.Update(ctx, target, func(rec Record) (Record, error) {
			if rec.Image == (Image{}) {
				return rec, fmt.Errorf("nothing runs there: %w", ErrNotFound)
			}
			rec = rec.clone()
			rec.Revision++
			err := change(&rec)
			return rec, err
		})
	}
	if err != nil {
		return rec, fmt.Errorf("%s %s: %w", op, target, withCause(ctx, err))
	}
	return rec, nil
}

// Pause holds the rollout of a target before it starts its next batch or moves its routes next,
// until Continue, or until a newer generation takes over. The time does not count for
// Config.Progress. It returns at once.
func (r *Rollout) Pause(ctx context.Context, target promote.Target) error {
	_, err := r.edit(ctx, "pause", target, func(rec *Record) error {
		rec.Paused = true
		return nil
	})
	return err
}

// Continue lets a paused rollout go on. It returns at once.
func (r *Rollout) Continue(ctx context.Context, target promote.Target) error {
	_, err := r.edit(ctx, "continue", target, func(rec *Record) error {
		rec.Paused = false
		return nil
	})
	r.mu.Lock()
	w := r.works[target]
	r.mu.Unlock()
	if w != nil {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return err
}

// pausedLook is how often a paused rollout reads its record: another process may continue it.
const pausedLook = time.Second

// waitContinued returns when the rollout is not paused.
func (r *run) waitContinued(ctx context.Context) error {
	for said := false; ; {
		rec, err := r.cfg.Records.Get(ctx, r.target)
		if err != nil {
			return err
		}
		if !rec.Paused || rec.Seen != r.generation {
			if said {
				r.event(ctx, rec, EventContinued, "", "", nil)
			}
			return nil
		}
		if !said {
			r.event(ctx, rec, EventPaused, "", "", nil)
			said = true
		}
		r.mu.Lock()
		wake := r.works[r.target].wake
		r.mu.Unlock()
		select {
		case <-wake:
		case <-time.After(pausedLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Recover brings each target to its end on which a call was at work that a crash has cut off, all
// at once. Call it at the start, after Promoter.Recover, which takes over the changes in the
// journal: a Scale and a Restart are left to it. It must not be called while another process works
// on a target.
func (r *Rollout) Recover(ctx context.Context) (err error) {
	defer r.observed("recover", &err)()
	return r.all(ctx, func(rec Record) error {
		if rec.Done || rec.Seen == 0 || r.busy(rec.Target) {
			return nil
		}
		if err := r.check(rec.Target); err != nil {
			return err
		}
		return r.work(ctx, rec)
	})
}

// Tidy ends, at targets where nothing is under way, the instances that nothing needs: leftovers of
// a crash, and instances that were kept long enough. Call it every few seconds.
func (r *Rollout) Tidy(ctx context.Context) (err error) {
	defer r.observed("tidy", &err)()
	instances, err := r.cfg.Instances.List(ctx)
	if err != nil {
		return fmt.Errorf("list instances: %w", withCause(ctx, err))
	}
	byTarget := map[promote.Target][]Instance{}
	for _, i := range instances {
		byTarget[i.Target] = append(byTarget[i.Target], i)
	}
	return r.all(ctx, func(rec Record) error {
		here := byTarget[rec.Target]
		if !rec.Done || len(here) <= len(rec.Serving) && len(rec.Ending) == 0 ||
			r.busy(rec.Target) {
			return nil
		}
		surplus := Surplus(Situation{Record: rec, Instances: here,
			Policy: r.cfg.Policy(rec.Target), Now: r.cfg.Now()})
		// one that has begun to serve again is left out when it is marked
		surplus = slices.DeleteFunc(surplus, func(i Instance) bool {
			return i.Generation > rec.Seen
		})
		if len(surplus) == 0 {
			return nil
		}
		return r.tidy(ctx, rec, surplus)
	})
}

// tidy ends instances at a target where nothing is under way.
func (r *Rollout) tidy(ctx context.Context, rec Record, surplus []Instance) error {
	ctx, end, err := r.begin(ctx, rec.Target, rec.Seen)
	if err != nil {
		return err
	}
	defer end()
	now, err := r.cfg.Records.Get(ctx, rec.Target)
	if err != nil || now.Revision != rec.Revision {
		return err
	}
	instances, err := r.at(ctx, rec.Target)
	if err != nil {
		return err
	}
	var serving []Instance
	for _, i := range instances {
		if slices.Contains(rec.Serving, i.ID) {
			serving = append(serving, i)
		}
	}
	// the routes may still name one that a crash has left
	if err := r.apply(ctx, Assignment{Target: rec.Target, Revision: rec.Revision,
		Instances: serving}); err != nil {
		return fmt.Errorf("tidy %s: %w", rec.Target, err)
	}
	return r.finish(ctx, rec, surplus)
}

// all calls f for each record that can be read, at once, and joins the errors with those of the
// records that cannot.
func (r *Rollout) all(ctx context.Context, f func(Record) error) error {
	records, err := r.cfg.Records.List(ctx)
	if err != nil {
		err = fmt.Errorf("list records: %w", withCause(ctx, err))
	}
	errs := make([]error, len(records))
	each(len(records), func(n int) { errs[n] = f(records[n]) })
	return withCause(ctx, errors.Join(append(errs, err)...))
}

// Status is the state of one target.
type Status struct {
	Record Record
	// Instances are all that were observed, in the order in which they were started.
	Instances []Instance
}

// Status returns the record of a target and the instances that really run there.
func (r *Rollout) Status(ctx context.Context, target promote.Target) (Status, error) {
	rec, err := r.cfg.Records.Get(ctx, target)
	if err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", target, withCause(ctx, err))
	}
	instances, err := r.at(ctx, target)
	if err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", target, withCause(ctx, err))
	}
	slices.SortFunc(instances, byID)
	return Status{Record: rec, Instances: instances}, nil
}

// Observe implements promote.Observer: the digest is that of the instances that serve.
func (r *Rollout) Observe(ctx context.Context, target promote.Target) (promote.Observation, error) {
	status, err := r.Status(ctx, target)
	if err != nil {
		return promote.Observation{}, fmt.Errorf("%w: %w", err, promote.ErrUnavailable)
	}
	rec := status.Record
	digests := map[promote.Digest]bool{}
	o := promote.Observation{Digest: promote.None, Generation: rec.Seen,
		Instances: len(status.Instances)}
	for _, i := range status.Instances {
		switch {
		case !slices.Contains(rec.Serving, i.ID):
			continue
		case i.State == Ready:
			o.Ready++
		default:
			o.Messages = append(o.Messages, fmt.Sprintf("instance %s is %s", i.ID, i.State))
		}
		digests[i.Image.Digest] = true
	}
	for digest := range digests {
		o.Digest = digest
	}
	if len(digests) > 1 {
		o.Digest = ""
	}
	return o, nil
}
