package promote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// UseWhy is why a digest is in use.
type UseWhy string

// Why a digest is in use.
const (
	// it is current at the target; that includes a digest that soaks there
	UseCurrent UseWhy = "current"
	// the change that is under way at the target deploys it
	UseOpen UseWhy = "open change"
	// a fast rollback may bring it back to the environment: see Config.Rollback
	UseRollback UseWhy = "rollback"
	// an approval waits for its promotion to the target
	UseApproved UseWhy = "approved"
)

// Use is a digest that a change can need at a target, or one that runs there. One digest may have
// several.
type Use struct {
	// Target of a rollback has no task: the digest may come back for each of them.
	Target
	Version string `json:"version"`
	Digest  Digest `json:"digest"`
	// Repository is where the image can be pulled from.
	Repository string `json:"repository"`
	Why        UseWhy `json:"why"`
	// Change is the change that is under way; empty where Why is not UseOpen.
	Change ChangeID `json:"change,omitempty"`
}

// String returns the use as a sentence for a person: "version v1 of web is current in test".
func (u Use) String() string {
	s := fmt.Sprintf("version %s of %s ", u.Version, u.Cluster)
	place := u.Environment
	if u.Task != "" {
		place += " for task " + u.Task
	}
	switch u.Why {
	case UseOpen:
		return s + "is being deployed in " + place + " by change " + string(u.Change)
	case UseRollback:
		return s + "can be rolled back to in " + place
	case UseApproved:
		return s + "is approved for " + place
	}
	return s + "is current in " + place
}

// InUse returns every digest that is current somewhere, that an open change deploys, that a fast
// rollback may bring back, or that has an approval which no deployment has used up, however old
// it is: a registry that removes one of them breaks a restart, a rollback or a promotion. The list
// is sorted as Current is. A version that is bound and none of these is not in it. After an error
// the list is not complete, and nothing may be removed by it: where the entries of one cluster
// cannot be read, the error wraps ErrDamaged, ErrNewer or ErrSetBack and the list has the others.
func (p *Promoter) InUse(ctx context.Context) (list []Use, err error) {
	defer p.watched("inuse", &err)()
	viewErr := p.view(ctx, func(s *state) { list, err = s.inUse(p.rollback, p.now()) })
	return list, errors.Join(viewErr, err)
}

func (s *state) inUse(rule RollbackRule, now time.Time) (list []Use, err error) {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.clusters)) {
		c := s.clusters[name]
		errs = append(errs, c.broken)
		var own []Use
		add := func(why UseWhy, t Target, version string, d Digest, repository string,
			id ChangeID) {
			own = append(own, Use{Target: t, Version: version, Digest: d, Repository: repository,
				Why: why, Change: id})
		}
		environments := map[string]bool{}
		for t, at := range c.targets {
			environments[t.Environment] = true
			if d := at.current; d != nil {
				add(UseCurrent, t, d.Version, d.Digest, d.Repository, "")
			}
			if e := at.open; e != nil && e.Op != OpRetire {
				add(UseOpen, t, e.Version, e.Digest, e.Repository, e.ID())
			}
		}
		for environment := range environments {
			t := Target{Cluster: name, Environment: environment}
			for back, e := range s.lived(t) {
				left := c.left(environment, e.Digest)
				if back > 0 && rule.fast(Change{Op: OpRollback, Back: back, Left: left,
					Time: now}) ||
					back == 0 && !left.IsZero() { // retired: the last one comes back
					add(UseRollback, t, e.Version, e.Digest, e.Repository, "")
				}
			}
		}
		for of, reviews := range c.reviews {
			if i := slices.IndexFunc(reviews, func(r Review) bool { return r.Approve }); i >= 0 {
				b, _ := c.bound(reviews[i].Version)
				add(UseApproved, of.Target, b.Version, of.Digest, b.Repository, "")
			}
		}
		slices.SortFunc(own, func(a, b Use) int {
			return cmp.Or(compareTargets(s.pipeline, a.Target, b.Target),
				cmp.Compare(a.Why, b.Why), cmp.Compare(a.Digest, b.Digest))
		})
		list = append(list, own...)
	}
	return list, errors.Join(errs...)
}

// left returns when a digest was last current in the environment; zero while it is, and when it
// never was.
func (c *cluster) left(environment string, d Digest) (left time.Time) {
	for _, r := range c.runs[d] {
		if r.Environment != environment {
			continue
		}
		if left = r.Until; r.Until.IsZero() {
			break
		}
	}
	return left
}
