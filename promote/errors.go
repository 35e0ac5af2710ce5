package promote

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The sentinels that a caller branches on. The messages that wrap them name the input, the expected
// form, and the next step.
var (
	// ErrInvalid is wrapped by every error about an input that no state could ever accept.
	ErrInvalid = errors.New("invalid")
	// ErrUnbound is wrapped when a version is not bound to a digest. See Promoter.Bind.
	ErrUnbound = errors.New("not bound")
	// ErrRebound is matched by *ReboundError.
	ErrRebound = errors.New("already bound")
	// ErrConflict is matched by *ConflictError, and wrapped by a Journal whose end is not where the
	// caller believes it is.
	ErrConflict = errors.New("conflict")
	// ErrFenced is wrapped when a newer change, or a Recover, has taken over the target: the
	// outcome is no longer this caller's to decide. A Deployer wraps it to refuse a generation that
	// is older than one it has seen for the target.
	ErrFenced = errors.New("fenced")
	// ErrNotFound is wrapped when no change has the ID, no entry the cluster, or no segment the
	// name.
	ErrNotFound = errors.New("not found")
	// ErrAborted is matched by *AbortError.
	ErrAborted = errors.New("aborted")
	// ErrDeadline is wrapped when a change took longer than Config.Deadlines lets it.
	ErrDeadline = errors.New("deadline passed")
	// ErrUnavailable is wrapped by a Journal on servers that cannot be asked now, and by a Deployer
	// that could not find out or change anything, because
	// the system that it talks to does not answer: a refused connection, a time-out before the
	// request was sent, a server that says "try again". The change stays open and the deployer is
	// asked again. A request that may have had an effect is safe to repeat, too: calls are
	// idempotent.
	ErrUnavailable = errors.New("unavailable")
	// ErrClock is wrapped when the clock is behind the journal by more than Config.MaxSkew.
	ErrClock = errors.New("clock behind")
	// ErrDamaged is wrapped when an entry of the journal cannot be read, does not fit its chain, or
	// cannot follow those before it. Nothing more is written for its cluster.
	ErrDamaged = errors.New("damaged")
	// ErrNewer is wrapped when an entry needs a newer program: this one writes nothing more for its
	// cluster.
	ErrNewer = errors.New("newer program needed")
	// ErrSetBack is wrapped when the journal no longer has an entry of the cluster that this
	// program has read: an older copy of it was restored. Nothing more is written for the cluster
	// until a new Promoter has read it from the beginning.
	ErrSetBack = errors.New("set back")
	// ErrTooLarge is wrapped by a Journal that cannot hold an entry.
	ErrTooLarge = errors.New("too large")
	// ErrClosed is wrapped by the errors of operations that a Promoter refuses because of Close.
	ErrClosed = errors.New("closed")
)

// AbortError has the actor who ended a change, and the reason. A *DeployError wraps it.
type AbortError struct {
	Actor, Reason string
}

func (e *AbortError) Error() string {
	if e.Reason == "" {
		return "aborted by " + e.Actor
	}
	return "aborted by " + e.Actor + ": " + e.Reason
}

// Is matches ErrAborted.
func (e *AbortError) Is(target error) bool { return target == ErrAborted }

// ReboundError says that a version has its digest already, and that it is not the one asked for.
type ReboundError struct {
	Cluster, Version string
	Bound, Asked     Digest
	// Actor bound it, at Since.
	Actor string
	Since time.Time
}

func (e *ReboundError) Error() string {
	return fmt.Sprintf("bind %s %s to %s: it is bound to %s since %s by %s, and a version is "+
		"bound once: give the new image a new version name",
		e.Cluster, e.Version, e.Asked, e.Bound, stamp(e.Since), e.Actor)
}

// Is matches ErrRebound.
func (e *ReboundError) Is(target error) bool { return target == ErrRebound }

// ConflictError says that the target is not in the state that the caller expects: another change is
// in progress, or has ended.
type ConflictError struct {
	Target
	// InProgress is true while the other change has not ended. Then the fields below are that
	// change's, else they are those of the current deployment.
	InProgress bool
	// Op is empty when not InProgress.
	Op      Op
	Actor   string
	Version string
	// Digest is empty when nothing is current.
	Digest Digest
	Since  time.Time
	// Expect is the digest that the caller expected to be current, or None. It may be empty while
	// InProgress.
	Expect Digest
}

func (e *ConflictError) Error() string {
	switch {
	case e.InProgress && e.Op == OpRetire:
		return fmt.Sprintf("%s: %s is retiring it since %s: wait until that has ended", e.Target,
			e.Actor, stamp(e.Since))
	case e.InProgress:
		return fmt.Sprintf("%s: %s is deploying %s (%s) since %s: wait until that has ended",
			e.Target, e.Actor, e.Version, e.Digest.Short(), stamp(e.Since))
	case e.Digest == "":
		return fmt.Sprintf("%s: nothing is current, not %s as expected: look again, then ask again",
			e.Target, e.Expect.Short())
	default:
		return fmt.Sprintf("%s: current is %s (%s), deployed by %s at %s, not %s as expected: "+
			"look again, then ask again",
			e.Target, e.Version, e.Digest.Short(), e.Actor, stamp(e.Since), e.Expect.Short())
	}
}

// Is matches ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// RefusedError says that gates did not let a change pass. It holds the answer of every gate that
// did not, not of the first only.
type RefusedError struct {
	Change Change
	Gates  []GateRefusal
}

// GateRefusal is why one gate did not let a change pass.
type GateRefusal struct {
	// Gate is the gate's name.
	Gate string `json:"gate"`
	Refusal
	// Err is not nil when the gate could not decide. Then Reasons says so.
	Err error `json:"-"`
}

func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s is refused", e.Change.Op, e.Change.Target, e.Change.Version)
	for _, g := range e.Gates {
		fmt.Fprintf(&b, "; %s gate: %s", g.Gate, g.Refusal.Error())
	}
	return b.String()
}

// Unwrap returns the errors of the gates that could not decide.
func (e *RefusedError) Unwrap() []error {
	var errs []error
	for _, g := range e.Gates {
		if g.Err != nil {
			errs = append(errs, g.Err)
		}
	}
	return errs
}

// DeployError says that the deployer did not carry out a change. The earlier deployment is still
// current.
type DeployError struct {
	Op         Op
	Deployment Deployment
	// Err is the deployer's, an *AbortError, or wraps ErrDeadline. Where another process carried
	// the change out, or where it had ended before the call, only its text is left.
	Err error
	// Doubt is the reason why the earlier deployment could not be restored. It is empty after a
	// successful restore.
	Doubt string
}

func (e *DeployError) Error() string {
	s := fmt.Sprintf("%s %s %s (%s): %v", e.Op, e.Deployment.Target, e.Deployment.Version,
		e.Deployment.Digest.Short(), e.Err)
	if e.Doubt != "" {
		s += "; what runs now is uncertain: " + e.Doubt + ": deploy again, or roll back, once " +
			"the cause is gone"
	}
	return s
}

// Unwrap returns the deployer's error.
func (e *DeployError) Unwrap() error { return e.Err }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
