package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// With a shared store each task that has, or was the last to have, an address has a record that
// names those addresses. An allocation compares it like the address itself, so that two allocators
// cannot give one owner two leases. The record may name too many addresses, never too few. A
// damaged one is rebuilt from the records of the addresses.
const (
	ownerPrefix    = "owner/"
	defaultRefresh = 5 * time.Second
	forgetAtOnce   = 64 // records of owners deleted in one sweep
)

// claim is the owner's record as it was read for an allocation.
type claim struct {
	key   string
	addrs []netip.Addr
	rev   uint64
}

// fetchClaim fetches the owner record of a task, and fetches and applies the addresses that it
// names. When it returns, all leases of the task are idle and as they were at one moment.
func (a *Allocator) fetchClaim(ctx context.Context, task string) (claim, error) {
	for {
		c, held, err := a.fetchClaimOnce(ctx, task)
		if err == nil {
			err = a.applyRecords(ctx, held)
		}
		again := false
		for i := 0; i < len(held) && err == nil && !again; i++ {
			// while a commit of this allocator is in progress, or uncertain, the record of its
			// address is not taken over
			if e := a.x.byKey(held[i].Key); e != nil {
				again, err = a.awaitIdle(ctx, e)
			}
		}
		if err != nil {
			return c, fmt.Errorf("leases of task %q: %w", task, err)
		}
		if !again && a.coversAll(held, task) {
			return c, nil
		}
	}
}

// coversAll reports whether all leases of the task, as far as this allocator knows, are among the
// records. One that is not has come while they were read: then those may be older than it.
func (a *Allocator) coversAll(records []Record, task string) bool {
	there := make(map[string]bool, len(records))
	for _, r := range records {
		there[r.Key] = true
	}
	for e := a.x.of(task); e != nil; e = e.next {
		if e.state == Leased && !there[e.key()] {
			return false
		}
	}
	return true
}

// fetchClaimOnce fetches the owner record of a task and the records of its addresses.
func (a *Allocator) fetchClaimOnce(ctx context.Context, task string) (c claim, held []Record,
	err error) {
	c.key = ownerPrefix + task
	var keys []string
	// which the record names, unless the store was restored
	for e := a.x.of(task); e != nil; e = e.next {
		if e.state == Leased {
			keys = append(keys, e.key())
		}
	}
	a.unlocked(func() { held, err = a.getClaim(ctx, task, &c, keys) })
	return c, held, err
}

// getClaim reads the owner record into c, and returns the records of keys and of its addresses. It
// is called without mu.
func (a *Allocator) getClaim(ctx context.Context, task string, c *claim,
	keys []string) (held []Record, err error) {
	found, err := a.store.Get(ctx, c.key)
	if err != nil {
		return nil, err
	}
	c.rev = found[0].Revision
	if c.addrs, err = parseOwned(found[0].Value); err != nil {
		a.cfg.Logger.Warn("record of an owner is damaged: all addresses are read", "record", c.key,
			"err", err)
		if c.addrs, err = a.addressesOf(ctx, task); err != nil {
			return nil, err
		}
	}
	there := make(map[string]bool, len(keys))
	for _, key := range keys {
		there[key] = true
	}
	for _, addr := range c.addrs {
		if key := addrPrefix + addr.String(); !there[key] {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		held, err = a.store.Get(ctx, keys...)
	}
	return held, err
}

// addressesOf finds the addresses whose last tenure is the task's without its record. It is called
// without mu.
func (a *Allocator) addressesOf(ctx context.Context, task string) (addrs []netip.Addr, err error) {
	records, err := a.store.List(ctx, addrPrefix)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if l, err := a.decode(r); err == nil && l.Owner.Task == task {
			addrs = append(addrs, l.Addr)
		}
	}
	return addrs, nil
}

// ownerChange is the change that adds the picked addresses to the claim and drops the addresses
// that others have had since.
func (a *Allocator) ownerChange(c claim, task string, picked []*entry) *Change {
	owned := slices.DeleteFunc(c.addrs, func(addr netip.Addr) bool { return !a.owns(task, addr) })
	for _, e := range picked {
		owned = append(owned, e.addr)
	}
	slices.SortFunc(owned, netip.Addr.Compare)
	var value strings.Builder
	for _, addr := range slices.Compact(owned) {
		fmt.Fprintln(&value, addr)
	}
	return &Change{Key: c.key, Value: []byte(value.String()), Revision: c.rev}
}

