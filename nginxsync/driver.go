package nginxsync

import (
	"context"
	"errors"
	"fmt"
)

// Driver puts routes into one running Nginx without a reload. drivertest.Run holds an
// implementation to the contract.
type Driver interface {
	// Apply brings a delta into force, all of its rows at once. Nil means that Nginx has accepted
	// it, not that every worker answers with it. On an error either the routes from before or d.To
	// are in force, never a part, also when a process of Nginx ends in the middle. A delta to the
	// generation in force is accepted again. A context that ends is an error with the context's
	// cause in its chain. ErrFenced: an agent of a later term, or another of the same term, has
	// pushed. ErrConflict: Nginx has another generation whose number is not below that of d.To.
	// ErrGap: the delta is not full and Nginx has another generation than d.From. ErrTooLarge: the
	// rows do not fit; the routes from before stay; the error is a *TooLargeError where the driver
	// knows how much is missing.
	Apply(ctx context.Context, d Delta) error
	// State reports which generation is in force and with which each worker answers. A context that
	// ends is an error with the context's cause in its chain.
	State(ctx context.Context) (DriverState, error)
	// Routes reads back the routes in force, proven by their digest. The zero Routes means that
	// there is nothing. A context that ends is an error with the context's cause in its chain.
	Routes(ctx context.Context) (Routes, error)
}

var (
	// ErrConflict is in the chain of Apply's error when a generation that is not older is in force.
	ErrConflict = errors.New("conflict")
	// ErrGap is in the chain of Apply's error when the delta does not begin at the routes in force.
	ErrGap = errors.New("gap")
	// ErrFenced is in the chain of the error of an agent that another one has taken over from.
	ErrFenced = errors.New("fenced")
	// ErrTooLarge is in the chain of Apply's error when the routes do not fit into the memory that
	// Nginx has for them.
	ErrTooLarge = errors.New("too large")
)

// TooLargeError says how much memory a delta takes, in bytes.
type TooLargeError struct{ Need, Have int64 }

// Error returns both numbers.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%d bytes, %d are free: %v", e.Need, e.Have, ErrTooLarge)
}

// Is reports whether target is ErrTooLarge.
func (e *TooLargeError) Is(target error) bool { return target == ErrTooLarge }

// DriverState is the state of the routes that Nginx reports.
type DriverState struct {
	Applied Generation // zero when Nginx has no routes
	Workers []Worker   // all workers that take new requests, by slot
	// Epoch and Writer are the term and the name of the agent that pushed last; 0 and empty when
	// none had a term.
	Epoch  uint64
	Writer string
	// Memory is Nginx's memory for routes, Free the rest of it, in bytes; 0 when the driver
	// does not know.
	Memory, Free int64
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
