package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

const (
	defaultGrace    = 15 * time.Minute
	defaultInterval = time.Minute
)

// LeakConfig configures a LeakChecker. Leases and Alive are required.
type LeakConfig struct {
	// Leases is the allocator whose leases are checked.
	Leases *vip.Allocator
	// Pools limits the check to the leases of the pools with these names, which Leases has when
	// NewLeakChecker is called, and to the leases that are in a pair with one of them. With a
	// shared store Leases lists the leases of other allocators too, whose owners Alive may not
	// know. The default is all pools of Leases.
	Pools []string
	// Alive reports whether the owner of a live lease still exists. An error means that it is not
	// known, and ends nothing. Check calls it for one lease after the other, without locks held.
	Alive func(ctx context.Context, live vip.Lease) (bool, error)
	// Grace is how long an owner must be gone before its lease is ended; negative to report only.
	// The default is 15 min.
	Grace time.Duration
	// MaxShare is the share, above 0 up to 1, of the live leases, those left out for which Alive
	// fails, whose owners may be gone at once: when Alive says so of more, Check ends none and
	// returns a *HeldError. 1 is no limit. The default is DefaultMaxShare.
	MaxShare float64
	// AtLeast is how many owners may be gone at once in any case. The default is DefaultAtLeast.
	AtLeast int
	// Interval is the time between two checks of Run. The default is 1 min.
	Interval time.Duration
	// Logger receives the errors of Run. The default discards.
	Logger *slog.Logger
	// Now is the clock. With the default, time.Now, a clock that is put forward or back does not
	// change the grace.
	Now func() time.Time
	// Observe, when set, is called at the end of every Check with "check leaks", how long it took
	// and its error. It is called without locks held and must not block. The default is none.
	Observe func(op string, took time.Duration, err error)
}

func (cfg *LeakConfig) validate() error {
	var errs []error
	if cfg.Leases == nil {
		errs = append(errs, fmt.Errorf("LeakConfig.Leases: required: %w", vip.ErrInvalid))
	}
	if cfg.Alive == nil {
		errs = append(errs, fmt.Errorf("LeakConfig.Alive: required: %w", vip.ErrInvalid))
	}
	errs = append(errs, scope(cfg.Pools).problems("LeakConfig", cfg.Leases))
	if cfg.Interval < 0 {
		errs = append(errs, fmt.Errorf("LeakConfig.Interval: %s: want 0 (default %s) or more: %w",
			cfg.Interval, defaultInterval, vip.ErrInvalid))
	}
	errs = append(errs, limitProblems("LeakConfig", cfg.MaxShare, cfg.AtLeast)...)
	return errors.Join(errs...)
}

// Leak is a live lease whose owner seems to be gone.
type Leak struct {
	Lease     vip.Lease `json:"lease"`
	Since     time.Time `json:"since"`     // when a check first found the owner gone, in UTC
	Confirmed bool      `json:"confirmed"` // the owner stayed gone, and the lease has been ended
}

// LeakChecker ends leases whose owner is gone. Its suspects are in memory only: after a restart the
// grace begins again. It is safe for concurrent use.
type LeakChecker struct {
	cfg  LeakConfig
	most limit

	mu       sync.Mutex
	suspects map[string]suspect // by lease id
	held     *Hold              // of the last check; not changed once it is here
}

type suspect struct {
	leak  Leak
	since time.Time // Leak.Since, with the reading of the monotonic clock if it has one
	asked uint32    // Snapshot.Asked when the owner was last found gone
}

// NewLeakChecker returns a checker that has checked nothing yet. The error is vip.ErrInvalid and
// names every bad field.
func NewLeakChecker(cfg LeakConfig) (*LeakChecker, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	cfg.Grace = cmp.Or(cfg.Grace, defaultGrace)
	cfg.Interval = cmp.Or(cfg.Interval, defaultInterval)
	most := limit{cmp.Or(cfg.MaxShare, DefaultMaxShare), cmp.Or(cfg.AtLeast, DefaultAtLeast)}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &LeakChecker{cfg: cfg, most: most, suspects: map[string]suspect{}}, nil
}

