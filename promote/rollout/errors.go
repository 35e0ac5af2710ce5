package rollout

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sluice-deploy/sluice/promote"
)

// InstanceError says why an instance did not get ready.
type InstanceError struct {
	// ID is that of the instance.
	ID  string
	Err error
	// Lines are the last ones of its output, oldest first: a few, each cut to a readable length.
	// They hold no secret.
	Lines []string
}

func (e *InstanceError) Error() string {
	if len(e.Lines) == 0 {
		return fmt.Sprintf("instance %s: %v", e.ID, e.Err)
	}
	return fmt.Sprintf("instance %s: %v; its output ends: %s", e.ID, e.Err,
		strings.Join(e.Lines, " | "))
}

// Unwrap returns Err.
func (e *InstanceError) Unwrap() error { return e.Err }

// Reason is why a rollout stopped.
type Reason string

// The reasons.
const (
	// ReasonStart: an instance did not get ready.
	ReasonStart Reason = "start"
	// ReasonLost: an instance was ready, and was not any more before it took requests.
	ReasonLost Reason = "lost"
	// ReasonRoutes: the routes could not be verified.
	ReasonRoutes Reason = "routes"
	// ReasonStop: an instance did not end.
	ReasonStop Reason = "stop"
	// ReasonCheck: Config.Check refused to go on.
	ReasonCheck Reason = "check"
)

// StoppedError says why a rollout stopped at the first failure, and where. Instances that it had
// started and that took no requests yet have been ended; the routes stay as they are.
type StoppedError struct {
	Target     promote.Target
	Generation uint64
	Reason     Reason
	// Instance is the id of the instance that the reason is about, empty when it is about none.
	Instance string
	// Lines are the last ones of the instance's output, as in InstanceError.
	Lines []string
	// Serving and Count are how many instances of the image took requests, and how many were to.
	Serving, Count int
	Err            error
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("rollout to %s: stopped by %s with %d of %d instances serving: %v", e.Target,
		e.Reason, e.Serving, e.Count, e.Err)
}

// Unwrap returns Err.
func (e *StoppedError) Unwrap() error { return e.Err }

// UnreadableError names the targets whose records cannot be read. It comes with the result for all
// other targets.
type UnreadableError struct {
	// Targets has the zero Target for a record that does not say whose it is.
	Targets []promote.Target
	// Err says of each why.
	Err error
}

func (e *UnreadableError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *UnreadableError) Unwrap() error { return e.Err }

// Unreadable returns the *UnreadableError in err and nil, or nil and err when there is none: then
// there is no result either.
func Unreadable(err error) (*UnreadableError, error) {
	var unreadable *UnreadableError
	if errors.As(err, &unreadable) {
		return unreadable, nil
	}
	return nil, err
}
