package builds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
)

// Config configures a [Builds]. Journal and Logs are required; Owners, Owner and Engine, too, in a
// process that calls Run.
type Config struct {
	Journal Journal
	Logs    Logs
	Owners  Owners
	// Owner names this process among the processes that share the journal: 1 to 63 letters, digits,
	// ".", "_" and "-". A process that starts again under the same name takes its builds up at
	// once.
	Owner string
	// Engine carries builds out.
	Engine builder.Engine
	// Context returns the build context of an order. It gives up when ctx ends. An error that is a
	// builder.Failure is taken as it is; one that wraps builder.ErrInvalid is the order's; others
	// are worth another try. FetchFrom makes one that fetches Order.Source. The default is an empty
	// context, and refuses an order with a Source.
	Context func(ctx context.Context, r ContextRequest) (Context, error)
	// Secrets returns the value of a secret. The default knows none.
	Secrets func(ctx context.Context, name string) (string, error)
	// Builders is how many builds Run carries out at a time. The default is 2.
	Builders int
	// MaxLog is how many bytes of a build's log are kept. The default is 64 MiB.
	MaxLog int64
	// KeepEnded is how many ended builds are kept; when there are a tenth more, Run forgets the
	// oldest, with their logs, and their ids are free again. The default is 10,000.
	KeepEnded int
	// KeepFor is how long an ended build is kept at most. The default is without limit.
	KeepFor time.Duration
	// Poll is how often a reader of a log that grows, and Run for owners that have died, looks
	// again. The default is 200 ms.
	Poll time.Duration
	// Logger gets the actions of Run. The default discards it.
	Logger *slog.Logger
	// Now is the clock of entries. The default is time.Now.
	Now func() time.Time
	// Observe gets each call of Submit, Cancel and Log and of each attempt ("attempt"). The
	// default is none.
	Observe func(op string, took time.Duration, err error)
}

const (
	defaultBuilders = 2
	defaultMaxLog   = 64 << 20
	defaultKeep     = 10_000
	defaultPoll     = 200 * time.Millisecond
	logPage         = 256 << 10 // bytes that one Log returns at most
)

func (c Config) validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("builds: Config.%s: %s: %w", field, fmt.Sprintf(format,
			args...), builder.ErrInvalid))
	}
	if c.Journal == nil {
		bad("Journal", "is nil: want one, filestore's or NewMemory's")
	}
	if c.Logs == nil {
		bad("Logs", "is nil: want one, filestore's or NewMemory's")
	}
	if c.Owner != "" {
		if err := names.Task(c.Owner); err != nil {
			bad("Owner", "%v", err)
		}
	}
	if c.Builders < 0 {
		bad("Builders", "%d: want 0 (default %d) or more", c.Builders, defaultBuilders)
	}
	if c.MaxLog < 0 {
		bad("MaxLog", "%d: want 0 (default %d) or more", c.MaxLog, defaultMaxLog)
	}
	if c.KeepEnded < 0 {
		bad("KeepEnded", "%d: want 0 (default %d) or more", c.KeepEnded, defaultKeep)
	}
	if c.KeepFor < 0 {
		bad("KeepFor", "%s: want 0 (no limit) or more", c.KeepFor)
	}
	if c.Poll < 0 {
		bad("Poll", "%s: want 0 (default %s) or more", c.Poll, defaultPoll)
	}
	return errors.Join(errs...)
}

// Builds submits, follows, cancels and carries out the builds of a journal. All methods are safe
// for concurrent use.
type Builds struct {
	config Config

	reading chan struct{} // held by the one that reads the journal
	mu      sync.Mutex
	state   *state

	looked time.Time // by Run, for builds that are too old
	tidied uint64    // by Run: Seq of the Forgotten entry whose builds are removed

	working sync.Mutex
	work    map[uint64]context.CancelCauseFunc // of the attempts of this process
}