// Run checks at once and then every LeakConfig.Interval until ctx is done, and returns
// context.Cause(ctx). It logs the errors of a check.
func (c *LeakChecker) Run(ctx context.Context) error {
	ticker := time.NewTicker(c.cfg.Interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if _, err := c.Check(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Logger.Warn("check for leaked leases", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return context.Cause(ctx)
}

// Check asks LeakConfig.Alive about the owner of every live lease. A lease whose owner is gone
// becomes a suspect; Check ends a suspect whose owner is still gone after LeakConfig.Grace. An
// owner that is alive again, or has asked the allocator for its lease again, is no suspect any
// more. A lease that changes after Check has begun is not ended, so a renewal or a binding at the
// last moment saves it. When more owners are gone at once than LeakConfig.MaxShare, of the owners
// that Alive knows, and AtLeast allow, Check ends none of them and the error is a *HeldError: see
// CheckAllowing. Check returns the suspects by address, the ended ones included, with all errors
// joined. When ctx is done the error is context.Cause(ctx).
func (c *LeakChecker) Check(ctx context.Context) ([]Leak, error) { return c.CheckAllowing(ctx, 0) }

// CheckAllowing is Check that ends suspects although up to allowed owners are gone at once. It is
// for a person that has seen Held and knows that the owners are gone.
func (c *LeakChecker) CheckAllowing(ctx context.Context, allowed int) (leaks []Leak, err error) {
	if c.cfg.Observe != nil {
		start := c.cfg.Now()
		defer func() { c.cfg.Observe("check leaks", c.cfg.Now().Sub(start), err) }()
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("check for leaks: %w", context.Cause(ctx))
	}
	snapshot, err := c.cfg.Leases.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("check for leaks: %w", err)
	}
	var errs []error
	var due []int             // in leaks, to be ended
	gone := map[string]bool{} // leases by id, to be ended or not
	unknown := 0              // owners
	leases := scope(c.cfg.Pools).leases(snapshot.Leases)
	live := make(map[string]bool, len(leases))
	for _, l := range leases {
		live[l.ID] = true
		alive, err := c.cfg.Alive(ctx, l)
		if ctx.Err() != nil {
			return leaks, fmt.Errorf("check for leaks: %w", context.Cause(ctx))
		}
		switch {
		case err != nil: // not seen alive, and not counted as seen gone
			errs = append(errs, fmt.Errorf("owner of lease %s: %w", l.ID, err))
			unknown++
		case alive:
			c.clear(l.ID)
		default:
			gone[l.ID] = true
			leak, over := c.suspect(snapshot, l)
			if over {
				due = append(due, len(leaks))
			}
			leaks = append(leaks, leak)
		}
	}
	c.forgetAllBut(live)
	// an Alive that fails for most does not make the others a small share
	if h := c.hold(len(leaks), len(leases)-unknown, allowed); h != nil {
		errs = append(errs, fmt.Errorf("check for leaks: %w", &HeldError{*h}))
		due = nil
	}
	ended := map[string]bool{} // by id: the other lease of a pair ends with it
	for _, i := range due {
		if ctx.Err() != nil {
			return leaks, fmt.Errorf("check for leaks: %w", context.Cause(ctx))
		}
		leak := &leaks[i]
		switch peer := leak.Lease.Peer; {
		case peer != "" && !gone[peer]: // the same owner was seen alive, or is not known
		case peer != "" && ended[peer]:
			leak.Confirmed = true
		default:
			errs = append(errs, c.end(ctx, snapshot, leak))
			ended[leak.Lease.ID] = leak.Confirmed
		}
	}
	return leaks, errors.Join(errs...)
}

// hold notes, and returns, why no lease is to be ended; nil when suspects may be.
func (c *LeakChecker) hold(gone, live, allowed int) *Hold {
	var h *Hold
	if most := max(c.most.of(live), allowed); gone > most {
		h = &Hold{Changes: gone, Of: live, Limit: most, Reason: fmt.Sprintf(
			"the owners of %d of %d leases are said to be gone, at most %d at once", gone, live,
			most)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = h
	return h
}

// Held says why the last Check ended no lease although owners are gone; nil when it was free to.
func (c *LeakChecker) Held() *Hold {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

func (c *LeakChecker) clear(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.suspects, id)
}

func (c *LeakChecker) forgetAllBut(live map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.suspects {
		if !live[id] {
			delete(c.suspects, id)
		}
	}
}

// suspect notes that the owner of l is gone, and reports whether it has been for the grace.
func (c *LeakChecker) suspect(snapshot *vip.Snapshot, l vip.Lease) (_ Leak, over bool) {
	now := c.cfg.Now()
	s, first := c.note(l, snapshot.Asked(l.Addr), now)
	return s.leak, !first && c.cfg.Grace >= 0 && now.Sub(s.since) >= c.cfg.Grace
}

// end ends the lease of a suspect.
func (c *LeakChecker) end(ctx context.Context, snapshot *vip.Snapshot, leak *Leak) error {
	_, err := c.cfg.Leases.ReleaseUnchanged(ctx, snapshot, leak.Lease.Addr,
		"leaked: its owner is gone")
	switch {
	case errors.Is(err, vip.ErrConflict):
		return nil
	case err != nil:
		return fmt.Errorf("end leaked lease %s: %w", leak.Lease.ID, err)
	}
	leak.Confirmed = true
	return nil
}

// note returns the suspect for l; first is true when its owner was not known to be gone, or has
// asked for the lease since, or the clock was put back behind the moment at which it was.
func (c *LeakChecker) note(l vip.Lease, asked uint32, now time.Time) (s suspect, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, known := c.suspects[l.ID]
	if first = !known || s.asked != asked || now.Before(s.since); first {
		s = suspect{Leak{Lease: l, Since: now.Round(0).UTC()}, now, asked}
	}
	s.leak.Lease = l
	c.suspects[l.ID] = s
	return s, first
}

// Suspects lists the leases that the last Check found without an owner and that are live still, by
// address.
func (c *LeakChecker) Suspects() []Leak {
	c.mu.Lock()
	suspects := make([]Leak, 0, len(c.suspects))
	for _, s := range c.suspects {
		suspects = append(suspects, s.leak)
	}
	c.mu.Unlock()
	live := suspects[:0]
	for _, s := range suspects {
		for _, l := range c.cfg.Leases.List(vip.Query{Addr: s.Lease.Addr,
			States: []vip.State{vip.Leased}}) {
			if l.ID == s.Lease.ID {
				s.Lease = l
				live = append(live, s)
			}
		}
	}
	slices.SortFunc(live, func(a, b Leak) int { return a.Lease.Addr.Compare(b.Lease.Addr) })
	return live
}
