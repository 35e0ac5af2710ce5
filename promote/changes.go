package promote

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// ChangeID names one change: the cluster, "-", and the number of its Started entry, as in
// "hello_web-12". It fits into the path of a URL.
type ChangeID string

// ID returns the name of the change that e belongs to; empty when e is not of a change.
func (e Entry) ID() ChangeID {
	if e.Change == 0 {
		return ""
	}
	return ChangeID(e.Cluster + "-" + strconv.FormatUint(e.Change, 10))
}

// parse returns the cluster and the number in id, or an error that wraps ErrInvalid.
func (id ChangeID) parse() (cluster string, number uint64, err error) {
	at := strings.LastIndexByte(string(id), '-')
	if at > 0 {
		number, err = strconv.ParseUint(string(id[at+1:]), 10, 64)
	}
	if at <= 0 || err != nil || number == 0 {
		return "", 0, fmt.Errorf("change %s: want a cluster, - and a number, as Start returned "+
			"it: %w", names.Quote(string(id)), ErrInvalid)
	}
	return string(id[:at]), number, nil
}

// State is how far a change has come.
type State string

// The states of a change.
const (
	// Deploying is from the start until the deployer has ended.
	Deploying State = "deploying"
	// Stopping is after an abort, until the deployer has given up.
	Stopping State = "stopping"
	// PuttingBack is after a failure, until the earlier deployment is restored.
	PuttingBack State = "putting back"
	// GivingUp is after an abort while the earlier deployment was being restored.
	GivingUp State = "giving up"
	// Done is after a success.
	Done State = "done"
	// Undone is after a failure.
	Undone State = "undone"
)

// Ended reports whether a change in this state will never leave it.
func (s State) Ended() bool { return s == Done || s == Undone }

// Status is a change and how far it has come.
type Status struct {
	ID    ChangeID `json:"id"`
	State State    `json:"state"`
	Op    Op       `json:"op"`
	// Deployment is the one that the change asks for; of a retirement, the one that it ends.
	// Its Since is when the change succeeded.
	Deployment
	// Owner is the Promoter that carries it out.
	Owner   string    `json:"owner,omitempty"`
	Started time.Time `json:"started"`
	// Ended is zero while the change is under way.
	Ended time.Time `json:"ended,omitzero"`
	// Waiting is why the deployer cannot be asked now; empty when it can.
	Waiting string `json:"waiting,omitempty"`
	// Error is why the change failed or is being put back.
	Error string `json:"error,omitempty"`
	// AbortedBy and AbortReason are of the last abort.
	AbortedBy   string `json:"abortedBy,omitempty"`
	AbortReason string `json:"abortReason,omitempty"`
}

// Status returns how far a change has come. An ID that no change has is ErrNotFound.
func (p *Promoter) Status(ctx context.Context, id ChangeID) (status Status, err error) {
	cluster, number, err := id.parse()
	if err != nil {
		return Status{}, fmt.Errorf("status: %w", err)
	}
	var unknown error
	err = p.view(ctx, func(s *state) { status, unknown = s.status(cluster, number) })
	return status, errors.Join(err, unknown)
}

// status reads the change out of its cluster's entries, which are in the order of their numbers.
func (s *state) status(cluster string, number uint64) (Status, error) {
	of := s.entriesOf(cluster, number)
	if len(of) == 0 {
		return Status{}, fmt.Errorf("change %s-%d: %w", cluster, number, ErrNotFound)
	}
	now := change{Entry: of[0], state: Deploying}
	var ended Entry
	for _, e := range of[1:] {
		if e.Change != number || e.Kind == Progressed {
			continue
		}
		if e.Kind == Succeeded || e.Kind == Failed {
			ended = e
			break
		}
		now.apply(e)
	}
	status := Status{ID: of[0].ID(), State: now.state, Op: now.Op, Deployment: now.deployment(),
		Owner: now.Owner, Started: now.Time, Ended: ended.Time, Waiting: now.waiting,
		Error: now.Error}
	if now.abort != nil {
		status.AbortedBy, status.AbortReason = now.abort.Actor, now.abort.Reason
	}
	switch ended.Kind {
	case Succeeded:
		status.State, status.Since = Done, ended.Time
	case Failed:
		status.State, status.Error, status.Doubt = Undone, ended.Error, ended.Doubt
	}
	return status, nil
}

// entriesOf returns the entries of a cluster from the start of a change on; none where no change has
// the number.
func (s *state) entriesOf(cluster string, number uint64) []Entry {
	c := s.clusters[cluster]
	if c == nil {
		return nil
	}
	at := sort.Search(len(c.entries), func(i int) bool { return c.entries[i].Seq >= number })
	if of := c.entries[at:]; len(of) > 0 && of[0].Seq == number && of[0].Kind == Started {
		return of
	}
	return nil
}

