package viphttp

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

// Problem is the body of an error: the standard members, the code, and further members where they
// are known.
type Problem struct {
	httpproblem.Problem
	// of a conflict: the lease that the owner holds
	Lease *vip.Lease `json:"lease,omitempty"`
	// of a conflict
	Diff []vip.Difference `json:"diff,omitempty"`
	// addresses, of an exhausted pool
	Free *uint64 `json:"free,omitempty"`
	// likewise
	Cooling *uint64 `json:"cooling,omitempty"`
	// likewise
	Quarantined *uint64 `json:"quarantined,omitempty"`
	// see vip.ExhaustedError
	Soonest *time.Time `json:"soonest,omitempty"`
	// of an audit: views that were left as they are
	Held []audit.Hold `json:"held,omitempty"`
	// of an audit: findings that were repaired all the same
	Repaired *int `json:"repaired,omitempty"`
}

// rules are looked through in order: a request that waited in vain is exhausted before anything
// else.
var rules = httpproblem.Rules{
	{Err: errCrossSite, Kind: httpproblem.Forbidden},
	{Err: errToken, Kind: httpproblem.Unauthenticated},
	{Err: errMedia, Kind: httpproblem.UnsupportedFormat},
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
	{Err: audit.ErrHeld, Kind: httpproblem.Refused},
	{Err: vip.ErrUncertain, Kind: httpproblem.Uncertain},
	{Err: vip.ErrContended, Kind: httpproblem.Contended},
}

// errTooLarge is a body above maxBody.
var errTooLarge = errors.New("too large")

// A request that finds nothing free comes again after the time to the soonest free address, within
// these: an address that is released early is not found out about an hour later, and one that is
// due in a millisecond is not asked for a thousand times.
const shortestRetry, longestRetry = time.Second, 5 * time.Minute

// retryAfter is in whole seconds, rounded up.
func retryAfter(soonest, now time.Time) string {
	wait := longestRetry
	if !soonest.IsZero() {
		wait = min(max(soonest.Sub(now), shortestRetry), longestRetry)
	}
	return strconv.Itoa(int((wait + time.Second - 1) / time.Second))
}

func (h *handler) problem(w http.ResponseWriter, err error) {
	p := Problem{Problem: rules.Problem(err)}
	var conflict *vip.ConflictError
	if errors.As(err, &conflict) {
		p.Lease, p.Diff = &conflict.Lease, conflict.Diff
	}
	var unrepaired *auditError
	if errors.As(err, &unrepaired) {
		p.Held, p.Repaired = unrepaired.report.Held, &unrepaired.repaired
	}
	var full *vip.ExhaustedError
	if errors.As(err, &full) {
		if len(full.Pools) == 0 || full.Never { // waiting does not help
			p.Problem = httpproblem.New(httpproblem.Unsatisfiable, err.Error())
		} else if p.Code == httpproblem.Exhausted {
			w.Header().Set("Retry-After", retryAfter(full.Soonest, h.cfg.Now()))
		}
		p.Free, p.Cooling, p.Quarantined = &full.Free, &full.Cooling, &full.Quarantined
		if !full.Soonest.IsZero() {
			p.Soonest = &full.Soonest
		}
	}
	if p.Code == httpproblem.Unauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	httpproblem.Write(w, p)
}