// New returns the builds of a journal, or every problem of cfg at once. It does no I/O.
func New(cfg Config) (*Builds, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Builders == 0 {
		cfg.Builders = defaultBuilders
	}
	if cfg.MaxLog == 0 {
		cfg.MaxLog = defaultMaxLog
	}
	if cfg.KeepEnded == 0 {
		cfg.KeepEnded = defaultKeep
	}
	if cfg.Poll == 0 {
		cfg.Poll = defaultPoll
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Context == nil {
		cfg.Context = noContext
	}
	if cfg.Secrets == nil {
		cfg.Secrets = noSecret
	}
	return &Builds{config: cfg, state: newState(), reading: make(chan struct{}, 1),
		work: map[uint64]context.CancelCauseFunc{}}, nil
}

func noSecret(_ context.Context, name string) (string, error) {
	return "", fmt.Errorf("secret %s: this builder has no secrets: set Config.Secrets: %w", name,
		builder.ErrInvalid)
}

func (b *Builds) observed(op string, err *error) func() {
	if b.config.Observe == nil {
		return func() {}
	}
	start := b.config.Now()
	return func() { b.config.Observe(op, b.config.Now().Sub(start), *err) }
}

// catchUp reads the journal to its end.
func (b *Builds) catchUp(ctx context.Context) error {
	select {
	case b.reading <- struct{}{}:
		defer func() { <-b.reading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		b.mu.Lock()
		after := b.state.seq
		b.mu.Unlock()
		entries, err := b.config.Journal.Read(ctx, after)
		if err != nil || len(entries) == 0 {
			return err
		}
		stale := uint64(0)
		b.mu.Lock()
		for _, e := range entries {
			if b.state.missed(e) {
				stale = e.Seq
				break
			}
			b.state.apply(e)
		}
		b.mu.Unlock()
		if stale == 0 {
			continue
		}
		fresh, err := b.reread(ctx, stale)
		if err != nil {
			return err
		}
		b.mu.Lock()
		b.state = fresh
		b.mu.Unlock()
	}
}

// record appends the entry that decide returns for the present state of the journal.
func (b *Builds) record(ctx context.Context, decide func(*state) (Entry, bool, error)) (Entry, bool,
	error) {
	for {
		if err := b.catchUp(ctx); err != nil {
			return Entry{}, false, err
		}
		b.mu.Lock()
		after := b.state.seq
		e, ok, err := decide(b.state)
		b.mu.Unlock()
		if err != nil || !ok {
			return Entry{}, false, err
		}
		e.Seq, e.Time = after+1, b.config.Now().UTC()
		switch e.Kind {
		case Started:
			e.Attempt = e.Seq
		case Submitted:
			e.LogName = fmt.Sprintf("%s@%d", e.Build, e.Seq)
		}
		err = b.config.Journal.Append(ctx, after, e)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return Entry{}, false, err
		}
		return e, true, b.catchUp(ctx)
	}
}

// Submit accepts an order; its build waits for a process that runs. The same order again, of any
// actor, returns the build that is there, however far it is. Another order under its id is
// ErrConflict, and an order that is wrong builder.ErrInvalid. When Submit returns, the end of ctx
// changes nothing for the build.
func (b *Builds) Submit(ctx context.Context, o Order) (_ Build, err error) {
	defer b.observed("submit", &err)()
	if err := o.Validate(); err != nil {
		return Build{}, err
	}
	_, _, err = b.record(ctx, func(s *state) (Entry, bool, error) { return s.submit(o) })
	if err != nil {
		return Build{}, err
	}
	return b.now(o.ID)
}

// now returns the build as it was read last.
func (b *Builds) now(id string) (Build, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, err := b.state.find(id)
	if err != nil {
		return Build{}, err
	}
	return r.Build, nil
}

// Get returns a build, or builder.ErrNotFound. The caller changes nothing that it points to.
func (b *Builds) Get(ctx context.Context, id string) (Build, error) {
	if err := b.catchUp(ctx); err != nil {
		return Build{}, err
	}
	return b.now(id)
}

// List returns all builds in the order of their submission.
func (b *Builds) List(ctx context.Context) ([]Build, error) {
	if err := b.catchUp(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Build, 0, len(b.state.order))
	for _, r := range b.state.order {
		list = append(list, r.Build)
	}
	return list, nil
}

// Follow returns the entries of a build with a Seq above after, at least one: it waits for it,
// until ctx ends. An ended build has no more entries: then it returns none at once.
func (b *Builds) Follow(ctx context.Context, id string, after uint64) ([]Entry, error) {
	for {
		if err := b.catchUp(ctx); err != nil {
			return nil, err
		}
		b.mu.Lock()
		seq := b.state.seq
		r, err := b.state.find(id)
		var news []Entry
		ended := false
		if err == nil {
			i, _ := slices.BinarySearchFunc(r.entries, after+1, func(e Entry, seq uint64) int {
				return int(min(max(int64(e.Seq)-int64(seq), -1), 1))
			})
			news, ended = slices.Clone(r.entries[i:]), r.State.Ended()
		}
		b.mu.Unlock()
		if err != nil || len(news) > 0 || ended {
			return news, err
		}
		if err := b.config.Journal.Wait(ctx, seq); err != nil {
			return nil, err
		}
	}
}

// Wait returns the build once it has ended.
func (b *Builds) Wait(ctx context.Context, id string) (Build, error) {
	for after := uint64(0); ; {
		entries, err := b.Follow(ctx, id, after)
		if err != nil {
			return Build{}, err
		}
		if n := len(entries); n > 0 {
			after = entries[n-1].Seq
			continue
		}
		return b.now(id)
	}
}

// Cancel asks for the end of a build in the name of actor, for a reason, both required. A build
// that waits ends at once; one that runs ends when its owner has heard of it, or with success if
// the image was in the registry before. The end of a build that has ended changes nothing.
func (b *Builds) Cancel(ctx context.Context, id, actor, reason string) (_ Build, err error) {
	defer b.observed("cancel", &err)()
	if err := names.Actor(actor); err != nil {
		return Build{}, fmt.Errorf("cancel build %s: %w: %w", names.Quote(id), err,
			builder.ErrInvalid)
	}
	if err := names.Actor(reason); err != nil {
		return Build{}, fmt.Errorf("cancel build %s: reason %s: want up to %d bytes without "+
			"control characters: %w", names.Quote(id), names.Quote(reason), names.MaxActor,
			builder.ErrInvalid)
	}
	_, _, err = b.record(ctx, func(s *state) (Entry, bool, error) {
		return s.cancel(id, actor, reason)
	})
	if err != nil {
		return Build{}, err
	}
	return b.now(id)
}

// LogPart is a part of a log.
type LogPart struct {
	Data []byte
	// Next is the offset of the byte behind Data.
	Next int64
	// Ended says that nothing follows: State is how much of the log there is.
	Ended bool
	State LogState
}

// Log returns the log of a build from an offset on, in part: it waits until there is something, or
// until the build has ended. An offset behind the end of an ended build's log is
// builder.ErrInvalid.
func (b *Builds) Log(ctx context.Context, id string, offset int64) (_ LogPart, err error) {
	defer b.observed("log", &err)()
	for {
		p, err := b.ReadLog(ctx, id, offset)
		if err != nil || p.Ended || len(p.Data) > 0 {
			return p, err
		}
		if err := pause(ctx, b.config.Poll); err != nil {
			return LogPart{}, err
		}
	}
}

// ReadLog is Log, but returns at once: a part without Data is all of the log that there is now. An
// offset behind that is builder.ErrInvalid only when the build has ended.
func (b *Builds) ReadLog(ctx context.Context, id string, offset int64) (LogPart, error) {
	if offset < 0 {
		return LogPart{}, fmt.Errorf("log of build %s: offset %d: want 0 or more: %w",
			names.Quote(id), offset, builder.ErrInvalid)
	}
	// before the log is read: the log of an ended build is all there
	if err := b.catchUp(ctx); err != nil {
		return LogPart{}, err
	}
	b.mu.Lock()
	r, err := b.state.find(id)
	var build Build
	var name string
	if err == nil {
		build, name = r.Build, r.logName
	}
	b.mu.Unlock()
	if err != nil {
		return LogPart{}, err
	}
	data, size, err := b.config.Logs.ReadLog(ctx, name, offset, logPage)
	if err != nil {
		return LogPart{}, fmt.Errorf("log of build %s: %w", id, err)
	}
	p := LogPart{Data: data, Next: offset + int64(len(data))}
	if !build.State.Ended() {
		return p, nil
	}
	if offset > size {
		return LogPart{}, fmt.Errorf("log of build %s: offset %d: it has %d bytes: %w", id, offset,
			size, builder.ErrInvalid)
	}
	p.Ended, p.State = p.Next == size, LogState{Verdict: Gap}
	if build.Log != nil {
		p.State = *build.Log
	}
	if p.State.Bytes > size { // the store lost its end
		p.State.Lost += p.State.Bytes - size
		p.State.Verdict = Gap
	}
	p.State.Bytes = size
	return p, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
