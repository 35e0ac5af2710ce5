package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluice-deploy/sluice/vip"
)

// Repair calls the Repairers among the views for their findings in the report: the leases are
// right. It leaves a view that the report holds as it is, which is a *HeldError, unless allow has
// the view's name with Hold.Changes or more: the number shows that the person has seen how large
// the change is. Nil allows nothing. It passes over a finding that is not true any more: the lease
// has changed, by the word of the store when it is shared, or the address is not the allocator's.
// Findings of other views, and OutOfPool, need a person. It returns how many findings it repaired,
// and all errors joined. It stops when ctx is done, with context.Cause(ctx).
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
		if r == nil {
			continue
		}
		if ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("repair: %w", context.Cause(ctx)))
			break
		}
		stands, err := a.stillTrue(ctx, f)
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
func (a *Auditor) stillTrue(ctx context.Context, f Finding) (bool, error) {
	now, err := a.cfg.Leases.Holder(ctx, f.Addr)
	switch {
	case errors.Is(err, vip.ErrNotFound):
		return f.Lease == nil && a.owns(f.Addr), nil
	case err != nil:
		return false, err
	case f.Lease == nil:
		return false, nil
	}
	same := now.ID == f.Lease.ID
	return same && bound(&now) == bound(f.Lease), nil
}
