package builds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
)

var errAsked = errors.New("the build was cancelled")

// Run carries builds out until ctx ends, and takes over the builds of dead owners. It returns
// the cause of ctx once every attempt has ended and is recorded; a build that was cut off waits for
// another process. An error of the journal does not end it: it is logged, and Run tries again. It
// ends, with an error, where this owner's tenure ends, or another process has its name.
func (b *Builds) Run(ctx context.Context) error {
	c := b.config
	if c.Owners == nil || c.Owner == "" || c.Engine == nil {
		return fmt.Errorf("builds: Config.Owners, Config.Owner, Config.Engine: want them for "+
			"Run: %w",
			builder.ErrInvalid)
	}
	tenure, leave, err := c.Owners.Join(ctx, c.Owner)
	if err != nil {
		return fmt.Errorf("owner %s: join: %w", c.Owner, err)
	}
	defer leave()
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(tenure, func() { stop(context.Cause(tenure)) })()

	var attempts sync.WaitGroup
	defer attempts.Wait() // before the owner leaves
	free := make(chan struct{}, c.Builders)
	for {
		if err := b.step(run, free, &attempts); err != nil && run.Err() == nil {
			c.Logger.Error("builds cannot be taken up", "error", err)
		}
		// news of the journal, or the time to look for dead owners
		waiting, done := context.WithTimeout(run, c.Poll)
		b.mu.Lock()
		seq := b.state.seq
		b.mu.Unlock()
		err := c.Journal.Wait(waiting, seq)
		if err != nil && waiting.Err() == nil { // the journal cannot be asked
			<-waiting.Done()
		}
		done()
		if run.Err() != nil {
			return context.Cause(run)
		}
	}
}

// step acts on the present state of the journal.
func (b *Builds) step(ctx context.Context, free chan struct{}, attempts *sync.WaitGroup) error {
	if err := b.catchUp(ctx); err != nil {
		return err
	}
	b.heed()
	if err := b.adopt(ctx); err != nil {
		return err
	}
	if err := b.forgetOld(ctx); err != nil {
		return err
	}
	for {
		select {
		case free <- struct{}{}:
		default:
			return nil
		}
		e, ok, err := b.record(ctx, func(s *state) (Entry, bool, error) {
			e, ok := s.next(b.config.Owner)
			return e, ok, nil
		})
		if e.Seq == 0 || !ok {
			<-free
			return err
		}
		work, end := context.WithCancelCause(ctx)
		b.working.Lock()
		b.work[e.Seq] = end // before adopt and heed look again
		b.working.Unlock()
		attempts.Go(func() {
			defer func() { <-free }()
			b.attempt(ctx, work, e)
			b.working.Lock()
			delete(b.work, e.Seq)
			b.working.Unlock()
			end(nil)
		})
	}
}

// heed ends the attempts of this process that are to be cancelled.
func (b *Builds) heed() {
	b.mu.Lock()
	var ending []uint64
	for _, r := range b.state.open {
		if r.State == StateCancelling {
			ending = append(ending, r.Attempt)
		}
	}
	b.mu.Unlock()
	b.working.Lock()
	defer b.working.Unlock()
	for _, n := range ending {
		if end := b.work[n]; end != nil {
			end(errAsked)
		}
	}
}

// adopt lets the builds of dead owners wait again, and the builds under this process's name that it
// does not carry out.
func (b *Builds) adopt(ctx context.Context) error {
	b.mu.Lock()
	var running []Build
	for _, r := range b.state.open {
		if r.State != StateQueued {
			running = append(running, r.Build)
		}
	}
	b.mu.Unlock()
	lives := map[string]bool{}
	for _, r := range running {
		if r.Owner == b.config.Owner {
			b.working.Lock()
			mine := b.work[r.Attempt] != nil
			b.working.Unlock()
			if mine {
				continue
			}
		} else if alive, asked := lives[r.Owner]; asked && alive {
			continue
		} else if !asked {
			alive, err := b.config.Owners.Lives(ctx, r.Owner)
			if err != nil {
				return fmt.Errorf("build %s: does its owner %s live? %w", r.ID, r.Owner, err)
			}
			if lives[r.Owner] = alive; alive {
				continue
			}
		}
		e, ok, err := b.record(ctx, func(s *state) (Entry, bool, error) {
			e, ok := s.orphaned(r.ID, r.Attempt)
			return e, ok, nil
		})
		if err != nil {
			return err
		}
		if ok {
			b.config.Logger.Warn("the owner of a build has died", "build", r.ID, "owner", r.Owner,
				"now", string(e.Kind))
		}
	}
	return nil
}

