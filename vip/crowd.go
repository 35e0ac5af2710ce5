package vip

import (
	"maps"
	"slices"
)

// crowdSize is from how many addresses of one task on the index keeps a crowd.
const crowdSize = 32

// crowd is a second index of the addresses that one task has, or was the last to have: one of them
// is found, and taken out of the chain, without a look at all others.
type crowd struct {
	at        map[*entry]crowdPlace
	byCluster map[string]map[*entry]struct{} // by the clusters of the owner; "" for none
}

type crowdPlace struct {
	before   *entry // in the chain; nil for the first
	clusters []string
}

// crowdOf is the crowd that e belongs to, nil without one.
func (x *index) crowdOf(e *entry) *crowd {
	if len(x.crowds) == 0 {
		return nil
	}
	return x.crowds[e.owner()]
}

// relatives yields the addresses that owner has or was the last to have, and those of other owners
// of its task that would override one of its clusters, too. In a small task it yields all.
func (x *index) relatives(owner *Owner) func(yield func(*entry) bool) {
	return func(yield func(*entry) bool) {
		if c := x.crowds[owner.Task]; c != nil {
			c.related(owner, yield)
			return
		}
		n := 0
		for e := x.of(owner.Task); e != nil; e = e.next {
			if n++; !yield(e) {
				return
			}
		}
		if n >= crowdSize {
			x.gather(owner.Task)
		}
	}
}

// gather makes the crowd of a task.
func (x *index) gather(task string) {
	c := &crowd{map[*entry]crowdPlace{}, map[string]map[*entry]struct{}{}}
	for e := x.of(task); e != nil; e = e.next {
		c.add(e)
	}
	x.crowds[task] = c
}

// related yields each address of the crowd that has a cluster of owner, or has none if owner has
// none.
func (c *crowd) related(owner *Owner, yield func(*entry) bool) {
	clusters := clustersOf(owner)
	for i, cluster := range clusters {
		for e := range c.byCluster[cluster] {
			earlier := slices.ContainsFunc(clusters[:i], func(other string) bool {
				return slices.Contains(c.at[e].clusters, other)
			})
			if !earlier && !yield(e) {
				return
			}
		}
	}
}

// add adds e, which is in the chain already.
func (c *crowd) add(e *entry) {
	place := c.at[e] // which has its before if that was added earlier
	place.clusters = clustersOf(&e.last().Owner)
	c.at[e] = place
	for _, cluster := range place.clusters {
		if c.byCluster[cluster] == nil {
			c.byCluster[cluster] = map[*entry]struct{}{}
		}
		c.byCluster[cluster][e] = struct{}{}
	}
	c.linkBefore(e.next, e)
}

// remove removes e, which is on its way out of the chain and has its next yet.
func (c *crowd) remove(e *entry) {
	place := c.at[e]
	delete(c.at, e)
	for _, cluster := range place.clusters {
		if delete(c.byCluster[cluster], e); len(c.byCluster[cluster]) == 0 {
			delete(c.byCluster, cluster)
		}
	}
	c.linkBefore(e.next, place.before)
}

// linkBefore notes what is before e in the chain; a nil e is no entry.
func (c *crowd) linkBefore(e, before *entry) {
	if e != nil {
		place := c.at[e]
		place.before = before
		c.at[e] = place
	}
}

func clustersOf(owner *Owner) []string {
	if len(owner.Overrides) == 0 {
		return []string{""}
	}
	return slices.Sorted(maps.Keys(owner.Overrides))
}
