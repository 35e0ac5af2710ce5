package promote

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Gate lets a change pass, or not. Promoter asks every gate before it starts a promotion or a
// rollback, concurrently for different targets, and once more when the facts that it passed to the
// gate have changed since.
//
// A gate that also has a method Validate(Pipeline) error is asked by New whether its settings fit
// the pipeline. One that has a method Reads() Reads is asked once more only when a fact that it
// reads has changed.
type Gate interface {
	// Name names the gate in answers: one or two lower-case words.
	Name() string
	// Check returns nil to let c pass and a *Refusal not to. Any other error means that the gate
	// could not decide, and the change does not pass either. A gate must not modify the
	// slices and maps of c.
	Check(ctx context.Context, c Change) error
}

// Change is the subject of a gate's decision: the requested change, and the journal's facts about
// it.
type Change struct {
	Op Op
	Target
	Version    string
	Digest     Digest
	Repository string
	// Current is the deployment at the target now; empty when there is none.
	Current Digest
	// PreviousEnvironment is the one before the target's in the pipeline; empty for the first.
	PreviousEnvironment string
	Actor, Reason       string
	// Facts are those of the request: see Request.Facts.
	Facts map[string]string
	// Time is when the gates are asked.
	Time time.Time
	// Builders are the actors that bound versions of the cluster to the digest, oldest first.
	Builders []string
	// Back says, of a rollback, how many other digests have gone live in the environment since this
	// one last did: 1 for the one before the current.
	Back int
	// Left is when the digest was last current in the environment; zero while it is, and when it
	// never was.
	Left time.Time
	// Fast reports whether Config.Rollback lets this rollback pass without the judgement that a
	// promotion needs.
	Fast bool
	// Quarantine and Hold keep the digest from the target; zero for none.
	Quarantine, Hold Hold
	// Policy names the rules in force for the environment: see Promoter.Review.
	Policy string
	// Runs are all the times that this digest has been live at a target of this cluster, oldest
	// first.
	Runs []Run
	// Reviews are the last word of each reviewer on this digest at this target, oldest first, since
	// it last became current there.
	Reviews []Review
}

// Image returns the reference to deploy by: repository@digest.
func (c Change) Image() string { return c.Repository + "@" + c.Digest.String() }

// Run is a time during which a digest was live.
type Run struct {
	Target
	Version string
	From    time.Time
	// Until is zero while it still is live.
	Until time.Time
}

// Refusal is a gate's answer that a change may not pass. It is returned as an error.
type Refusal struct {
	// Reasons are sentences for a person: the state, the expected state, and the next step.
	Reasons []string `json:"reasons"`
	// Missing names the things that have to be there first: for ConfigGate, the files.
	Missing []string `json:"missing,omitempty"`
	// Need and Have are numbers of approvals, and Who may give those that are missing; empty where
	// the gate does not count, and where everybody may.
	Need int      `json:"need,omitempty"`
	Have int      `json:"have,omitempty"`
	Who  []string `json:"who,omitempty"`
	// Until is when this gate will let the change pass with nothing done about it. It is zero when
	// that is not known.
	Until time.Time `json:"until,omitzero"`
}

func (r *Refusal) Error() string { return strings.Join(r.Reasons, ", and ") }

// answer returns r as the answer of a gate: a nil error for nil.
func (r *Refusal) answer() error {
	if r == nil {
		return nil
	}
	return r
}

// passes reports whether c brings nothing to its target that has to be judged as a promotion is: a
// retirement, an adoption, and a fast rollback.
func (c Change) passes() bool {
	return c.Op == OpRetire || c.Op == OpAdopt || c.Op == OpRollback && c.Fast
}

func (r Run) equal(other Run) bool {
	return r.Target == other.Target && r.Version == other.Version && r.From.Equal(other.From) &&
		r.Until.Equal(other.Until)
}

func (r Review) equal(other Review) bool {
	return r.Target == other.Target && r.Version == other.Version && r.Approve == other.Approve &&
		r.Actor == other.Actor &&
		r.Reason == other.Reason && r.Policy == other.Policy && r.Time.Equal(other.Time)
}

// OrderGate lets a digest into an environment when it is live, or has been live, in the environment
// before. Any digest may enter the first environment. A rollback passes: its digest has been there.
type OrderGate struct{}

var _ PureGate = OrderGate{}

// Name returns "order".
func (OrderGate) Name() string { return "order" }

// Reads implements PureGate.
func (OrderGate) Reads() Reads { return ReadsRunsBefore | ReadsHistory }

// Check implements Gate.
func (g OrderGate) Check(_ context.Context, c Change) error { return g.Judge(c).answer() }

// Judge implements PureGate.
func (OrderGate) Judge(c Change) *Refusal {
	if c.passes() || c.PreviousEnvironment == "" {
		return nil
	}
	if slices.ContainsFunc(c.Runs,
		func(r Run) bool { return r.Environment == c.PreviousEnvironment }) {
		return nil
	}
	return &Refusal{Reasons: []string{fmt.Sprintf("%s %s (%s) has never been live in %s: deploy "+
		"it there first",
		c.Cluster, c.Version, c.Digest.Short(), c.PreviousEnvironment)}}
}
