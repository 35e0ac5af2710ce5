package nginxsync

import (
	"context"
	"errors"
)

// Driver puts routes into one running Nginx without a reload. drivertest.Run holds an
// implementation to the contract.
type Driver interface {
	// Apply makes r the routes in force. Nil means that Nginx has accepted all of r, not that every
	// worker answers with it. On an error either the old routes or r are in force, never a part.
	// Routes that are in force already are accepted again. A context that ends is an error with the
	// context's cause in its chain. ErrConflict: Nginx has another generation whose number is not
	// below r's. ErrTooLarge: r does not fit, and the old routes stay.
	Apply(ctx context.Context, r Routes) error
	// State reports which generation is in force and with which each worker answers. A context that
	// ends is an error with the context's cause in its chain.
	State(ctx context.Context) (DriverState, error)
}

// ErrConflict is in the chain of Apply's error when a generation that is not older is in force.
var ErrConflict = errors.New("conflict")

// ErrTooLarge is in the chain of Apply's error when the routes do not fit into the memory that
// Nginx has for them.
var ErrTooLarge = errors.New("too large")

// DriverState is the state of the routes that Nginx reports.
type DriverState struct {
	Applied Generation // zero when Nginx has no routes
	Workers []Worker   // all workers that take new requests, by slot
}

// Worker is one worker process of Nginx.
type Worker struct {
	Slot int `json:"slot"`
	// 0 when it has not reported yet
	PID int `json:"pid"`
	// the generation that it answers with; zero when it has not reported yet
	Applied Generation `json:"applied"`
	// transform.Result.ID of the configuration that it runs on
	Tree string `json:"tree"`
}

// Runs reports whether every worker runs on the tree.
func (s DriverState) Runs(tree string) bool {
	for _, w := range s.Workers {
		if w.Tree != tree {
			return false
		}
	}
	return len(s.Workers) > 0
}

// Verified reports whether g is in force and every worker answers with it.
func (s DriverState) Verified(g Generation) bool {
	if s.Applied != g || len(s.Workers) == 0 {
		return false
	}
	for _, w := range s.Workers {
		if w.Applied != g {
			return false
		}
	}
	return true
}
