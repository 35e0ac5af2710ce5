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

// Policy is how a target moves from one image to the next. The zero value is one instance that
// is replaced by a new one: the new one serves before the old one goes.
type Policy struct {
	// Count is how many instances serve. The default is 1.
	Count int
	// Surge is how many instances may run above Count during a rollout, those kept by Retain not
	// counted. The default is none when SurgePercent, Unavailable or UnavailablePercent is set, and
	// Count otherwise: all new instances start at once, and the requests move in one step.
	Surge int
	// SurgePercent is Surge in percent of Count, or of the count of Scale, rounded up, at most 100.
	// The default is none; it must not be set beside Surge.
	SurgePercent int
	// Unavailable is by how many instances fewer than Count may serve during a rollout. The default
	// is none.
	Unavailable int
	// UnavailablePercent is Unavailable in percent of Count, or of the count of Scale, rounded down,
	// at most 100. Where that leaves no instance that may go and none that may start above Count,
	// one may go, as in Kubernetes. The default is none; it must not be set beside Unavailable.
	UnavailablePercent int
	// Pause is the time between one batch that serves and the start of the next. The default is
	// none.
	Pause time.Duration
	// Retain is how long instances that were replaced are kept without requests, so that a restore
	// of their image only moves the routes. The default is to end them at once.
	Retain time.Duration
}

// limits returns how many instances may run above count, and how many of count may be missing.
func (p Policy) limits(count int) (surge, unavailable int) {
	if p.Surge == 0 && p.SurgePercent == 0 && p.Unavailable == 0 && p.UnavailablePercent == 0 {
		return count, 0
	}
	surge = p.Surge + count/100*p.SurgePercent + (count%100*p.SurgePercent+99)/100
	unavailable = p.Unavailable + count/100*p.UnavailablePercent +
		count%100*p.UnavailablePercent/100
	if surge == 0 && unavailable == 0 {
		return 0, 1
	}
	return surge, unavailable
}

// validate returns every problem of a policy.
func (p Policy) validate() error {
	var errs []error
	for _, f := range []struct {
		field string
		value int
	}{{"Count", p.Count}, {"Surge", p.Surge}, {"Unavailable", p.Unavailable}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("rollout: Policy.%s: %d: want 0 for the default, or "+
				"more: %w", f.field, f.value, promote.ErrInvalid))
		}
	}
	for _, f := range []struct {
		field          string
		percent, count int
	}{{"Surge", p.SurgePercent, p.Surge}, {"Unavailable", p.UnavailablePercent, p.Unavailable}} {
		if f.percent < 0 || f.percent > 100 {
			errs = append(errs, fmt.Errorf("rollout: Policy.%sPercent: %d: want 0 for the default, "+
				"or up to 100: %w", f.field, f.percent, promote.ErrInvalid))
		}
		if f.percent != 0 && f.count != 0 {
			errs = append(errs, fmt.Errorf("rollout: Policy.%sPercent: %d beside %s: %d: want one "+
				"of both: %w", f.field, f.percent, f.field, f.count, promote.ErrInvalid))
		}
	}
	for _, f := range []struct {
		field string
		value time.Duration
	}{{"Pause", p.Pause}, {"Retain", p.Retain}} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("rollout: Policy.%s: %s: want 0 for the default, or "+
				"more: %w", f.field, f.value, promote.ErrInvalid))
		}
	}
	return errors.Join(errs...)
}

// Config configures a [Rollout]. Records, Instances and Routes are required.
type Config struct {
	// Records keeps the fence and the serving instances of each target. It must not be nil.
	Records Records
	// Instances starts and stops instances. It must not be nil.
	Instances Instances
	// Routes sends requests to instances. It must not be nil.
	Routes Routes
	// Policy returns the policy of a target. It is called concurrently, and must return quickly.
	// The default, for nil, is the zero Policy for every target.
	Policy func(promote.Target) Policy
	// Progress bounds each step but the drain: the time until the instances of a batch are ready,
	// until the routes are verified, until an instance has ended. The default is 10 minutes.
	Progress time.Duration
	// Drain is how long instances that are out of the routes may finish the requests that they
	// have before they are stopped. The default is 30 s.
	Drain time.Duration
	// Check, when set, is called after each batch that serves, the last one, too. Its error stops
	// the rollout: see StoppedError. The default is none.
	Check func(ctx context.Context, b Batch) error
	// Events, when set, is called with each event, in order for each target. It is called
	// concurrently for different targets and must return quickly. The default is none.
	Events func(Event)
	// Logger receives one line for each event. The default, for nil, is to log nothing.
	Logger *slog.Logger
	// Now is the clock: of the events, and of the instances that are kept. The default is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of each Deploy, Remove, Scale, Restart, Recover and
	// Tidy with its name in lower case, and of each call of Instances and Routes, as
	// "instances.start", "instances.stop", "routes.apply" and "routes.drain". It is called
	// concurrently and must return quickly. The default is none.
	Observe func(op string, took time.Duration, err error)
}

const (
	defaultProgress = 10 * time.Minute
	defaultDrain    = 30 * time.Second
)

func (c Config) validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("rollout: Config.%s: %s: %w", field,
			fmt.Sprintf(format, args...), promote.ErrInvalid))
	}
	if c.Records == nil {
		bad("Records", "nil: want a store of records")
	}
	if c.Instances == nil {
		bad("Instances", "nil: want instances")
	}
	if c.Routes == nil {
		bad("Routes", "nil: want routes")
	}
	if c.Progress < 0 {
		bad("Progress", "%s: want 0 (default %s) or more", c.Progress, defaultProgress)
	}
	if c.Drain < 0 {
		bad("Drain", "%s: want 0 (default %s) or more", c.Drain, defaultDrain)
	}
	return errors.Join(errs...)
}

// New returns a Rollout, or every problem of cfg at once, each wrapping promote.ErrInvalid and
// naming its field. New does no I/O. Call Recover before the first change.
func New(cfg Config) (*Rollout, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.Progress = cmp.Or(cfg.Progress, defaultProgress)
	cfg.Drain = cmp.Or(cfg.Drain, defaultDrain)
	if cfg.Policy == nil {
		cfg.Policy = func(promote.Target) Policy { return Policy{} }
	}
	if cfg.Events == nil {
		cfg.Events = func(Event) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	return &Rollout{cfg: cfg, works: map[promote.Target]*work{}}, nil
}
