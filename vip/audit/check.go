package audit

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// Check compares the live leases with each view. It reads the leases before and after it observes
// the views, and compares only addresses whose record did not change in between, so a change in
// flight is no finding; when the store is shared (vip.Shared) it reads them from there. An address
// that is not the allocator's (vip.Allocator.Owns), or of a pool out of Config.Pools, is no
// finding: it is counted in Report.Foreign. A view that fails is listed in Report.Failed and does
// not hold up the others. When ctx is done the error is context.Cause(ctx). Check changes nothing:
// see Repair.
func (a *Auditor) Check(ctx context.Context) (_ Report, err error) {
	defer a.observed("audit", a.cfg.Now(), &err)
	if ctx.Err() != nil {
		return Report{}, fmt.Errorf("audit: %w", context.Cause(ctx))
	}
	before, err := a.cfg.Leases.Snapshot(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	report := Report{
		At: before.At, Findings: []Finding{}, Foreign: map[string]int{},
		Failed: map[string]string{},
	}
	seen := make([][]Observation, len(a.cfg.Views))
	for i, v := range a.cfg.Views {
		found, err := v.Observe(ctx)
		if ctx.Err() != nil {
			return Report{}, fmt.Errorf("audit: %w", context.Cause(ctx))
		}
		if err != nil {
			report.Failed[a.names[i]] = err.Error()
		}
		seen[i] = found
	}
	after, err := a.cfg.Leases.Snapshot(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("audit: %w", err)
	}
	c := a.newComparison(before, after, a.cfg.Leases.Lost())
	report.Leases = len(c.held)
	for i, name := range a.names {
		if _, failed := report.Failed[name]; !failed {
			report.Held = append(report.Held, c.compare(name, seen[i], report.Foreign)...)
		}
	}
	c.outOfPool()
	slices.SortStableFunc(c.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.View, b.View), a.Addr.Compare(b.Addr),
			cmp.Compare(a.Kind, b.Kind))
	})
	report.Findings = append(report.Findings, c.findings...)
	slices.SortFunc(report.Held, func(a, b Hold) int { return cmp.Compare(a.View, b.View) })
	return report, nil
}

// comparison compares views with the leases of after, as far as they are the same in before.
type comparison struct {
	auditor       *Auditor
	before, after *vip.Snapshot
	held          map[netip.Addr]*vip.Lease // the live leases in scope
	lost          map[netip.Addr]vip.Lease  // live leases that the store has lost
	findings      []Finding
}

func (a *Auditor) newComparison(before, after *vip.Snapshot, lost []vip.Lease) *comparison {
	held := make(map[netip.Addr]*vip.Lease, len(after.Leases))
	for i := range after.Leases {
		if l := &after.Leases[i]; a.inScope(l.Pool) {
			held[l.Addr] = l
		}
	}
	c := &comparison{auditor: a, before: before, after: after, held: held,
		lost: map[netip.Addr]vip.Lease{}}
	for _, l := range lost {
		if liveWhenLost(&l, after.At) {
			c.lost[l.Addr] = l
		}
	}
	return c
}

// liveWhenLost reports whether a lease that the store has lost would be live at now, Config.Grace
// left out.
func liveWhenLost(l *vip.Lease, now time.Time) bool {
	return l.State == vip.Leased && (l.Expires.IsZero() || l.Expires.After(now))
}

// add adds a finding unless the record of the address has changed meanwhile.
func (c *comparison) add(view string, kind Kind, addr netip.Addr, l *vip.Lease, detail string) {
	if c.before.Revision(addr) == c.after.Revision(addr) {
		c.findings = append(c.findings, Finding{view, kind, addr, l, detail})
	}
}

// compare adds the differences between one view and the leases, counts in foreign the view's
// addresses that are not the allocator's, and returns the reasons that hold a repair of the view.
func (c *comparison) compare(view string, found []Observation, foreign map[string]int) []Hold {
	first := len(c.findings)
	served := make(map[netip.Addr]bool, len(found))
	for _, o := range found {
		addr := o.Addr.Unmap()
		l := c.held[addr]
		if l == nil && !c.auditor.owns(addr) {
			foreign[view]++
			continue
		}
		served[addr] = true
		if lost, ok := c.lost[addr]; ok && l == nil {
			c.add(view, Lost, addr, nil, fmt.Sprintf("used for task %q, and the store has lost "+
				"the lease of task %q", o.Task, lost.Owner.Task))
			continue
		}
		if l == nil {
			c.add(view, NotLeased, addr, nil, fmt.Sprintf("used for task %q, nobody holds it",
				o.Task))
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
	for _, addr := range slices.SortedFunc(maps.Keys(c.held), netip.Addr.Compare) {
		if l := c.held[addr]; !served[addr] {
			detail := fmt.Sprintf("held by task %q, and not known", l.Owner.Task)
			c.add(view, NotServed, addr, l, detail)
		}
	}
	return c.hold(view, c.findings[first:], len(served))
}

// outOfPool adds the live leases that no pool has any more.
func (c *comparison) outOfPool() {
	for addr, l := range c.held {
		if c.after.OutOfPool(addr) {
			detail := fmt.Sprintf("pool %q does not have it any more", l.Pool)
			c.findings = append(c.findings, Finding{Kind: OutOfPool, Addr: addr, Lease: l,
				Detail: detail})
		}
	}
}

// hold judges the findings of one view, which has so many rows that are the allocator's.
func (c *comparison) hold(view string, findings []Finding, rows int) []Hold {
	changed, missing := map[netip.Addr]bool{}, 0
	for _, f := range findings {
		switch f.Kind {
		case Lost: // which Repair leaves alone
		case NotServed:
			missing++
		default:
			changed[f.Addr] = true
		}
	}
	h := Hold{View: view, Changes: len(changed) + missing}
	allowed := c.auditor.limit
	switch {
	case len(changed) > 0 && c.after.Empty():
		h.Of = rows
		h.Reason = fmt.Sprintf("the store has no record of any address, and the view uses %d", rows)
	case len(changed) > allowed.of(rows):
		h.Of, h.Limit = rows, allowed.of(rows)
		h.Reason = fmt.Sprintf("%d of its %d addresses would be taken away or changed, at most "+
			"%d at once",
			len(changed), rows, h.Limit)
	case missing > allowed.of(len(c.held)):
		h.Of, h.Limit = len(c.held), allowed.of(len(c.held))
		h.Reason = fmt.Sprintf("it lacks %d of %d leases, at most %d are added at once",
			missing, len(c.held), h.Limit)
	default:
		return nil
	}
	return []Hold{h}
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
