package nginxsync

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

func writerName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // does not fail
	return hex.EncodeToString(b[:])
}

type revised struct {
	snapshot Snapshot
	revision uint64
}

// runner is the state of Run.
type runner struct {
	*Agent
	table    *table
	file     Routes     // of the state file when the agent began
	adopted  bool       // what Nginx had is known
	known    Generation // that Nginx had then
	saved    Generation // in the state file
	pushed   time.Time
	epoch    uint64 // 0 before Nginx was asked
	fenced   error
	next     *revised // that came before Nginx was asked
	last     *revised // that the table has
	seen     map[SetAside]bool
	logged   string // the error that was logged last
	loggedAt time.Time
	buf      []byte
}

// Run keeps Nginx in step until ctx ends, and returns its cause. A source or an Nginx that fails is
// tried again without limit. Run must not be called twice.
func (a *Agent) Run(ctx context.Context) error {
	disown, err := own(ctx, a.cfg.StateFile, min(a.cfg.CheckEvery, 200*time.Millisecond),
		func(err error) {
			if a.Status().Fenced != err.Error() {
				a.cfg.Logger.Warn("wait for the state file", "err", err)
				a.update(func(s *Status) { s.Fenced = err.Error() })
			}
		})
	if err != nil {
		return err
	}
	defer disown()
	r := &runner{Agent: a, table: newTable(a.cfg.Guard), seen: map[SetAside]bool{}}
	r.begin()

	snapshots := make(chan revised, 1) // the newest one only: an older one is taken out before
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.watch(ctx, snapshots) })

	tries := retry.Backoff{}
	var wait time.Duration
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case next := <-snapshots:
			r.next = &next
			tries = retry.Backoff{}
		case <-a.wake:
		case <-time.After(wait):
		}
		done, err := r.step(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			wait = tries.Next(20*time.Millisecond, 2*time.Second)
			r.warn("nginx is not in step", err, wait)
		case !done:
			wait = tries.Next(time.Millisecond, 100*time.Millisecond)
		default:
			wait, tries = a.cfg.CheckEvery, retry.Backoff{}
		}
	}
}

// warn logs an error when it is another one than before, and once a minute.
func (r *runner) warn(text string, err error, wait time.Duration) {
	now := r.cfg.Now()
	if r.logged == err.Error() && now.Sub(r.loggedAt) < time.Minute {
		return
	}
	r.logged, r.loggedAt = err.Error(), now
	r.cfg.Logger.Warn(text, "err", err, "generation", r.table.number, "retry", wait)
}

// begin reads the state file, now that this agent owns it.
func (r *runner) begin() {
	r.update(func(s *Status) { s.Fenced = "" })
	if r.cfg.StateFile == "" {
		return
	}
	file, whole, damaged := readState(r.cfg.StateFile)
	moved, err := setAsideDamaged(damaged, r.cfg.Now())
	for name, why := range damaged {
		r.cfg.Logger.Warn("damaged state file set aside", "file", name, "to", moved[name], "err",
			why)
	}
	if err != nil {
		r.cfg.Logger.Warn("damaged state file", "err", err)
	}
	r.file, r.saved = file, whole
	r.update(func(s *Status) { s.Saved = whole })
}

func (a *Agent) watch(ctx context.Context, out chan revised) {
	var after uint64
	tries := retry.Backoff{}
	for {
		snapshot, revision, err := a.cfg.Source.Watch(ctx, after)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			a.cfg.Logger.Warn("source", "err", err)
			a.update(func(s *Status) { s.SourceError = err.Error() })
			select {
			case <-ctx.Done():
				return
			case <-time.After(tries.Next(50*time.Millisecond, 5*time.Second)):
			}
			continue
		}
		after, tries = revision, retry.Backoff{}
		select {
		case <-out:
		default:
		}
		out <- revised{snapshot, revision}
	}
}

