package audit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// Repair calls the Repairers among the views for their findings in the report: the leases are
// right. It leaves a view that the report holds as it is, which is a *HeldError, unless allow has
// the view's name with Hold.Changes or more: the number shows that the person has seen how large
// the change is. Nil allows nothing. It passes over a finding that is not true any more: the lease
// has changed, by the word of the store when it is shared, or the address is not the allocator's.
// Findings of other views, OutOfPool and Lost need a person: a lease that the store has lost may be
// live yet. It returns how many findings it repaired, and all errors joined. It stops when ctx is
// done, with context.Cause(ctx).
func (a *Auditor) Repair(
	ctx context.Context, report Report, allow map[string]int,
) (repaired int, err error) {
	defer a.observed("repair", a.cfg.Now(), &err)
	repairers := map[string]Repairer{}
	for i, v := range a.cfg.Views {
		if r, ok := v.(Repairer); ok {
			repairers[a.names[i]] = r
		}
	}
	var errs []error
	for _, h := range report.Held {
		if allow[h.View] < h.Changes {
			errs = append(errs, fmt.Errorf("repair: %w", &HeldError{h}))
			delete(repairers, h.View)
		}
	}
	for _, f := range report.Findings {
		r := repairers[f.View]
		if r == nil || f.Kind == Lost {
			continue
		}
		if ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("repair: %w", context.Cause(ctx)))
			break
		}
		stands, err := a.stillTrue(ctx, report.At, f)
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
func (a *Auditor) stillTrue(ctx context.Context, at time.Time, f Finding) (bool, error) {
	now, err := a.cfg.Leases.Holder(ctx, f.Addr)
	switch {
	case errors.Is(err, vip.ErrNotFound):
		return f.Lease == nil && a.owns(f.Addr) && !a.isLost(f.Addr, at), nil
	case err != nil:
		return false, err
	case f.Lease == nil:
		return false, nil
	}
	same := now.ID == f.Lease.ID && a.inScope(now.Pool)
	return same && bound(&now) == bound(f.Lease), nil
}

// isLost reports whether the store has lost a lease of addr that was live at the given time.
func (a *Auditor) isLost(addr netip.Addr, at time.Time) bool {
	return slices.ContainsFunc(a.cfg.Leases.Lost(), func(l vip.Lease) bool {
		return l.Addr == addr.Unmap() && liveWhenLost(&l, at)
	})
}
