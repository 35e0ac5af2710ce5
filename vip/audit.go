package vip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Truth is something outside that knows which addresses are in use: the Nginx routes, the LVS tables, a registry.
type Truth interface {
	// Name of the truth, for reports; not empty, and of no other truth of the call.
	Name() string
	// Observe returns what it has, one Observation for each address.
	Observe(ctx context.Context) ([]Observation, error)
}

// Repairer is a Truth that can be put right.
type Repairer interface {
	Truth
	// Repair makes the truth agree with f.Lease, or forget f.Addr when nobody holds it.
	Repair(ctx context.Context, f Finding) error
}

// Observation is one address as a truth knows it. What the truth does not know stays zero and is not compared. An IPv4
// address in IPv6 form is the IPv4 address.
type Observation struct {
	Addr      netip.Addr
	Task      string
	Instances []netip.AddrPort // nil: not known; empty: none
}

// FindingKind says in which way a truth and the leases differ.
type FindingKind string

// The kinds of findings.
const (
	NotLeased      FindingKind = "not leased"      // the truth uses an address that nobody holds
	NotServed      FindingKind = "not served"      // a lease lives whose address the truth does not have
	OtherTask      FindingKind = "other task"      // the truth uses the address for another task
	OtherInstances FindingKind = "other instances" // the truth leads to other instances than are bound
	OutOfPool      FindingKind = "out of pool"     // a lease lives whose address is in no pool any more
)

// Finding is one difference.
type Finding struct {
	Truth  string      `json:"truth,omitempty"` // empty: the leases contradict the pools
	Kind   FindingKind `json:"kind"`
	Addr   netip.Addr  `json:"addr"`
	Lease  *Lease      `json:"lease,omitempty"` // the live lease of the address; nil when there is none
	Detail string      `json:"detail"`
}

// Report is what an audit has found.
type Report struct {
	At       time.Time         `json:"at"`
	Leases   int               `json:"leases"` // that were compared
	Findings []Finding         `json:"findings"`
	Failed   map[string]string `json:"failed,omitempty"` // truth → why it could not be observed
}

// Audit compares the live leases with each truth. The leases are read before and after the truths, and only those that
// did not change meanwhile are compared, so what is in motion is no finding; with Config.Shared they are read from the store.
// A truth that fails stands in the report and does not hold up the others. Truths that do not have a name each of their own
// are ErrInvalid: a report could not say which is meant. Nothing is changed: see Apply.
func (a *Allocator) Audit(ctx context.Context, truths ...Truth) (Report, error) {
	names, err := namesOf(truths)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	report := Report{At: a.cfg.Now().Round(0).UTC(), Failed: map[string]string{}}
	_, before, err := a.held(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	seen := make([][]Observation, len(truths))
	for i, t := range truths {
		found, err := t.Observe(ctx)
		if err := ctx.Err(); err != nil {
			return Report{}, fmt.Errorf("audit: %w", err)
		}
		if err != nil {
			report.Failed[names[i]] = err.Error()
		}
		seen[i] = found
	}
	leases, after, err := a.held(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	steady := func(addr netip.Addr) bool { return before[addr] == after[addr] }
	report.Leases = len(leases)
	for i, name := range names {
		if _, failed := report.Failed[name]; !failed {
			report.Findings = append(report.Findings, compare(name, seen[i], leases, steady)...)
		}
	}
	for addr, h := range leases {
		if h.gone {
			report.Findings = append(report.Findings, Finding{Kind: OutOfPool, Addr: addr, Lease: &h.lease, Detail: fmt.Sprintf("pool %q does not have it any more", h.lease.Pool)})
		}
	}
	slices.SortStableFunc(report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Truth, b.Truth), a.Addr.Compare(b.Addr), cmp.Compare(a.Kind, b.Kind))
	})
	return report, nil
}

// namesOf asks each truth for its name, once.
func namesOf(truths []Truth) ([]string, error) {
	names := make([]string, len(truths))
	var errs []error
	for i, t := range truths {
		switch names[i] = t.Name(); {
		case names[i] == "":
			errs = append(errs, fmt.Errorf("truth %d of %d: %w: it has no name", i+1, len(truths), ErrInvalid))
		case slices.Contains(names[:i], names[i]):
			errs = append(errs, fmt.Errorf("truth %q: %w: another truth has this name", names[i], ErrInvalid))
		}
	}
	return names, errors.Join(errs...)
}

type heldLease struct {
	lease Lease
	gone  bool // its pool is
}

