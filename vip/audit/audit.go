package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// View is an outside system's view of which addresses are in use: the Nginx routes, the LVS tables,
// a registry.
type View interface {
	// Name names the view in reports. It is not empty, and no other view of the call has it.
	Name() string
	// Observe returns one Observation for each address that the outside system uses. It returns
	// context.Cause(ctx) when ctx is done.
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
)

// Finding is one difference.
type Finding struct {
	View   string     `json:"view,omitempty"` // empty: the leases contradict the pools
	Kind   Kind       `json:"kind"`
	Addr   netip.Addr `json:"addr"`
	Lease  *vip.Lease `json:"lease,omitempty"` // the live lease of the address; nil when there is none
	Detail string     `json:"detail"`
}

// Report is the result of Check.
type Report struct {
	At       time.Time         `json:"at"`
	Leases   int               `json:"leases"` // how many were compared
	Findings []Finding         `json:"findings"`
	Failed   map[string]string `json:"failed,omitempty"` // why a view could not be observed, by name
}

// Check compares the live leases of a with each view. It reads the leases before and after it
// observes the views, and compares only addresses whose record did not change in between, so a
// change in flight is no finding; with vip.Config.Shared it reads them from the store. A view that
// fails is listed in Report.Failed and does not hold up the others. Views without a name, or with
// the same one, are vip.ErrInvalid. When ctx is done the error is context.Cause(ctx). Check changes
// nothing: see Repair.
func Check(ctx context.Context, a *vip.Allocator, views ...View) (Report, error) {
	names, err := namesOf(views)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	if ctx.Err() != nil {
		return Report{}, fmt.Errorf("audit: %w", context.Cause(ctx))
	}
	before, err := a.Snapshot(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	report := Report{At: before.At, Findings: []Finding{}, Failed: map[string]string{}}
	seen := make([][]Observation, len(views))
	for i, v := range views {
		found, err := v.Observe(ctx)
		if ctx.Err() != nil {
			return Report{}, fmt.Errorf("audit: %w", context.Cause(ctx))
		}
		if err != nil {
			report.Failed[names[i]] = err.Error()
		}
		seen[i] = found
	}
	after, err := a.Snapshot(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	report.Leases = len(after.Leases)
	c := newComparison(before, after)
	for i, name := range names {
		if _, failed := report.Failed[name]; !failed {
			c.compare(name, seen[i])
		}
	}
	for i := range after.Leases {
		if l := &after.Leases[i]; after.OutOfPool(l.Addr) {
			detail := fmt.Sprintf("pool %q does not have it any more", l.Pool)
			c.findings = append(c.findings, Finding{Kind: OutOfPool, Addr: l.Addr, Lease: l, Detail: detail})
		}
	}
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.View, b.View), a.Addr.Compare(b.Addr), cmp.Compare(a.Kind, b.Kind))
	})
	report.Findings = append(report.Findings, c.findings...)
	return report, nil
}

// CheckNames returns vip.ErrInvalid when views have no name, or the same one: Check and Repair
// would refuse them.
func CheckNames(views ...View) error {
	_, err := namesOf(views)
	return err
}

// namesOf asks each view for its name, once.
func namesOf(views []View) ([]string, error) {
	names := make([]string, len(views))
	var errs []error
	for i, v := range views {
		switch names[i] = v.Name(); {
		case names[i] == "":
			err := fmt.Errorf("view %d of %d: the name is empty: %w", i+1, len(views), vip.ErrInvalid)
			errs = append(errs, err)
		case slices.Contains(names[:i], names[i]):
			err := fmt.Errorf("view %q: another view has this name: %w", names[i], vip.ErrInvalid)
			errs = append(errs, err)
		}
	}
	return names, errors.Join(errs...)
}

// comparison compares views with the leases of after, as far as they are the same in before.
type comparison struct {
	before, after *vip.Snapshot
	held          map[netip.Addr]*vip.Lease
	findings      []Finding
}

