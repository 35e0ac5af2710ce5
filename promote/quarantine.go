package promote

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Hold is why a digest is kept from targets, and since when. The zero Hold keeps nothing.
type Hold struct {
	Actor  string    `json:"actor"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

func (h Hold) equal(other Hold) bool {
	return h.Actor == other.Actor && h.Reason == other.Reason && h.Since.Equal(other.Since)
}

// QuarantineRequest asks to keep a digest from all targets, or to end that.
type QuarantineRequest struct {
	// Cluster is whose targets are meant; empty for those of all clusters.
	Cluster string
	Digest  Digest
	// Actor and Reason must not be empty.
	Actor, Reason string
}

func (p *Promoter) checkQuarantine(ctx context.Context, op string, r QuarantineRequest) error {
	var list problems
	var err error
	if r.Cluster != "" {
		if list, err = p.checkNames(ctx, Target{Cluster: r.Cluster}, ""); err != nil {
			return err
		}
	}
	list.digest(r.Digest)
	list.texts(r.Actor, r.Reason)
	list.wanted("reason", r.Reason, "why")
	return list.err(op)
}

// Quarantine keeps a digest from every target from now on: no promotion, no rollback and no
// override brings it there before Release. It leaves what runs alone: History and Current say
// where the digest is.
func (p *Promoter) Quarantine(ctx context.Context, r QuarantineRequest) (err error) {
	defer p.watched("quarantine", &err)()
	if err := p.checkQuarantine(ctx, "quarantine", r); err != nil {
		return err
	}
	_, err = p.commit(ctx, func(s *state) (Entry, bool, error) { return s.quarantined(r), true, nil })
	return err
}

// quarantined is the entry for r.
func (*state) quarantined(r QuarantineRequest) Entry {
	return Entry{Kind: Quarantined, Target: Target{Cluster: r.Cluster}, Digest: r.Digest,
		Actor: r.Actor, Reason: r.Reason}
}

// Release ends the quarantine of a digest, and of a cluster the holds on it: a digest that a
// rollback has replaced is held at that target, and in the environments after it, until it is
// released. Where nothing keeps the digest it does nothing.
func (p *Promoter) Release(ctx context.Context, r QuarantineRequest) (err error) {
	defer p.watched("release", &err)()
	if err := p.checkQuarantine(ctx, "release", r); err != nil {
		return err
	}
	_, err = p.commit(ctx, func(s *state) (Entry, bool, error) { return s.released(r) })
	return err
}

// released decides on the end of quarantine and holds; ok is false where there are none.
func (s *state) released(r QuarantineRequest) (e Entry, ok bool, err error) {
	c := s.clusters[r.Cluster]
	return Entry{Kind: Released, Target: Target{Cluster: r.Cluster}, Digest: r.Digest,
			Actor: r.Actor, Reason: r.Reason},
		c != nil && (len(c.holds[r.Digest]) > 0 || c.quarantined[r.Digest] != Hold{}), nil
}

// quarantine returns the quarantine of a digest for a cluster, its own or that of all.
func (s *state) quarantine(cluster string, d Digest) Hold {
	for _, name := range []string{cluster, ""} {
		if c := s.clusters[name]; c != nil && c.quarantined[d] != (Hold{}) {
			return c.quarantined[d]
		}
	}
	return Hold{}
}

// hold returns the first hold on a digest at t: that of a rollback at t, or in an environment
// before.
func (s *state) hold(t Target, d Digest) Hold {
	c := s.clusters[t.Cluster]
	if c == nil {
		return Hold{}
	}
	for _, e := range c.holds[d] {
		if e.Target == t || s.pipeline.Index(e.Environment) < s.pipeline.Index(t.Environment) {
			return Hold{Actor: e.Actor, Since: e.Time, Reason: strings.TrimSuffix(
				fmt.Sprintf("rolled back in %s: %s", e.Environment, e.Reason), ": ")}
		}
	}
	return Hold{}
}

// kept returns the refusals that no gate decides on.
func (c Change) kept() (list []GateRefusal) {
	if c.Op == OpRetire {
		return nil
	}
	for _, k := range []struct {
		gate string
		Hold
	}{{"quarantine", c.Quarantine}, {"hold", c.Hold}} {
		if h := k.Hold; h != (Hold{}) {
			list = append(list, GateRefusal{Gate: k.gate, Refusal: Refusal{Reasons: []string{
				fmt.Sprintf("%s is kept back by %s since %s: %s: release it first",
					c.Digest.Short(), h.Actor, stamp(h.Since), h.Reason)}}})
		}
	}
	return list
}

// RollbackRule says how far a rollback may go back without the judgement that a promotion of the
// same digest needs: a fast rollback passes OrderGate, ConfigGate, ApprovalGate and SoakGate. Any
// other one is judged by them as a promotion is.
type RollbackRule struct {
	// Versions is how many digests back it may go in the environment. The default is 1: to the one
	// before.
	Versions int
	// Within is how long ago the digest may have been current there, however many came after. The
	// default is not at all.
	Within time.Duration
}

func (r RollbackRule) problems() (list problems) {
	if r.Versions < 0 {
		list.add("Versions: %d: want 0 (the default, 1) or more", r.Versions)
	}
	if r.Within < 0 {
		list.add("Within: %s: want 0 (the default, not at all) or more", r.Within)
	}
	return list
}

// fast decides on Change.Fast.
func (r RollbackRule) fast(c Change) bool {
	return c.Op == OpRollback && (c.Back <= max(1, r.Versions) ||
		r.Within > 0 && c.Time.Sub(c.Left) <= r.Within)
}
