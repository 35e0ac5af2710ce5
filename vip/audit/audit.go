package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// View is an outside system's view of which addresses are in use: the Nginx routes, the LVS tables,
// a registry.
type View interface {
	// Name names the view in reports. It is not empty, and no other view of the auditor has it.
	Name() string
	// Observe returns one Observation for each address that the outside system uses, addresses that
	// are not the allocator's included. It returns context.Cause(ctx) when ctx is done.
	Observe(ctx context.Context) ([]Observation, error)
}

// Repairer is a View of a system that can be changed.
type Repairer interface {
	View
	// Repair makes the outside system agree with f.Lease, or stop using f.Addr when f.Lease is nil.
	// To repair twice is to repair once.
	Repair(ctx context.Context, f Finding) error
}

// Observation is one address as a view has it. A field that the view does not know stays zero and
// is not compared. An IPv4 address in IPv6 form is the IPv4 address.
type Observation struct {
	Addr      netip.Addr
	Task      string
	Instances []netip.AddrPort // nil: not known; empty: none
}

// Kind says in which way a view and the leases differ.
type Kind string

// The kinds of findings.
const (
	NotLeased      Kind = "not leased"      // the view uses an address without a live lease
	NotServed      Kind = "not served"      // the view does not have the address of a live lease
	OtherTask      Kind = "other task"      // the view uses the address for another task
	OtherInstances Kind = "other instances" // the view leads to other instances than are bound
	OutOfPool      Kind = "out of pool"     // no pool contains the address of a live lease any more
	// the view uses the address for a live lease that the store has lost: see vip.Allocator.Lost
	Lost Kind = "lost"
)

// Finding is one difference.
type Finding struct {
	View string     `json:"view,omitempty"` // empty: the leases contradict the pools
	Kind Kind       `json:"kind"`
	Addr netip.Addr `json:"addr"`
	// the live lease of the address; nil when there is none
	Lease  *vip.Lease `json:"lease,omitempty"`
	Detail string     `json:"detail"`
}

// Report is the result of Auditor.Check.
type Report struct {
	At       time.Time `json:"at"`
	Leases   int       `json:"leases"` // how many were compared
	Findings []Finding `json:"findings"`
	// by view: addresses that are not the allocator's to judge
	Foreign map[string]int `json:"foreign,omitempty"`
	// views that Repair leaves as they are, by name
	Held []Hold `json:"held,omitempty"`
	// why a view could not be observed, by name
	Failed map[string]string `json:"failed,omitempty"`
}

// Config configures an Auditor. Leases is required.
type Config struct {
	// Leases is the allocator whose leases are right.
	Leases *vip.Allocator
	// Views are compared with the leases, each with another name. The default is none.
	Views []View
	// Pools limits the comparison to the addresses of the pools with these names, which Leases has
	// when New is called. The default is all pools of Leases.
	Pools []string
	// MaxShare is the share, above 0 up to 1, of the addresses of a view, and of the leases, that
	// Repair may change at once: see Hold. 1 is no limit. The default is DefaultMaxShare.
	MaxShare float64
	// AtLeast is how many addresses Repair may change in any case. The default is DefaultAtLeast.
	AtLeast int
	// Now is the clock of Observe. The default is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of every Check ("audit") and Repair ("repair") with
	// how long it took and its error. It is called without locks held and must not block. The
	// default is none.
	Observe func(op string, took time.Duration, err error)
}

// Auditor compares the leases of an allocator with views. It keeps no state, and is safe for
// concurrent use.
type Auditor struct {
	cfg   Config
	names []string // of the views
	limit limit
}

// New returns an auditor. The error is vip.ErrInvalid and names every bad field.
func New(cfg Config) (*Auditor, error) {
	a := &Auditor{cfg: cfg}
	var errs []error
	if cfg.Leases == nil {
		errs = append(errs, fmt.Errorf("audit: Config.Leases: required: %w", vip.ErrInvalid))
	}
	var err error
	if a.names, err = namesOf(cfg.Views); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, scope(cfg.Pools).problems("audit: Config", cfg.Leases))
	errs = append(errs, limitProblems("audit: Config", cfg.MaxShare, cfg.AtLeast)...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	a.limit = limit{cmp.Or(cfg.MaxShare, DefaultMaxShare), cmp.Or(cfg.AtLeast, DefaultAtLeast)}
	if a.cfg.Now == nil {
		a.cfg.Now = time.Now
	}
	return a, nil
}

// namesOf asks each view for its name, once.
func namesOf(views []View) ([]string, error) {
	names := make([]string, len(views))
	var errs []error
	for i, v := range views {
		if v == nil {
			errs = append(errs, fmt.Errorf("audit: Config.Views: view %d of %d: nil: %w", i+1,
				len(views), vip.ErrInvalid))
			continue
		}
		switch names[i] = v.Name(); {
		case names[i] == "":
			errs = append(errs, fmt.Errorf("audit: Config.Views: view %d of %d: the name is "+
				"empty: %w",
				i+1, len(views), vip.ErrInvalid))
		case slices.Contains(names[:i], names[i]):
			errs = append(errs, fmt.Errorf("audit: Config.Views: view %q: another view has this "+
				"name: %w",
				names[i], vip.ErrInvalid))
		}
	}
	return names, errors.Join(errs...)
}

// owns reports whether addr is the allocator's, and in scope.
func (a *Auditor) owns(addr netip.Addr) bool {
	pool, owned := a.cfg.Leases.Owns(addr)
	return owned && a.inScope(pool)
}

func (a *Auditor) inScope(pool string) bool { return scope(a.cfg.Pools).has(pool) }

// observed calls Config.Observe; the calls that it reports defer it.
func (a *Auditor) observed(op string, start time.Time, err *error) {
	if a.cfg.Observe != nil {
		a.cfg.Observe(op, a.cfg.Now().Sub(start), *err)
	}
}
