package promote

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// work is one change that this Promoter carries out. Its goroutine ends with it.
type work struct {
	id     ChangeID
	tenure context.Context // ends with the Promoter's right to work
	// deploying is the context of the deployer's calls until the change fails, restoring that of
	// the calls that restore the earlier deployment.
	deploying, restoring context.Context
	stop, giveUp         context.CancelCauseFunc // of the two contexts
	done                 chan struct{}           // closed after ended and err are set
	ended                Entry
	err                  error
}

// wait returns the outcome of the change.
func (w *work) wait(ctx context.Context) (Deployment, error) {
	select {
	case <-w.done:
	case <-ctx.Done():
		return Deployment{}, fmt.Errorf("wait for change %s: %w", w.id, context.Cause(ctx))
	}
	if w.err != nil || w.ended.Op == OpRetire {
		return Deployment{}, w.err
	}
	d := w.ended.deployment()
	d.Since = w.ended.Time
	return d, nil
}

// begin starts the work that a Started or Resumed entry of this Promoter asks for; it returns nil
// for any other entry and when the Promoter is closed. The caller holds the lock of the state.
func (p *Promoter) begin(open Entry) *work {
	p.mu.Lock()
	defer p.mu.Unlock()
	if open.Kind != Started && open.Kind != Resumed || p.isClosed() != nil ||
		p.works[open.ID()] != nil {
		return nil
	}
	w := &work{id: open.ID(), done: make(chan struct{}), tenure: p.living}
	if p.tenure != nil {
		w.tenure = p.tenure
	}
	w.deploying, w.stop = context.WithCancelCause(w.tenure)
	w.restoring, w.giveUp = context.WithCancelCause(w.tenure)
	if at := p.state.place(open.Target).open; at.state == GivingUp {
		w.giveUp(at.abort)
	}
	p.works[w.id] = w
	if p.unfollow == nil {
		ctx, cancel := context.WithCancel(p.living)
		p.unfollow = cancel
		p.group.Go(func() { p.follow(ctx) })
	}
	p.group.Go(func() {
		ended, err := p.run(w, open)
		p.mu.Lock()
		defer p.mu.Unlock()
		w.ended, w.err = ended, err
		delete(p.works, w.id)
		if len(p.works) == 0 {
			p.unfollow()
			p.unfollow = nil
		}
		w.stop(nil)
		w.giveUp(nil)
		close(w.done)
	})
	return w
}

// follow reads the journal as it grows, so that the works hear of what other processes do to their
// changes.
func (p *Promoter) follow(ctx context.Context) {
	for ctx.Err() == nil {
		var at uint64
		err := p.view(ctx, func(s *state) { at = s.at })
		if err == nil {
			err = p.journal.Wait(ctx, at)
		}
		if err != nil {
			pause(ctx, p.retry)
		}
	}
}

// tell tells the work of a change what e, which the state has just taken in, means for it. The
// caller holds the lock of the state.
func (p *Promoter) tell(e Entry) {
	p.mu.Lock()
	w := p.works[e.ID()]
	p.mu.Unlock()
	switch {
	case w == nil:
	case e.Kind == Aborting:
		if open := p.state.place(e.Target).open; open.state == Stopping {
			w.stop(open.abort)
		} else {
			w.giveUp(open.abort)
		}
	case e.Kind == Resumed && e.Owner != p.owner:
		w.stop(p.state.holds(Entry{Op: e.Op, Target: e.Target, Version: e.Version,
			Change: e.Change}))
		w.giveUp(context.Cause(w.deploying))
	}
}

// run carries the Started or Resumed entry open out and records how that ended.
func (p *Promoter) run(w *work, open Entry) (Entry, error) {
	d := open.deployment()
	failure := p.act(w, open)
	if errors.Is(failure, ErrFenced) {
		if open, failure = p.overtake(w, open, failure); failure == nil {
			failure = p.act(w, open)
		}
	}
	for {
		var doubt string
		if failure != nil && w.tenure.Err() == nil {
			restoring, fault, err := p.restore(w, open, failure)
			if err != nil && w.tenure.Err() == nil { // nothing was restored
				return Entry{}, errors.Join(unwritten(open, err), failure)
			}
			if open = restoring; fault != nil {
				doubt = fault.Error()
			}
		}
		if failure != nil && w.tenure.Err() != nil {
			return Entry{}, fmt.Errorf("%s %s: change %s stays open for the next Recover: %w",
				open.Op, open.Target, w.id, context.Cause(w.tenure))
		}
		ended, err := p.record(func(s *state) (Entry, bool, error) {
			e, err := s.end(open, failure, doubt)
			return e, true, err
		})
		switch {
		case errors.Is(err, ErrAborted) && failure == nil:
			failure = err // the abort came before the success
			continue
		case errors.Is(err, ErrFenced):
			return Entry{}, errors.Join(err, failure)
		case err != nil:
			return Entry{}, errors.Join(unwritten(open, err), failure)
		case failure != nil:
			return ended, &DeployError{Op: open.Op, Deployment: d, Err: failure,
				Doubt: ended.Doubt}
		}
		return ended, nil
	}
}

