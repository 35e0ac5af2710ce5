package audit

import (
	"errors"
	"fmt"

	"github.com/sluice-deploy/sluice/vip"
)

// Limits on the changes at once without a person's consent.
const (
	DefaultMaxShare = 0.1
	DefaultAtLeast  = 3
)

// ErrHeld is a change that was not made because it would have changed too much at once: see
// *HeldError.
var ErrHeld = errors.New("held")

// Hold is the reason why a change waits for a person. A store that is empty, old or of another
// installation, a proxy that has lost its routes, and an orchestrator that knows no task any more
// all look like a large number of findings; to act on them would wipe working entries.
type Hold struct {
	View    string `json:"view,omitempty"` // that is left as it is; empty for the leases
	Changes int    `json:"changes"`        // addresses that would be changed
	Of      int    `json:"of"`             // of so many
	Limit   int    `json:"limit"`          // that may be changed at once
	Reason  string `json:"reason"`
}

// HeldError is a Hold as an error.
type HeldError struct{ Hold Hold }

func (e *HeldError) Error() string {
	subject := "the leases"
	if e.Hold.View != "" {
		subject = fmt.Sprintf("view %q", e.Hold.View)
	}
	return fmt.Sprintf("%s: %s; look for the cause, or allow %d changes: %s",
		subject, e.Hold.Reason, e.Hold.Changes, ErrHeld)
}

// Is makes errors.Is(err, ErrHeld) true.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// limit is how much may be changed at once.
type limit struct {
	share   float64
	atLeast int
}

// of is how many of n may be changed.
func (l limit) of(n int) int { return max(l.atLeast, int(l.share*float64(n))) }

func limitProblems(config string, share float64, atLeast int) (errs []error) {
	if !(share >= 0 && share <= 1) {
		errs = append(errs, fmt.Errorf("%s.MaxShare: %v: want 0 (default %v) to 1: %w",
			config, share, DefaultMaxShare, vip.ErrInvalid))
	}
	if atLeast < 0 {
		errs = append(errs, fmt.Errorf("%s.AtLeast: %d: want 0 (default %d) or more: %w",
			config, atLeast, DefaultAtLeast, vip.ErrInvalid))
	}
	return errs
}
