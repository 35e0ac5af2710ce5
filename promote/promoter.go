package promote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Deployment is one digest at one target.
type Deployment struct {
	Target
	Version string `json:"version"`
	Digest  Digest `json:"digest"`
	// Repository is where the image can be pulled from.
	Repository string `json:"repository"`
	// Generation is the fencing token for a Deployer. It grows with every change of the target, and
	// with every new attempt.
	Generation uint64 `json:"generation"`
	// Actor and Reason are those of the change that deployed it.
	Actor  string `json:"actor"`
	Reason string `json:"reason,omitempty"`
	// Since is when it became current. It is zero for a Deployer.
	Since time.Time `json:"since,omitzero"`
	// Doubt is not empty after a change that failed and that could not be undone: then the
	// deployment that really runs is unknown. The next change that succeeds ends it.
	Doubt string `json:"doubt,omitempty"`
}

// Image returns the reference to pull by: repository@digest.
func (d Deployment) Image() string { return d.Repository + "@" + d.Digest.String() }

// Deployer makes a target run a digest, and nothing else. Both methods are idempotent, safe for
// concurrent use on different targets, and stop when ctx ends. After a crash, and to restore the
// earlier deployment, they are called again with a higher Generation: calls with the same Target
// and Generation ask for the same thing. A call whose ctx has ended before it changes nothing, not
// even the highest Generation seen, and returns an error that wraps the context's cause.
//
// A call whose Generation is lower than the highest one seen for the target must change nothing and
// return an error that wraps ErrFenced: it comes from a caller that was taken for dead. The text of
// an error is kept in the journal, so it must hold no secret.
type Deployer interface {
	// Deploy returns nil once the target runs d.Image() and nothing older. After an error Promoter
	// asks for the earlier deployment.
	Deploy(ctx context.Context, d Deployment) error
	// Remove returns nil once nothing runs at d.Target. The other fields hold the deployment
	// that the journal expects there, and may be empty.
	Remove(ctx context.Context, d Deployment) error
}

// Promoter moves digests through the pipeline. It is safe for concurrent use; several may share a
// Journal.
type Promoter struct {
	pipeline     Pipeline
	journal      Journal
	deployer     Deployer
	gates        []Gate
	deadlines    map[string]time.Duration
	grace, retry time.Duration
	rollback     RollbackRule
	breakers     []string
	adopters     []string
	maxSkew      time.Duration
	now          func() time.Time
	log          *slog.Logger
	observe      func(op string, took time.Duration, err error)

	owner   string
	owners  Owners
	joining chan struct{}   // a mutex that can be waited for with a context; guards tenure
	tenure  context.Context // nil before the first join

	living   context.Context // of all work; ended by Close
	close    context.CancelCauseFunc
	mu       sync.Mutex         // guards works and unfollow
	works    map[ChangeID]*work // the changes that this Promoter is at work on
	unfollow context.CancelFunc // ends follow; nil while it does not run
	group    sync.WaitGroup     // of the goroutines of works

	lock      chan struct{} // a mutex that can be waited for; guards state, appending and fresh
	state     *state
	appending map[string]*pending // by cluster
	syncs     atomic.Uint64       // how many syncs have begun
	fresh     uint64              // the newest sync that has succeeded
}

// pending is an entry that this Promoter is appending. While it does, others of the same cluster
// wait; those of other clusters go on.
type pending struct {
	entry Entry
	done  chan struct{} // closed when the append has ended
	taken bool          // the state has it
	work  *work
}

// view runs f on the state at the journal's end. f must not keep its argument.
func (p *Promoter) view(ctx context.Context, f func(*state)) error {
	if err := p.acquire(ctx); err != nil {
		return err
	}
	defer p.release()
	f(p.state)
	return nil
}