// unwritten returns the error of a change that stays open because of an error of the journal.
func unwritten(open Entry, err error) error {
	return fmt.Errorf("%s %s: the outcome is not written down, Recover brings the change to an "+
		"end: %w", open.Op, open.Target, err)
}

// act asks the deployer to carry the change out, within its deadline. A change that was taken over
// while it was stopping or being put back fails as before.
func (p *Promoter) act(w *work, open Entry) error {
	if open.Error != "" {
		var abort *AbortError
		_ = p.view(w.restoring, func(s *state) {
			if at := s.place(open.Target).open; at != nil {
				abort = at.abort
			}
		})
		return failureOf(open.Error, abort)
	}
	limit := defaultDeadline
	if own, ok := p.deadlines[open.Environment]; ok {
		limit = own
	}
	ctx, cancel := context.WithTimeoutCause(w.deploying, limit,
		fmt.Errorf("it took longer than %s: %w", limit, ErrDeadline))
	defer cancel()
	return p.insist(ctx, open, 0, func(ctx context.Context) error {
		if open.Op == OpRetire {
			return p.remove(ctx, open.deployment())
		}
		return p.put(ctx, open.deployment())
	})
}

// insist calls the deployer until it can be asked, or until ctx ends. Where limit is not 0, each
// call gets that long.
func (p *Promoter) insist(ctx context.Context, open Entry, limit time.Duration,
	call func(context.Context) error) error {
	for wait := p.retry; ; wait = min(2*wait, 32*p.retry) {
		err := p.once(ctx, limit, call)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrFenced) ||
			!errors.Is(err, ErrUnavailable) {
			return withCause(ctx, err)
		}
		if _, fenced := p.commit(ctx, func(s *state) (Entry, bool, error) {
			return s.wait(open, err)
		}); errors.Is(fenced, ErrFenced) {
			return errors.Join(fenced, err)
		}
		if !pause(ctx, wait) {
			return withCause(ctx, err)
		}
	}
}

// once calls the deployer. When ctx or the limit has ended it waits for the grace at most, and
// leaves a call alone that still has not returned: its generation is fenced off by the next one.
func (p *Promoter) once(ctx context.Context, limit time.Duration,
	call func(context.Context) error) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit,
			fmt.Errorf("it took longer than %s: %w", limit, ErrDeadline))
		defer cancel()
	}
	result := make(chan error, 1)
	go func() { result <- call(ctx) }()
	select {
	case err := <-result:
		return withCause(ctx, err)
	case <-ctx.Done():
	}
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case err := <-result:
		return withCause(ctx, err)
	case <-timer.C:
		return fmt.Errorf("the deployer did not return within %s of the end of its context: %w",
			p.grace, context.Cause(ctx))
	}
}

// restore restores the deployment that was current before open, under a generation of its own, and
// returns the entry of that generation. It does nothing when a newer generation has taken over. The
// fault is why the deployment could not be restored; after an error of the journal the deployer was
// not asked.
func (p *Promoter) restore(w *work, open Entry, failure error) (_ Entry, fault, err error) {
	if errors.Is(failure, ErrFenced) {
		return open, failure, nil
	}
	var before *Deployment
	restoring, err := p.record(func(s *state) (Entry, bool, error) {
		before = s.place(open.Target).current
		e, err := s.restore(open, failure)
		return e, true, err
	})
	switch {
	case errors.Is(err, ErrFenced):
		return open, err, nil
	case err != nil:
		return open, nil, err
	}
	if before == nil {
		fault = p.insist(w.restoring, restoring, p.grace, func(ctx context.Context) error {
			return p.remove(ctx, restoring.deployment())
		})
		if fault != nil {
			fault = fmt.Errorf("remove %s: %w", open.Target, fault)
		}
		return restoring, fault, nil
	}
	d := *before
	d.Generation, d.Since = restoring.Generation, time.Time{}
	fault = p.insist(w.restoring, restoring, p.grace, func(ctx context.Context) error {
		return p.put(ctx, d)
	})
	if fault != nil {
		fault = fmt.Errorf("put back %s (%s): %w", d.Version, d.Digest.Short(), fault)
	}
	return restoring, fault, nil
}

// recordTries is how often record tries to write an entry down: with the default of Config.Retry it
// gives up after a minute.
const recordTries = 6

// record commits, and tries again while the journal fails, so that an outcome is not lost.
func (p *Promoter) record(decide func(*state) (Entry, bool, error)) (Entry, error) {
	wait := p.retry
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), p.grace)
		var decided error
		e, err := p.commit(ctx, func(s *state) (e Entry, ok bool, err error) {
			e, ok, decided = decide(s)
			return e, ok, decided
		})
		cancel()
		if err == nil || decided != nil || try == recordTries || !pause(p.living, wait) {
			return e, err
		}
		wait *= 2
	}
}

// pause waits, and reports whether ctx lasted that long.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