// outcome returns the answer of Wait for an ended change.
func (s Status) outcome() (Deployment, error) {
	if s.State == Done && s.Op == OpRetire {
		return Deployment{}, nil
	}
	if s.State == Done {
		return s.Deployment, nil
	}
	d := s.Deployment
	d.Doubt = ""
	var abort *AbortError
	if s.AbortedBy != "" {
		abort = &AbortError{Actor: s.AbortedBy, Reason: s.AbortReason}
	}
	return Deployment{}, &DeployError{Op: s.Op, Deployment: d, Err: failureOf(s.Error, abort),
		Doubt: s.Doubt}
}

// failure is an error whose text the journal has kept, with the errors that it wrapped.
type failure struct {
	text string
	errs []error
}

func (f *failure) Error() string   { return f.text }
func (f *failure) Unwrap() []error { return f.errs }

// failureOf returns the error of a change that failed with text, after abort unless that is nil.
func failureOf(text string, abort *AbortError) error {
	f := &failure{text: text}
	if abort != nil {
		f.errs = append(f.errs, abort)
	}
	if strings.HasSuffix(text, ErrDeadline.Error()) {
		f.errs = append(f.errs, ErrDeadline)
	}
	return f
}

// Wait returns when a change has ended, whichever process carries it out: the deployment, or a
// *DeployError after the earlier deployment has been restored. It follows only: a Wait whose ctx
// ends returns the cause, and the change goes on. A retirement returns the zero Deployment. After
// Close it returns an error that wraps ErrClosed, unless the change has ended.
func (p *Promoter) Wait(ctx context.Context, id ChangeID) (_ Deployment, err error) {
	defer p.watched("wait", &err)()
	p.mu.Lock()
	w := p.works[id]
	p.mu.Unlock()
	return p.wait(ctx, id, w)
}

// wait waits for w, or follows the journal where w is nil: where another process carries the change
// out.
func (p *Promoter) wait(ctx context.Context, id ChangeID, w *work) (Deployment, error) {
	for w == nil {
		var at uint64
		var status Status
		cluster, number, err := id.parse()
		if err == nil {
			var unknown error
			err = p.view(ctx, func(s *state) {
				at = s.at
				status, unknown = s.status(cluster, number)
			})
			err = errors.Join(err, unknown)
		}
		if err != nil {
			return Deployment{}, fmt.Errorf("wait for change %s: %w", names.Quote(string(id)), err)
		}
		if status.State.Ended() {
			return status.outcome()
		}
		if err := p.grown(ctx, at); err != nil {
			return Deployment{}, fmt.Errorf("wait for change %s: %w", id, err)
		}
	}
	return w.wait(ctx)
}

// grown returns when the journal has entries after the position at, or with the cause when ctx ends
// or the Promoter is closed.
func (p *Promoter) grown(ctx context.Context, at uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.living, func() { cancel(p.isClosed()) })()
	return withCause(ctx, p.journal.Wait(ctx, at))
}

// Abort ends a change that is under way: the deployer's context ends, the earlier deployment is
// restored, and the change fails with an *AbortError. It returns when that is in the journal, and
// Wait follows. An abort of a change that is restoring the earlier deployment gives that up:
// the change ends, and what runs is uncertain (Deployment.Doubt). A second abort before the first
// one has had its effect does nothing; nor does one that comes again, by the same actor with the
// same reason: to give up the restoring after an abort, say why. One of a change that has ended is
// ErrConflict. The actor and the reason must not be empty.
func (p *Promoter) Abort(ctx context.Context, id ChangeID, actor, reason string) (err error) {
	defer p.watched("abort", &err)()
	cluster, number, err := id.parse()
	var list problems
	if err != nil {
		list = append(list, err)
	}
	list.texts(actor, reason)
	list.wanted("reason", reason, "why the change is to end")
	if err := list.err("abort"); err != nil {
		return err
	}
	_, err = p.commit(ctx, func(s *state) (Entry, bool, error) {
		status, err := s.status(cluster, number)
		if err != nil {
			return Entry{}, false, fmt.Errorf("abort: %w", err)
		}
		if status.State.Ended() {
			return Entry{}, false, fmt.Errorf("abort change %s: it has ended at %s (%s): roll "+
				"back instead: %w", id, stamp(status.Ended), status.State, ErrConflict)
		}
		return s.abort(status.Target, number, actor, reason)
	})
	return err
}

// Close ends the work of this Promoter: no change starts any more, the contexts of the deployer's
// calls end with ErrClosed, and the changes stay open in the journal for the next Recover. It
// returns when no call is at work, or with the cause when ctx ends before.
func (p *Promoter) Close(ctx context.Context) error {
	p.mu.Lock()
	p.close(fmt.Errorf("promoter: %w", ErrClosed))
	p.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		p.group.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return p.leave(ctx)
	case <-ctx.Done():
		return fmt.Errorf("close promoter: the deployer is at work: %w", context.Cause(ctx))
	}
}

// isClosed returns the error of a Promoter that is closed, or nil.
func (p *Promoter) isClosed() error { return context.Cause(p.living) }

// busy reports whether this Promoter is at work on the change.
func (p *Promoter) busy(id ChangeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.works[id] != nil
}