func newComparison(before, after *vip.Snapshot) *comparison {
	held := make(map[netip.Addr]*vip.Lease, len(after.Leases))
	c := &comparison{before: before, after: after, held: held}
	for i := range after.Leases {
		c.held[after.Leases[i].Addr] = &after.Leases[i]
	}
	return c
}

// add adds a finding unless the record of the address has changed meanwhile.
func (c *comparison) add(view string, kind Kind, addr netip.Addr, l *vip.Lease, detail string) {
	if c.before.Revision(addr) == c.after.Revision(addr) {
		c.findings = append(c.findings, Finding{view, kind, addr, l, detail})
	}
}

// compare adds the differences between one view and the leases.
func (c *comparison) compare(view string, found []Observation) {
	served := make(map[netip.Addr]bool, len(found))
	for _, o := range found {
		addr := o.Addr.Unmap()
		served[addr] = true
		l := c.held[addr]
		if l == nil {
			c.add(view, NotLeased, addr, nil, fmt.Sprintf("used for task %q, nobody holds it", o.Task))
			continue
		}
		if o.Task != "" && o.Task != l.Owner.Task {
			detail := fmt.Sprintf("used for task %q, held by task %q", o.Task, l.Owner.Task)
			c.add(view, OtherTask, addr, l, detail)
		}
		if o.Instances == nil {
			continue
		}
		if have, want := addrPorts(o.Instances), bound(l); have != want {
			detail := fmt.Sprintf("leads to [%s], bound are [%s]", have, want)
			c.add(view, OtherInstances, addr, l, detail)
		}
	}
	for i := range c.after.Leases {
		if l := &c.after.Leases[i]; !served[l.Addr] {
			detail := fmt.Sprintf("held by task %q, and not known", l.Owner.Task)
			c.add(view, NotServed, l.Addr, l, detail)
		}
	}
}

// bound lists the addresses of the bound instances as text that two leases can be compared by.
func bound(l *vip.Lease) string {
	all := make([]netip.AddrPort, len(l.Binding.Instances))
	for i := range all {
		all[i] = l.Binding.Instances[i].Addr
	}
	return addrPorts(all)
}

func addrPorts(all []netip.AddrPort) string {
	sorted := make([]netip.AddrPort, len(all))
	for i, a := range all {
		sorted[i] = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
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

// Repair calls the Repairers among the views for their findings in the report: the leases of a are
// right. It passes over a finding whose lease has changed since the report, by the store's word
// with vip.Config.Shared. Findings of other views, and OutOfPool, need a person. It returns how
// many findings it repaired, and all errors joined. It stops when ctx is done, with
// context.Cause(ctx). Names are as for Check.
func Repair(
	ctx context.Context, a *vip.Allocator, report Report, views ...View,
) (repaired int, err error) {
	names, err := namesOf(views)
	if err != nil {
		return 0, fmt.Errorf("repair: %w", err)
	}
	repairers := map[string]Repairer{}
	for i, v := range views {
		if r, ok := v.(Repairer); ok {
			repairers[names[i]] = r
		}
	}
	var errs []error
	for _, f := range report.Findings {
		r := repairers[f.View]
		if r == nil {
			continue
		}
		if ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("repair: %w", context.Cause(ctx)))
			break
		}
		stands, err := stillTrue(ctx, a, f)
		if stands {
			err = r.Repair(ctx, f)
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("repair %s of %s: %w", f.Addr, f.View, err))
		case stands:
			repaired++
		}
	}
	return repaired, errors.Join(errs...)
}

// stillTrue reports whether the live lease of the finding's address is the one of the finding.
func stillTrue(ctx context.Context, a *vip.Allocator, f Finding) (bool, error) {
	now, err := a.Holder(ctx, f.Addr)
	switch {
	case errors.Is(err, vip.ErrNotFound):
		return f.Lease == nil, nil
	case err != nil:
		return false, err
	case f.Lease == nil:
		return false, nil
	}
	same := now.ID == f.Lease.ID && now.Generation == f.Lease.Generation
	return same && bound(&now) == bound(f.Lease), nil
}
