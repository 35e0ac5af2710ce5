package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// Share is a part of a target's requests, in millionths: 1 % is 10,000.
type Share int

// All is the whole of a target's requests.
const All Share = 1e6

// String returns the share in percent, such as "5 %".
func (s Share) String() string { return fmt.Sprintf("%v %%", float64(s)/1e4) }

// Switch sends a share of a target's requests, or of its users, to its new version, and the rest to
// the one before. rollouttest.Run holds an implementation to this contract. Both methods are safe
// for concurrent use; a call whose ctx has ended, or ends, returns an error that wraps the
// context's cause.
type Switch interface {
	// Set returns nil once the share is in force at every proxy. It is idempotent.
	Set(ctx context.Context, target promote.Target, share Share) error
	// Get returns the share that was set last, 0 where none was: it survives a crash as the routes
	// do.
	Get(ctx context.Context, target promote.Target) (Share, error)
}

// Passed is the state of a grey release that StepsConfig.Check judges.
type Passed struct {
	Target     promote.Target
	Generation uint64
	// Share is in force since Since.
	Share Share
	Since time.Time
}

// StepsConfig configures [Steps]. Switch is required.
type StepsConfig struct {
	// Switch moves the share. It must not be nil.
	Switch Switch
	// Shares are the steps, growing, the last one All. The default is 1 %, 5 %, 20 % and 100 %.
	Shares []Share
	// Pause is the time between a share that is in force and its Check. The default is none.
	Pause time.Duration
	// Check, when set, is called at the end of each step, the last one, too. It may compare the
	// errors and latencies of the version with those of the one before, or wait for a person. Its
	// error sends the share back. The default is none.
	Check func(ctx context.Context, p Passed) error
	// Limit bounds each change of the share, and the way back as a whole. The default is 1 minute.
	Limit time.Duration
	// Events, Logger and Now are as in Config.
	Events func(Event)
	Logger *slog.Logger
	Now    func() time.Time
}

func (c StepsConfig) validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("rollout: StepsConfig.%s: %s: %w", field,
			fmt.Sprintf(format, args...), promote.ErrInvalid))
	}
	if c.Switch == nil {
		bad("Switch", "nil: want a switch")
	}
	var before Share
	for n, share := range c.Shares {
		if share <= before {
			bad("Shares", "%s as number %d: want more than %s", share, n+1, before)
		}
		before = share
	}
	if len(c.Shares) > 0 && before != All {
		bad("Shares", "%s is the last: want %s", before, All)
	}
	if c.Pause < 0 {
		bad("Pause", "%s: want 0 (default none) or more", c.Pause)
	}
	if c.Limit < 0 {
		bad("Limit", "%s: want 0 (default %s) or more", c.Limit, defaultLimit)
	}
	return errors.Join(errs...)
}

const defaultLimit = time.Minute

// Steps is a grey release: it gives a target's new version a growing share of the requests, and
// takes it back at the first step that does not pass. It is safe for concurrent use on different
// targets.
type Steps struct{ cfg StepsConfig }

// NewSteps returns Steps, or every problem of cfg at once, each wrapping promote.ErrInvalid and
// naming its field.
func NewSteps(cfg StepsConfig) (*Steps, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if len(cfg.Shares) == 0 {
		cfg.Shares = []Share{All / 100, All / 20, All / 5, All}
	}
	cfg.Limit = cmp.Or(cfg.Limit, defaultLimit)
	if cfg.Events == nil {
		cfg.Events = func(Event) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Steps{cfg}, nil
}

// StepError says which step of a grey release did not pass, and why.
type StepError struct {
	Target promote.Target
	Share  Share
	// Err is the error of the switch or of the check, or the cause of the context.
	Err error
	// Back is nil when the way back is in force at every proxy; otherwise the share that is in
	// force is uncertain.
	Back error
}

func (e *StepError) Error() string {
	text := fmt.Sprintf("grey release to %s: the step of %s did not pass: %v", e.Target, e.Share,
		e.Err)
	if e.Back != nil {
		text += fmt.Sprintf("; the way back failed, the share is uncertain: %v", e.Back)
	}
	return text
}

// Unwrap returns Err and Back.
func (e *StepError) Unwrap() []error {
	if e.Back == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Back}
}

// Run goes through the steps and returns nil when the last one has passed. After a crash the next
// call begins with the step whose share is in force: its time and its check come again. When a step
// does not pass, or ctx ends, the share goes back to 0, also when ctx has ended, and the error is a
// *StepError.
func (s *Steps) Run(ctx context.Context, target promote.Target, generation uint64) error {
	if ctx.Err() != nil {
		return fmt.Errorf("grey release to %s: %w", target, context.Cause(ctx))
	}
	now, err := s.cfg.Switch.Get(ctx, target)
	if err != nil {
		return fmt.Errorf("grey release to %s: %w", target, withCause(ctx, err))
	}
	for _, share := range s.cfg.Shares {
		if share < now {
			continue
		}
		if err := s.step(ctx, target, generation, share); err != nil {
			return s.back(ctx, target, generation, share, err)
		}
	}
	return nil
}

// Back takes the share back to 0 and returns nil once that is in force at every proxy.
func (s *Steps) Back(ctx context.Context, target promote.Target) error {
	if err := s.set(ctx, target, 0); err != nil {
		return fmt.Errorf("grey release to %s: way back: %w", target, err)
	}
	return nil
}

func (s *Steps) step(ctx context.Context, target promote.Target, generation uint64,
	share Share) error {
	if err := s.set(ctx, target, share); err != nil {
		return err
	}
	since := s.cfg.Now()
	s.event(ctx, target, generation, EventSwitched, share, nil)
	if s.cfg.Pause > 0 {
		select {
		case <-time.After(s.cfg.Pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if s.cfg.Check == nil {
		return nil
	}
	err := s.cfg.Check(ctx, Passed{Target: target, Generation: generation, Share: share,
		Since: since})
	if err != nil {
		return withCause(ctx, err)
	}
	s.event(ctx, target, generation, EventChecked, share, nil)
	return nil
}

func (s *Steps) set(ctx context.Context, target promote.Target, share Share) error {
	ctx, cancel := within(ctx, s.cfg.Limit, "the switch to "+share.String())
	defer cancel()
	return withCause(ctx, s.cfg.Switch.Set(ctx, target, share))
}

func (s *Steps) back(ctx context.Context, target promote.Target, generation uint64, share Share,
	err error) error {
	ctx = context.WithoutCancel(ctx)
	s.event(ctx, target, generation, EventBack, share, err)
	failed := &StepError{Target: target, Share: share, Err: err, Back: s.set(ctx, target, 0)}
	if failed.Back == nil {
		s.event(ctx, target, generation, EventSwitched, 0, nil)
	}
	return failed
}

func (s *Steps) event(ctx context.Context, target promote.Target, generation uint64,
	kind EventKind, share Share, err error) {
	e := Event{Time: s.cfg.Now().UTC(), Target: target, Generation: generation, Kind: kind,
		Detail: share.String()}
	if err != nil {
		e.Error = err.Error()
	}
	s.cfg.Events(e)
	e.log(ctx, s.cfg.Logger)
}