// step makes one step: look, take over, push when Nginx has something else, look again, keep the
// state file. It returns false while workers do not answer with the routes yet.
func (r *runner) step(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	defer func() {
		if err != nil {
			r.update(func(s *Status) { s.LastError = err.Error() })
		}
	}()
	state, err := r.state(ctx)
	if err != nil {
		return false, err
	}
	if !r.adopted || r.foreign(state) {
		if err := r.adopt(ctx, state); err != nil {
			return false, err
		}
	}
	r.plan()
	if !r.table.have {
		r.update(func(s *Status) { s.LastError = "" })
		return true, nil
	}
	if err := r.fence(state); err == nil {
		if state, err = r.push(ctx, state); err != nil {
			return false, err
		}
	} else if !r.table.agree(state.Applied) {
		r.update(func(s *Status) { s.refused = r.table.revision })
		return false, err
	}
	desired := r.table.desired()
	verified := state.Verified(desired)
	r.update(func(s *Status) {
		s.Desired, s.Applied, s.Workers, s.LastError = desired, state.Applied, state.Workers, ""
		s.Memory, s.Free = state.Memory, state.Free
		if verified {
			s.Verified, s.VerifiedAt, s.VerifiedRevision = desired, r.cfg.Now(), r.table.revision
		}
	})
	// A large state file takes a while, and the routes are verified first.
	since := r.cfg.Now().Sub(r.pushed) // less than nothing after the clock was set back
	if r.fenced == nil && state.Applied == desired &&
		(verified || since > 200*time.Millisecond || since < 0) {
		r.save(desired)
	}
	return verified, nil
}

// foreign reports whether Nginx has routes of another agent that this one has not seen: the other
// one pushed when this one could not. The guard has to judge by them.
func (r *runner) foreign(state DriverState) bool {
	t := r.table
	if r.fenced != nil || state.Epoch > r.epoch || state.Writer == r.writer ||
		state.Applied == r.known || state.Applied == t.base ||
		state.Applied.Digest == t.desired().Digest {
		return false
	}
	// An Nginx that started again has no writer, and has routes of a state file.
	return state.Writer != "" || state.Applied.Number > max(t.base.Number, r.known.Number)
}

// adopt takes over what Nginx serves, or the state file where that is newer. Without either, the
// source alone counts.
func (r *runner) adopt(ctx context.Context, state DriverState) error {
	var from Routes
	if state.Applied != (Generation{}) {
		start := r.cfg.Now()
		routes, err := r.cfg.Driver.Routes(ctx)
		r.cfg.Observe("routes", r.cfg.Now().Sub(start), err)
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, ErrInvalid):
			// The state file or the source has to do: routes that do not prove themselves are
			// replaced.
			r.cfg.Logger.Warn("the routes that Nginx has are damaged", "err", err)
		case err != nil:
			return err
		default:
			from = routes
		}
	}
	inForce := from.Generation
	if r.file.Generation.Number > from.Generation.Number {
		from = r.file
	}
	if from.Generation != (Generation{}) {
		r.table.adopt(from)
		if r.next == nil {
			r.next = r.last // the guard judges it again, by these routes
		}
		if from.Generation == inForce {
			r.table.accepted()
		}
		r.update(func(s *Status) {
			s.Desired, s.Resumed, s.ChangedAt = from.Generation, true, r.cfg.Now()
		})
	}
	r.known = state.Applied
	r.adopted, r.epoch, r.file = true, max(r.epoch, state.Epoch+1), Routes{}
	return nil
}

