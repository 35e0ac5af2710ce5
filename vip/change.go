package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Renew makes the lease last ttl from now on, Forever for no end, 0 for the TTL that it has; never
// beyond Pool.MaxLease from its acquisition. A lease that is over is ErrFenced.
func (a *Allocator) Renew(ctx context.Context, id string, ttl time.Duration) (Lease, error) {
	if ttl < 0 && ttl != Forever || ttl > longestTTL {
		return Lease{}, fmt.Errorf("renew lease %.64q: ttl %s: want 0 to 100 years, or Forever: %w",
			id, ttl, ErrInvalid)
	}
	return a.change(ctx, "renew", id, func(e *entry, next *tenure, now time.Time) error {
		if ttl != 0 {
			next.TTL = ttl
		}
		return next.extend(e.pool, now)
	})
}

// Bind records the instances behind the VIP, in place of those recorded before. No instances means
// that nothing answers. An IPv4 address in IPv6 form is recorded as the IPv4 address. IDs, clusters
// and versions may be left out; if given, they follow the grammar of the module's names, as in
// Request, unless the lease has the name already: as a cluster or version that it overrides, or of
// an instance bound now.
func (a *Allocator) Bind(ctx context.Context, id string, instances []Instance) (Lease, error) {
	seen := map[string]bool{}
	instances = slices.Clone(instances)
	for at, i := range instances {
		if !i.Addr.IsValid() || i.Addr.Port() == 0 {
			return Lease{}, fmt.Errorf("bind lease %.64q: instance %.64q: Instance.Addr: %q: want "+
				"host:port: %w", id, i.ID, i.Addr, ErrInvalid)
		}
		if i.ID != "" && seen[i.ID] {
			return Lease{},
				fmt.Errorf("bind lease %.64q: instance %q: Instance.ID: named twice: %w",
					id, i.ID, ErrInvalid)
		}
		seen[i.ID] = true
		instances[at].Addr = unmapped(i.Addr)
	}
	return a.change(ctx, "bind", id, func(_ *entry, next *tenure, now time.Time) error {
		for _, i := range instances {
			if err := i.checkNames(&next.Lease); err != nil {
				return fmt.Errorf("instance %.64q: %w: %w", i.ID, err, ErrInvalid)
			}
		}
		next.Binding = Binding{instances, now}
		return nil
	})
}

// checkNames checks the names that the instance has and l has not.
func (i *Instance) checkNames(l *Lease) error {
	for _, n := range []struct {
		field, value string
		check        func(string) error
	}{
		{"ID", i.ID, names.Instance}, {"Cluster", i.Cluster, names.Cluster},
		{"Version", i.Version, names.Version},
	} {
		if n.value == "" {
			continue
		}
		if err := n.check(n.value); err != nil && !l.hasName(n.value) {
			return fmt.Errorf("%s: %w", "Instance."+n.field, err)
		}
	}
	return nil
}

// hasName reports whether the lease has a name already, which may be of an older grammar.
func (l *Lease) hasName(name string) bool {
	for cluster, version := range l.Owner.Overrides {
		if name == cluster || name == version {
			return true
		}
	}
	return slices.ContainsFunc(l.Binding.Instances, func(i Instance) bool {
		return name == i.ID || name == i.Cluster || name == i.Version
	})
}

// Release ends the lease: its address drains and cools down, then it may be handed out again.
// Releasing a lease that has ended is no error as long as no other owner has got the address since.
// It returns the lease as it ended. ErrFenced says that the lease is over, not by which call: with
// a shared store it may be this very call, when the store lost the answer and another allocator
// gave the address away before it could be asked.
func (a *Allocator) Release(ctx context.Context, id, reason string) (Lease, error) {
	return a.change(ctx, "release", id, func(e *entry, next *tenure, now time.Time) error {
		a.ending(e, next, now, reason)
		return nil
	})
}

