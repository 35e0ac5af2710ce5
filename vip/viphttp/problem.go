package viphttp

import (
	"errors"
	"net/http"
	"time"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/vip"
)

// Problem is the body of an error: the standard members, the code, and what else is known.
type Problem struct {
	httpproblem.Problem
	Lease       *vip.Lease       `json:"lease,omitempty"`       // of a conflict: the lease that the owner holds
	Diff        []vip.Difference `json:"diff,omitempty"`        // of a conflict
	Free        *uint64          `json:"free,omitempty"`        // addresses, of an exhausted pool
	Cooling     *uint64          `json:"cooling,omitempty"`     // likewise
	Quarantined *uint64          `json:"quarantined,omitempty"` // likewise
	Soonest     *time.Time       `json:"soonest,omitempty"`     // see vip.ExhaustedError
}

// rules are looked through in order: a request that waited in vain is exhausted before anything
// else.
var rules = httpproblem.Rules{
	{Err: errTooLarge, Kind: httpproblem.TooLarge},
	{Err: vip.ErrExhausted, Kind: httpproblem.Exhausted},
	{Err: vip.ErrConflict, Kind: httpproblem.Conflict},
	{Err: vip.ErrFenced, Kind: httpproblem.Fenced},
	{Err: vip.ErrNotFound, Kind: httpproblem.NotFound},
	{Err: vip.ErrTaken, Kind: httpproblem.Taken},
	{Err: vip.ErrQuota, Kind: httpproblem.Quota},
	{Err: vip.ErrQuarantineFull, Kind: httpproblem.QuarantineFull},
	{Err: vip.ErrInvalid, Kind: httpproblem.Invalid},
	{Err: vip.ErrCompacted, Kind: httpproblem.Gone},
	{Err: vip.ErrUncertain, Kind: httpproblem.Uncertain},
	{Err: vip.ErrContended, Kind: httpproblem.Contended},
}

// errTooLarge is a body above maxBody.
var errTooLarge = errors.New("too large")

func problem(w http.ResponseWriter, err error) {
	p := Problem{Problem: rules.Problem(err)}
	var conflict *vip.ConflictError
	if errors.As(err, &conflict) {
		p.Lease, p.Diff = &conflict.Lease, conflict.Diff
	}
	var full *vip.ExhaustedError
	if errors.As(err, &full) {
		if len(full.Pools) == 0 { // waiting does not help
			p.Problem = httpproblem.New(httpproblem.Unsatisfiable, err.Error())
		}
		p.Free, p.Cooling, p.Quarantined = &full.Free, &full.Cooling, &full.Quarantined
		if !full.Soonest.IsZero() {
			p.Soonest = &full.Soonest
		}
	}
	httpproblem.Write(w, p)
}
