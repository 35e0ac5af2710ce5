package vip

import (
	"context"
	"time"
)

// AllocateDual leases an IPv4 and an IPv6 address to req.Owner, both or none: each of the first
// pool of its family that Request allows and that has an address. A pool of both families serves
// neither. Pool and Addr have to be empty; Selector chooses by the labels of the pools. Like
// Allocate it gives the same again to the same owner; one that has a lease of one family has to
// release it first: ErrConflict. A request that waits does so until both can be had at once, and
// lets others have an address that is of no use alone.
//
// The two leases, each of which has the other's ID as its Peer, begin and end together: Renew, Bind
// and Release of either change both, and so do an expiry and a quarantine. They expire together, by
// the shorter Pool.MaxLease of the two. Each address drains and cools down on its own.
func (a *Allocator) AllocateDual(ctx context.Context, req Request) (v4, v6 Lease, err error) {
	if a.cfg.Observe != nil {
		defer a.observe("allocate", a.cfg.Now(), &err)
	}
	req.dual = true
	a.mu.Lock()
	defer a.mu.Unlock()
	got, err := a.allocate(ctx, &req, 2, nil)
	if err != nil {
		return Lease{}, Lease{}, err
	}
	v4, v6 = got[0].shown(), got[1].shown()
	if v4.Addr.Is6() {
		v4, v6 = v6, v4
	}
	return v4, v6, nil
}

// dualProblems are the problems of a request for AllocateDual.
func (r *Request) dualProblems() (errs []error) {
	if r.Pool != "" {
		errs = append(errs, badField("Pool", "%.64q: want none for AllocateDual: "+
			"choose the two by Selector", r.Pool))
	}
	if r.Addr.IsValid() {
		errs = append(errs, badField("Addr", "%s: want none for AllocateDual", r.Addr))
	}
	return errs
}

// family is a family of addresses.
type family uint8

const (
	anyFamily family = iota
	ipv4
	ipv6
)

// families are those of which the request wants one address each: any for all but a dual one.
func (r *Request) families() []family {
	if r.dual {
		return []family{ipv4, ipv6}
	}
	return []family{anyFamily}
}

// family is that of all addresses of p; anyFamily when it has both, or none while SetPools goes on.
func (p *pool) family() family {
	switch {
	case len(p.ranges) == 0:
		return anyFamily
	case p.ranges[len(p.ranges)-1].First.Is4(): // IPv4 comes first
		return ipv4
	case p.ranges[0].First.Is6():
		return ipv6
	}
	return anyFamily
}

// each is how many addresses of one pool a request for n takes.
func (r *Request) each(n int) int {
	if r.dual {
		return 1
	}
	return n
}

// pair makes the two tenures of a dual lease one: each has the other as its peer, and both expire
// together.
func (c *commit) pair() {
	one, two := &c.steps[0].next, &c.steps[1].next
	one.Peer, two.Peer = two.ID, one.ID
	c.expireTogether()
}

// expireTogether gives the steps of a dual lease the earlier expiry of the two.
func (c *commit) expireTogether() {
	if len(c.steps) < 2 {
		return
	}
	one, two := &c.steps[0].next, &c.steps[1].next
	if two.Expires.IsZero() || !one.Expires.IsZero() && one.Expires.Before(two.Expires) {
		two.Expires = one.Expires
	} else {
		one.Expires = two.Expires
	}
}

// peer is the entry of the live lease that ends together with the one of e; nil without one.
func (a *Allocator) peer(e *entry) *entry {
	id := e.last().Peer
	if id == "" {
		return nil
	}
	named, err := parseLeaseID(id)
	if err != nil {
		return nil
	}
	other := a.x.entries.get(named.addr)
	if other == nil || other.state != Leased || other.last().ID != id {
		return nil
	}
	return other
}

// settledPeer is peer for a change of both: idle, and fetched when this allocator does not know it.
// again reports whether it has let go of mu.
func (a *Allocator) settledPeer(ctx context.Context, e *entry) (_ *entry, again bool, err error) {
	id := e.last().Peer
	if id == "" || e.state != Leased {
		return nil, false, nil
	}
	named, err := parseLeaseID(id)
	if err != nil {
		return nil, false, nil
	}
	for fetched := !a.shared; ; fetched = true {
		if known := a.x.entries.get(named.addr); known != nil {
			if again, err = a.awaitIdle(ctx, known); again || err != nil {
				return nil, again, err
			}
		}
		if other := a.peer(e); other != nil || fetched {
			return other, false, nil
		}
		rev := e.rev
		if err := a.fetchAddr(ctx, named.addr); err != nil {
			return nil, false, err
		}
		if e.rev != rev || e.busy || e.uncertain {
			return nil, true, nil
		}
	}
}

// endPeer adds to c the end of the peer of e, whose lease ends in c, too. It reports false when the
// peer is being changed: then e has to wait.
func (a *Allocator) endPeer(c *commit, e *entry, now time.Time, reason string) bool {
	other := a.peer(e)
	if other == nil {
		return true
	}
	if other.busy || other.uncertain {
		return false
	}
	next := &c.add(other).next
	*next = *other.last()
	a.ending(other, next, now, reason)
	other.busy = true
	return true
}