// attempt is one attempt of a build.
type attempt struct {
	order  Order
	entry  Entry           // Started
	log    string          // the name of the build's log
	tries  int             // with this one
	pinned source.Identity // of an earlier one
}

// attempt carries a build out under work, which is cancelled with the build, and records how it
// ended.
func (b *Builds) attempt(ctx, work context.Context, started Entry) {
	b.mu.Lock()
	r := b.state.builds[started.Build]
	a := attempt{order: r.Order, entry: started, log: r.logName, tries: r.Tries}
	if r.Identity != nil {
		a.pinned = *r.Identity
	}
	b.mu.Unlock()
	start := b.config.Now()
	o, err := b.carryOut(work, a)
	if b.config.Observe != nil {
		b.config.Observe("attempt", b.config.Now().Sub(start), err)
	}
	o.stopped = ctx.Err() != nil
	b.recordEnd(started, o)
}

// recordEnd records the end of an attempt. It outlives ctx. A journal
// that cannot be reached is asked again, for a time; after that the build counts as one whose owner
// has died.
func (b *Builds) recordEnd(started Entry, o outcome) {
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	for {
		_, _, err := b.record(ctx, func(s *state) (Entry, bool, error) {
			e, err := s.end(started.Build, started.Seq, o)
			return e, err == nil, err
		})
		if err == nil {
			return
		}
		b.config.Logger.Error("the end of a build cannot be recorded", "build", started.Build,
			"error", err)
		if errors.Is(err, ErrFenced) || pause(ctx, b.config.Poll) != nil {
			return
		}
	}
}

// carryOut fetches the context of an order and builds it.
func (b *Builds) carryOut(ctx context.Context, a attempt) (outcome, error) {
	order := a.order
	deadline := order.Deadline
	if deadline == 0 {
		deadline = defaultDeadline
	}
	ctx, done := context.WithTimeoutCause(ctx, deadline, fmt.Errorf("the build took longer than "+
		"%s: %w", deadline, context.DeadlineExceeded))
	defer done()
	log := &logWriter{ctx: context.WithoutCancel(ctx), logs: b.config.Logs, name: a.log,
		max: b.config.MaxLog}
	res, err := b.build(ctx, a, log)
	if err != nil {
		log.line("build " + order.ID + ": " + err.Error())
	}
	o := outcome{log: log.close()}
	if err == nil {
		o.result = &res
		return o, nil
	}
	f := *builder.FailureOf(err)
	if cause := context.Cause(ctx); errors.Is(cause, context.DeadlineExceeded) {
		f = *builder.FailureOf(cause)
		f.Message += ": " + err.Error()
	}
	f.Message, f.Hint, f.Instruction = log.masked(f.Message), log.masked(f.Hint),
		log.masked(f.Instruction)
	f.Evidence = append([]string(nil), f.Evidence...)
	for i, e := range f.Evidence {
		f.Evidence[i] = log.masked(e)
	}
	f.Err = nil
	o.failure = &f
	return o, errors.New(f.Message)
}

func (b *Builds) build(ctx context.Context, a attempt, log *logWriter) (builder.Result, error) {
	order := a.order
	if err := log.open(); err != nil {
		return builder.Result{}, fmt.Errorf("log: %w", err)
	}
	values := map[string]string{}
	for _, name := range append(slices.Clone(order.Secrets), order.Source.Secrets()...) {
		value, err := b.config.Secrets(ctx, name)
		if err != nil {
			return builder.Result{}, fmt.Errorf("secret %s: %w", name, err)
		}
		values[name] = value
		log.mask(value)
	}
	log.line(fmt.Sprintf("build %s, attempt %d by %s", order.ID, a.tries, b.config.Owner))
	files, err := b.config.Context(ctx, ContextRequest{Order: order, Secrets: values,
		Pinned: a.pinned, Log: log})
	if err != nil {
		return builder.Result{}, fmt.Errorf("source: %w", err)
	}
	if files.Close != nil {
		defer func() {
			if err := files.Close(); err != nil {
				b.config.Logger.Error("the context of a build cannot be removed", "build",
					order.ID, "error", err)
			}
		}()
	}
	if files.Identity != (source.Identity{}) {
		_, _, err := b.record(ctx, func(s *state) (Entry, bool, error) {
			return s.fetched(order.ID, a.entry.Seq, files.Identity)
		})
		if err != nil {
			return builder.Result{}, fmt.Errorf("record what the source gave: %w", err)
		}
	}
	r := order.request()
	r.Context, r.Log = files.Files, log
	return b.config.Engine.Build(ctx, r)
}
