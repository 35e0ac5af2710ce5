package rollout

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
)

// State is the condition of an instance.
type State string

// The states of an instance. The zero value is none of them.
const (
	// Starting: it is not ready yet.
	Starting State = "starting"
	// Ready: it takes requests.
	Ready State = "ready"
	// Down: it has ended, or answers no more. Its runtime may start it again.
	Down State = "down"
)

// Image is the image that the instances of a target run. The zero value stands for none.
type Image struct {
	Version    string         `json:"version,omitempty"`
	Digest     promote.Digest `json:"digest,omitempty"`
	Repository string         `json:"repository,omitempty"`
}

// same reports whether an instance of the other image can serve in the place of one of i: the
// repository is where the image can be pulled from, and no part of its identity.
func (i Image) same(other Image) bool {
	return i.Digest == other.Digest && i.Version == other.Version
}

// Spec describes an instance that is to run.
type Spec struct {
	// ID is unique among all instances, ever: see InstanceID.
	ID     string         `json:"id"`
	Target promote.Target `json:"target"`
	Image  Image          `json:"image"`
	// Generation is that of the change that started the instance.
	Generation uint64 `json:"generation"`
	// Number counts the instances that the generation has started, from 1.
	Number uint64 `json:"number"`
}

// Instance is an instance that runs, or is about to.
type Instance struct {
	Spec
	// Addr is where it takes requests. It may change when the instance is started again. It is
	// the zero AddrPort while there is none.
	Addr  netip.AddrPort `json:"addr,omitzero"`
	State State          `json:"state"`
}

// Instances starts, stops and lists instances. rollouttest.Run holds an implementation to this
// contract. All methods are safe for concurrent use; a call whose ctx has ended, or ends, returns
// an error that wraps the context's cause.
type Instances interface {
	// Start runs the instance and returns it once it is ready. It is idempotent: for an id that
	// exists it waits until that instance is ready. After an error nothing of the instance is left,
	// except when ctx has ended: then List shows the part that is left. An error that
	// says why the instance does not get ready is, or wraps, an *InstanceError.
	Start(ctx context.Context, spec Spec) (Instance, error)
	// Stop ends the instance and returns once it is gone and List does not show it. A well behaved
	// instance may finish the work that it has. An unknown id is no error.
	Stop(ctx context.Context, id string) error
	// List returns all instances, of every target, in any order. The caller owns the slice.
	List(ctx context.Context) ([]Instance, error)
}

// Assignment names the instances that take the requests of a target.
type Assignment struct {
	Target promote.Target
	// Revision grows with each change of the assignment.
	Revision uint64
	// Instances are in the order of their ids; none means that the target takes no requests.
	Instances []Instance
}

// Routes sends the requests of targets to instances. rollouttest.Run holds an implementation to
// this contract. All methods are safe for concurrent use; a call whose ctx has ended, or ends,
// returns an error that wraps the context's cause.
type Routes interface {
	// Apply sends the target's requests to these instances and to no others. It returns nil once
	// that is verified: every proxy answers with the new routes. The same assignment again is no
	// error. An assignment whose revision is lower than one that was applied changes nothing, and
	// its error wraps promote.ErrFenced.
	Apply(ctx context.Context, a Assignment) error
	// Drain returns nil once none of the instances, which no assignment names any more, has a
	// request in flight. Its error names the requests that are left.
	Drain(ctx context.Context, instances []Instance) error
}

// longestStem of an id leaves room for a generation and a number.
const longestStem = names.MaxInstance - len("-g18446744073709551615-18446744073709551615")

// InstanceID returns the id of the n-th instance that a generation starts at a target, such as
// "web-test-t1-g7-1". It is a name in the sense of names.Instance. A long target is cut and gets a
// hash, so that no two have the same ids.
func InstanceID(target promote.Target, generation, n uint64) string {
	parts := []string{target.Cluster, target.Environment}
	if target.Task != "" {
		parts = append(parts, target.Task)
	}
	stem := strings.Join(parts, "-")
	if len(stem) > longestStem {
		stem = names.DNSLabel(strings.Join(parts, "/"))
	}
	return fmt.Sprintf("%s-g%d-%d", stem, generation, n)
}