// change makes one change to a live lease. A release also finds a lease that has ended, and leaves
// it as it is.
func (a *Allocator) change(ctx context.Context, op, id string,
	edit func(e *entry, next *tenure, now time.Time) error) (_ Lease, err error) {
	if a.cfg.Observe != nil {
		defer a.observe(op, a.cfg.Now(), &err)
	}
	named, err := parseLeaseID(id)
	if err != nil {
		return Lease{}, fmt.Errorf("%s %w", op, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := false
	for conflicts := 0; conflicts < maxRounds; {
		if err := context.Cause(ctx); err != nil {
			return Lease{}, fmt.Errorf("%s lease %s: %w", op, id, err)
		}
		e, err := a.find(ctx, named, fresh)
		if err != nil {
			return Lease{}, fmt.Errorf("%s lease %s: %w", op, id, err)
		}
		peer, again, err := a.settledPeer(ctx, e)
		if err != nil {
			return Lease{}, fmt.Errorf("%s lease %s: %w", op, id, err)
		}
		if again {
			continue
		}
		now := a.cfg.Now()
		a.advance(now)
		switch {
		case e.state != Leased && op == "release":
			return e.shown(), nil
		case e.state != Leased:
			return Lease{}, fmt.Errorf("%s lease %s of task %q: it ended at %s (%s): %w",
				op, id, e.last().Owner.Task, e.last().Ended.Format(time.RFC3339), e.last().Reason,
				ErrFenced)
		case a.x.expired(e, now) && op != "release":
			return Lease{}, fmt.Errorf("%s lease %s of task %q: it expired at %s: %w",
				op, id, e.last().Owner.Task, e.last().Expires.Format(time.RFC3339), ErrFenced)
		}
		c := a.newCommit()
		for _, e := range [...]*entry{e, peer} {
			if e == nil {
				break
			}
			next := &c.add(e).next
			*next = *e.last()
			if err := edit(e, next, now); err != nil {
				a.recycle(c)
				return Lease{}, fmt.Errorf("%s lease %s: %w", op, id, err)
			}
		}
		c.expireTogether()
		err = a.commit(ctx, now, c)
		if errors.Is(err, ErrRevision) {
			conflicts++
			fresh = true
			continue
		}
		if err != nil {
			return Lease{}, fmt.Errorf("%s lease %s: %w", op, id, err)
		}
		return e.shown(), nil
	}
	return Lease{}, fmt.Errorf("%s lease %s: %w", op, id, ErrContended)
}

// find returns the entry whose last tenure is the lease of that id, settled. The store is asked
// before the answer is no, unless the entry is fresh from there.
func (a *Allocator) find(ctx context.Context, id leaseID, fresh bool) (*entry, error) {
	for asked := fresh; ; asked = true {
		e := a.x.entries.get(id.addr)
		for e != nil {
			again, err := a.awaitIdle(ctx, e)
			if err != nil {
				return nil, err
			}
			if !again {
				break
			}
		}
		if e != nil && e.last().ID == id.text && (asked || e.state == Leased) {
			return e, nil
		}
		if !asked {
			if err := a.fetchAddr(ctx, id.addr); err != nil {
				return nil, err
			}
			continue
		}
		if e == nil || e.last().Generation < id.generation {
			return nil, ErrNotFound
		}
		// the owner of the other lease is not shown
		return nil, fmt.Errorf("it is over, and its address has had another lease since: %w",
			ErrFenced)
	}
}

// ending makes next the ended tenure of e.
func (a *Allocator) ending(e *entry, next *tenure, now time.Time, reason string) {
	next.Ended, next.Reason, next.Expires = now, reason, time.Time{}
	next.State = Draining
	if a.cfg.Drained == nil {
		a.cool(e, next, now)
	}
}

// cool begins the cool-down.
func (a *Allocator) cool(e *entry, next *tenure, now time.Time) {
	next.rest = nil
	length := e.pool.coolDown()
	if length == 0 {
		next.State, next.CoolUntil = Free, time.Time{}
		return
	}
	next.State, next.CoolUntil, next.rest = Cooling, now.Add(length), a.resting(length)
}

// end ends a live lease without a request for it. A conflict is no error: the entry has been read
// again.
func (a *Allocator) end(ctx context.Context, e *entry, now time.Time, reason string) error {
	if _, again, err := a.settledPeer(ctx, e); again || err != nil {
		return err
	}
	c := a.newCommit()
	next := &c.add(e).next
	*next = *e.last()
	a.ending(e, next, now, reason)
	id := next.ID
	a.endPeer(c, e, now, reason)
	if err := a.commit(ctx, now, c); err != nil && !errors.Is(err, ErrRevision) {
		return fmt.Errorf("end lease %s: %w", id, err)
	}
	return nil
}

// unmapped returns a with its IPv4 address when that is in IPv6 form.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