// held returns the live leases, and the revision of every address, as they are now for all allocators.
func (a *Allocator) held(ctx context.Context) (map[netip.Addr]heldLease, map[netip.Addr]uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.refresh(ctx, 0); err != nil {
		return nil, nil, fmt.Errorf("read leases: %w", err)
	}
	a.x.advance(a.cfg.Now())
	held, revs := map[netip.Addr]heldLease{}, map[netip.Addr]uint64{}
	for addr, e := range a.x.entries {
		revs[addr] = e.rev
		if e.state == Leased {
			held[addr] = heldLease{e.shown(), e.pool.gone}
		}
	}
	return held, revs, nil
}

// compare lists the differences between one truth and the leases.
func compare(truth string, found []Observation, held map[netip.Addr]heldLease, steady func(netip.Addr) bool) []Finding {
	var findings []Finding
	add := func(kind FindingKind, addr netip.Addr, lease *Lease, detail string, args ...any) {
		if steady(addr) {
			findings = append(findings, Finding{truth, kind, addr, lease, fmt.Sprintf(detail, args...)})
		}
	}
	served := map[netip.Addr]bool{}
	for _, o := range found {
		o.Addr = o.Addr.Unmap()
		served[o.Addr] = true
		h, ok := held[o.Addr]
		if !ok {
			add(NotLeased, o.Addr, nil, "used for task %q, nobody holds it", o.Task)
			continue
		}
		if o.Task != "" && o.Task != h.lease.Owner.Task {
			add(OtherTask, o.Addr, &h.lease, "used for task %q, held by task %q", o.Task, h.lease.Owner.Task)
		}
		if o.Instances == nil {
			continue
		}
		if have, want := addrPorts(o.Instances), h.lease.instances(); have != want {
			add(OtherInstances, o.Addr, &h.lease, "leads to [%s], bound are [%s]", have, want)
		}
	}
	for _, addr := range slices.SortedFunc(maps.Keys(held), netip.Addr.Compare) {
		if h := held[addr]; !served[addr] {
			add(NotServed, addr, &h.lease, "held by task %q, and not known", h.lease.Owner.Task)
		}
	}
	return findings
}

func (l *Lease) instances() string {
	var all []netip.AddrPort
	for _, i := range l.Binding.Instances {
		all = append(all, i.Addr)
	}
	return addrPorts(all)
}

func addrPorts(all []netip.AddrPort) string {
	sorted := make([]netip.AddrPort, len(all))
	for i, a := range all {
		sorted[i] = unmapped(a)
	}
	slices.SortFunc(sorted, netip.AddrPort.Compare)
	var b strings.Builder
	for i, a := range slices.Compact(sorted) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.String())
	}
	return b.String()
}

// unmapped is a with its IPv4 address if that is in IPv6 form.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Apply puts the truths right that are Repairers: the leases are what holds. A finding whose lease has changed since the
// report is passed over; with Config.Shared the store is asked. Findings of other truths, and OutOfPool, are for people. Names
// are as for Audit.
func (a *Allocator) Apply(ctx context.Context, report Report, truths ...Truth) (repaired int, err error) {
	names, err := namesOf(truths)
	if err != nil {
		return 0, fmt.Errorf("apply: %w", err)
	}
	byName := map[string]Repairer{}
	for i, t := range truths {
		if r, ok := t.(Repairer); ok {
			byName[names[i]] = r
		}
	}
	var errs []error
	for _, f := range report.Findings {
		r := byName[f.Truth]
		if r == nil {
			continue
		}
		stands, err := a.stands(ctx, f)
		if stands {
			err = r.Repair(ctx, f)
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("repair %s of %s: %w", f.Addr, f.Truth, err))
		case stands:
			repaired++
		}
	}
	return repaired, errors.Join(errs...)
}

// stands says whether the lease of a finding is still the one that holds.
func (a *Allocator) stands(ctx context.Context, f Finding) (bool, error) {
	if a.cfg.Shared {
		a.mu.Lock()
		err := a.ask(ctx, f.Addr)
		a.mu.Unlock()
		if err != nil {
			return false, err
		}
	}
	now := a.List(Query{VIP: f.Addr, States: []State{Leased}})
	if f.Lease == nil || len(now) == 0 {
		return f.Lease == nil && len(now) == 0, nil
	}
	return now[0].ID == f.Lease.ID && now[0].Generation == f.Lease.Generation && now[0].instances() == f.Lease.instances(), nil
}