func parseOwned(value []byte) (addrs []netip.Addr, err error) {
	for line := range strings.Lines(string(value)) {
		addr, err := netip.ParseAddr(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// owns says whether the last tenure of the address is, or may be, the task's.
func (a *Allocator) owns(task string, addr netip.Addr) bool {
	e := a.x.entries.get(addr)
	return e != nil && (e.busy || e.uncertain || e.rev != 0 && e.last().Owner.Task == task)
}

// fetchAllIfOlder calls fetchAll when the last call is at least age ago, and reports whether it
// did. It does nothing without a shared store.
func (a *Allocator) fetchAllIfOlder(ctx context.Context, age time.Duration) (bool, error) {
	now := a.cfg.Now()
	if !a.shared || now.Sub(a.refreshed).Abs() < age {
		return false, nil
	}
	a.refreshed = now
	return true, a.fetchAll(ctx)
}

// follow reads all addresses whenever the store says that some may have changed, until ctx is done:
// at once, but not more than twice in Config.Refresh, or in 5 s if that is less. While the store
// does not answer, the sweep reads every Config.Refresh. It is called without mu.
func (a *Allocator) follow(ctx context.Context, store Watcher) {
	var after uint64
	var earlier, last <-chan time.Time // fire when the two reads before are long enough ago
	for ctx.Err() == nil {
		now, err := store.Watch(ctx, after, addrPrefix)
		a.setFollowing(err == nil)
		if err != nil {
			if ctx.Err() == nil {
				a.cfg.Logger.Warn("watch of leases", "err", err)
			}
			after = 0
			sleep(ctx, min(a.cfg.Refresh, time.Second))
			continue
		}
		if now == after {
			continue
		}
		if now < after { // the store was restored
			now = 0
		}
		after = now
		if earlier != nil {
			select {
			case <-earlier:
			case <-ctx.Done():
				continue
			}
		}
		earlier, last = last, time.After(min(a.cfg.Refresh, defaultRefresh))
		if err := a.readAll(ctx); err != nil {
			if ctx.Err() == nil {
				a.cfg.Logger.Warn("read of leases", "err", err)
			}
			a.setFollowing(false)
			after = 0
			sleep(ctx, min(a.cfg.Refresh, time.Second))
		}
	}
	a.setFollowing(false)
}

func (a *Allocator) setFollowing(does bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.following = does
}

// readAll is fetchAll without mu.
func (a *Allocator) readAll(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refreshed = a.cfg.Now()
	return a.fetchAll(ctx)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// findForgotten notes the tasks whose record names no address that is still theirs.
func (a *Allocator) findForgotten(ctx context.Context) error {
	records, err := a.store.List(ctx, ownerPrefix)
	if err != nil {
		return fmt.Errorf("load owners: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range records {
		task := strings.TrimPrefix(r.Key, ownerPrefix)
		owned, err := parseOwned(r.Value)
		if err != nil { // the next allocation for the task mends it
			a.cfg.Logger.Warn("record of an owner is damaged", "record", r.Key, "err", err)
			continue
		}
		if !slices.ContainsFunc(owned, func(addr netip.Addr) bool { return a.owns(task, addr) }) {
			a.forgotten = append(a.forgotten, task)
		}
	}
	return nil
}

// forget deletes the records of tasks whose addresses others have had since.
func (a *Allocator) forget(ctx context.Context) error {
	for left := min(forgetAtOnce, len(a.forgotten)); left > 0 && len(a.forgotten) > 0; left-- {
		task := a.forgotten[0]
		a.forgotten = a.forgotten[1:]
		c, err := a.fetchClaim(ctx, task)
		if err != nil {
			a.forgotten = append(a.forgotten, task)
			return err
		}
		if c.rev == 0 || a.x.claims[task] != nil ||
			slices.ContainsFunc(c.addrs, func(addr netip.Addr) bool {
				return a.owns(task, addr)
			}) {
			continue
		}
		a.unlocked(func() { _, err = a.store.Commit(ctx, Change{Key: c.key, Revision: c.rev}) })
		if err != nil && !errors.Is(err, ErrRevision) { // which means that the task has come back
			a.forgotten = append(a.forgotten, task)
			return fmt.Errorf("forget task %q: %w", task, err)
		}
	}
	return nil
}