// acquire takes the lock and brings the state up to the journal's end: the end as it was when
// acquire was called, or later. So callers that wait for the lock share one read of the journal.
func (p *Promoter) acquire(ctx context.Context) error {
	before := p.syncs.Load()
	select {
	case p.lock <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if p.fresh > before {
		return nil
	}
	if err := p.sync(ctx); err != nil {
		p.release()
		return err
	}
	return nil
}

func (p *Promoter) release() { <-p.lock }

// sync reads the journal up to its end. The caller holds the lock.
func (p *Promoter) sync(ctx context.Context) error {
	begun := p.syncs.Add(1)
	for {
		entries, err := p.journal.Read(ctx, p.state.at)
		if err != nil {
			return fmt.Errorf("read journal after position %d: %w", p.state.at, withCause(ctx, err))
		}
		if len(entries) == 0 {
			p.fresh = begun
			return nil
		}
		for _, e := range entries {
			p.take(e)
		}
	}
}

// take takes in an entry that is in the journal. The caller holds the lock.
func (p *Promoter) take(e Entry) {
	was := p.state.writable(e.Cluster)
	if !p.state.take(e) {
		if err := p.state.writable(e.Cluster); err != nil && was == nil {
			p.log.Error("journal", slog.Any("err", err))
		}
		return
	}
	if own := p.appending[e.Cluster]; own != nil && own.entry.Seq == e.Seq &&
		own.entry.Chain == e.Chain {
		own.taken, own.work = true, p.begin(e)
	}
	p.tell(e)
}

// commit turns the newest state into the next entry and appends it, and decides again when another
// writer was faster. It appends nothing when decide returns false or an error.
func (p *Promoter) commit(ctx context.Context, decide func(*state) (Entry, bool, error)) (Entry,
	error) {
	e, _, err := p.launch(ctx, decide)
	return e, err
}

// launch is commit that also returns the work which a Started or Resumed entry has begun.
func (p *Promoter) launch(ctx context.Context, decide func(*state) (Entry, bool, error)) (Entry,
	*work, error) {
	for {
		own, busy, err := p.propose(ctx, decide)
		switch {
		case err != nil:
			return Entry{}, nil, err
		case busy != nil:
			select {
			case <-busy:
				continue
			case <-ctx.Done():
				return Entry{}, nil, context.Cause(ctx)
			}
		case own == nil:
			return Entry{}, nil, nil
		}
		again, err := p.append(ctx, own)
		if again {
			continue
		}
		return own.entry, own.work, err
	}
}

// propose decides on the next entry. It returns nil when there is nothing to append, and a channel
// to wait for when an append of the same cluster is under way.
func (p *Promoter) propose(ctx context.Context, decide func(*state) (Entry, bool, error)) (*pending,
	<-chan struct{}, error) {
	if err := p.acquire(ctx); err != nil {
		return nil, nil, err
	}
	defer p.release()
	e, ok, err := decide(p.state)
	if err != nil || !ok {
		return nil, nil, err
	}
	if err := p.state.writable(e.Cluster); err != nil {
		return nil, nil, err
	}
	if other := p.appending[e.Cluster]; other != nil {
		return nil, other.done, nil
	}
	if err := p.complete(&e); err != nil {
		return nil, nil, err
	}
	own := &pending{entry: e, done: make(chan struct{})}
	p.appending[e.Cluster] = own
	return own, nil, nil
}

// complete sets what every entry has that is to be appended next.
func (p *Promoter) complete(e *Entry) error {
	head := p.state.head(e.Cluster)
	e.At, e.Seq, e.Time = 0, head.Seq+1, p.now().UTC().Round(0)
	if last := p.state.last; e.Time.Before(last) { // another clock is ahead of this one
		if behind := last.Sub(e.Time); behind > p.maxSkew {
			return fmt.Errorf("append to journal: the clock of this machine is %s behind the "+
				"newest entry: set it right: %w", behind, ErrClock)
		}
		e.Time = last
	}
	p.state.number(e)
	if e.Kind == Started || e.Kind == Resumed {
		e.Owner = p.owner
	}
	return e.seal(head.Chain)
}

// append appends an entry without holding the lock meanwhile. It reports whether to decide again,
// because another writer was faster.
func (p *Promoter) append(ctx context.Context, own *pending) (again bool, err error) {
	e := &own.entry
	at, err := p.journal.Append(ctx, *e)
	p.lock <- struct{}{}
	defer p.release()
	defer close(own.done)
	defer delete(p.appending, e.Cluster)
	if err == nil {
		e.At = at
		if !own.taken {
			p.takeOwn(*e)
		}
		if !own.taken {
			return false, p.state.writable(e.Cluster)
		}
		p.logEntry(ctx, *e)
		return false, nil
	}
	if !errors.Is(err, ErrConflict) {
		return false, fmt.Errorf("append to journal: %w", withCause(ctx, err))
	}
	if syncErr := p.sync(ctx); syncErr != nil {
		return false, syncErr
	}
	if p.state.head(e.Cluster).Seq >= e.Seq || p.state.writable(e.Cluster) != nil {
		return true, nil
	}
	// A journal that went back in time: trying again would never end.
	return false, fmt.Errorf("append to journal: cluster %s: it shows nothing after entry %d: was "+
		"it replaced by an older copy? Start the program again: %v: %w",
		names.Quote(e.Cluster), e.Seq-1, err, ErrSetBack)
}

// takeOwn takes in an entry that was just appended. The entries of other clusters before it may not
// have been read yet, so the state's place stays as it is.
func (p *Promoter) takeOwn(e Entry) {
	at := p.state.at
	p.take(e)
	if e.At != at+1 {
		p.state.at = at
	}
}

// start asks the gates about the change that decide wants and, when all let it pass, writes its
// Started or Adopted entry. The gates are asked outside the lock, so they are asked again when the
// facts passed to them have changed since: those gates that read such a fact. A caller that expects
// Any is held to the deployment that was current at the beginning. A request whose key an earlier
// change has gets the ID of that one, and one that has nothing to do an empty ID.
func (p *Promoter) start(ctx context.Context, q asking,
	decide func(*state, Digest) (Entry, error)) (ChangeID, *work, error) {
	if _, err := p.join(ctx); err != nil {
		return "", nil, err
	}
	ask := func(s *state) (Entry, error) {
		if e, ok, err := s.repeated(q); ok || err != nil {
			return e, err
		}
		e, err := decide(s, q.Expect)
		e.Key = q.Key
		return e, err
	}
	wanted, change, err := p.preview(ctx, ask)
	if err != nil || !wanted.begins() {
		return wanted.ID(), nil, err
	}
	if q.Op == OpAdopt {
		if err := p.mayAdopt(ctx, change); err != nil {
			return "", nil, err
		}
	}
	if q.Expect == Any {
		q.Expect = cmp.Or(change.Current, None)
	}
	var earlier *answers
	for {
		asked, err := p.ask(ctx, change, earlier)
		if err != nil {
			return "", nil, err
		}
		earlier = &asked
		note, err := p.override(q, p.refused(asked))
		if err != nil {
			return "", nil, err
		}
		started, w, err := p.launch(ctx, func(s *state) (Entry, bool, error) {
			var err error
			wanted, err = ask(s)
			if wanted.Seq == 0 {
				wanted.Note = note
			}
			change = s.change(p.pipeline, wanted)
			return wanted, err == nil && wanted.begins() && p.hold(asked, change), err
		})
		switch {
		case err != nil || started.Kind != "":
			return started.ID(), w, err
		case !wanted.begins(): // another request has done it meanwhile
			return wanted.ID(), nil, nil
		}
	}
}

func (p *Promoter) preview(ctx context.Context, decide func(*state) (Entry, error)) (e Entry,
	change Change, err error) {
	viewErr := p.view(ctx, func(s *state) {
		if e, err = decide(s); err == nil && e.begins() {
			err = s.writable(e.Cluster)
		}
		change = s.change(p.pipeline, e)
	})
	return e, change, errors.Join(viewErr, err)
}