// plan brings the table up to date: the snapshot that came, releases, and changes that were held
// for long enough.
func (r *runner) plan() {
	now := r.cfg.Now()
	r.mu.Lock()
	releases := r.releases
	r.releases = nil
	r.mu.Unlock()
	for _, i := range releases {
		n := r.table.release(i, now)
		r.cfg.Logger.Warn("held changes released", "vip", i.VIP, "cluster", i.Cluster, "by", i.By,
			"changes", n)
	}
	next := r.next
	if next == nil && len(releases) == 0 && len(r.table.held) == 0 {
		return
	}
	before, held := r.table.desired(), r.table.heldList()
	if next != nil {
		r.table.accept(next.snapshot, next.revision, now)
		r.next, r.last = nil, next
	} else if len(r.table.held) > 0 {
		r.table.decide(map[key]bool{}, r.table.revision, now)
	}
	known := map[key]bool{}
	for _, h := range held {
		known[h.key()] = !h.Alarm
	}
	holding := r.table.heldList()
	for _, h := range holding {
		if quiet, ok := known[h.key()]; !ok || quiet && h.Alarm {
			r.cfg.Logger.Warn("change held", "change", h.String(), "alarm", h.Alarm)
		}
	}
	aside := r.table.setAside()
	seen := make(map[SetAside]bool, len(aside))
	for _, record := range aside {
		seen[record] = true
		if !r.seen[record] {
			r.cfg.Logger.Warn("record set aside", "record", record.String())
		}
	}
	r.seen = seen
	desired := r.table.desired()
	r.update(func(s *Status) {
		s.Held, s.SetAside, s.Desired = holding, aside, desired
		if next != nil {
			s.Revision, s.SourceError, s.Resumed = next.revision, "", false
		}
		if desired != before {
			s.ChangedAt = now
		}
	})
}

// fence returns why this agent does not push: an agent of a later term has. That stays so until
// this one starts again, also when Nginx forgets the term.
func (r *runner) fence(state DriverState) error {
	if r.fenced == nil && (state.Epoch > r.epoch || state.Epoch == r.epoch &&
		state.Writer != r.writer) {
		r.fenced = fmt.Errorf("restart this agent to take Nginx over again: agent %s took it over "+
			"in term %d: %w", state.Writer, state.Epoch, ErrFenced)
		r.cfg.Logger.Warn("fenced", "err", r.fenced)
		r.update(func(s *Status) { s.Fenced = r.fenced.Error() })
	}
	return r.fenced
}

// push brings Nginx to the rows that it should have, and to this agent's term.
func (r *runner) push(ctx context.Context, state DriverState) (DriverState, error) {
	agreed := r.table.agree(state.Applied)
	if agreed && state.Epoch == r.epoch {
		return state, nil
	}
	delta := Delta{From: state.Applied, To: state.Applied} // takes the term only
	if !agreed {
		delta = r.table.delta(state.Applied)
	}
	delta.Epoch, delta.Writer = r.epoch, r.writer
	r.update(func(s *Status) { s.Desired = delta.To })
	start := r.cfg.Now()
	err := r.cfg.Driver.Apply(ctx, delta)
	r.cfg.Observe("apply", r.cfg.Now().Sub(start), err)
	if errors.Is(err, ErrGap) || errors.Is(err, ErrInvalid) {
		r.table.base = Generation{} // all rows with the next try
	}
	if err != nil {
		return state, err
	}
	if !agreed {
		r.table.accepted()
		r.pushed = r.cfg.Now()
		r.update(func(s *Status) { s.Pushes++ })
	}
	return r.state(ctx)
}

// save writes the state file. An error is no reason to push or to wait: the routes are served.
func (r *runner) save(g Generation) {
	if r.cfg.StateFile == "" || r.saved == g {
		if r.cfg.StateFile != "" {
			r.update(func(s *Status) { s.Saved, s.SavedRevision = g, r.table.revision })
		}
		return
	}
	start := r.cfg.Now()
	r.buf = r.table.appendText(r.buf[:0])
	err := writeState(r.cfg.StateFile, r.buf)
	r.cfg.Observe("save", r.cfg.Now().Sub(start), err)
	if err != nil {
		err = fmt.Errorf("state file: %w", err)
		r.warn("the routes would not survive a restart of Nginx", err, r.cfg.CheckEvery)
		r.update(func(s *Status) { s.SaveError = err.Error() })
		return
	}
	r.saved = g
	r.update(func(s *Status) { s.Saved, s.SavedRevision, s.SaveError = g, r.table.revision, "" })
}

// state asks the driver.
func (r *runner) state(ctx context.Context) (DriverState, error) {
	start := r.cfg.Now()
	state, err := r.cfg.Driver.State(ctx)
	r.cfg.Observe("state", r.cfg.Now().Sub(start), err)
	return state, err
}
