package healthcheck

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Checker is a nginxsync.Source without the instances that fail their check. It is safe for
// concurrent use.
type Checker struct {
	cfg       Config
	byCluster map[string]int
	others    int           // the check of clusters that none names; -1 without one
	slots     chan struct{} // one for each probe that runs
	turned    chan struct{} // of capacity 1: an instance went down or up

	mu       sync.Mutex
	from     nginxsync.Snapshot // of the source
	targets  map[target]*health
	lists    map[target][]place // where an instance is
	shown    nginxsync.Snapshot
	kept     map[target]int // in how many lists one that is down stays
	revision uint64         // of shown; 0 before the first
	err      error          // of the source; nil while it answers
	since    time.Time      // of err
	changed  chan struct{}  // closed with each revision and error
}

var _ nginxsync.Source = (*Checker)(nil)

// tellFor is for how long an error of the source is returned. After it, calls wait: a watcher that
// sleeps after each error would see the results of the checks late.
const tellFor = 2 * time.Second

// Watch implements nginxsync.Source. It waits until Run has a snapshot of the source. When the
// source fails later, calls return its error for 2 seconds and then wait for the next change, and
// the instances go on to be checked.
func (c *Checker) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	for {
		if ctx.Err() != nil {
			return nginxsync.Snapshot{}, 0, context.Cause(ctx)
		}
		c.mu.Lock()
		shown, revision, changed, err := c.shown, c.revision, c.changed, c.err
		told := revision != 0 && c.cfg.Now().Sub(c.since) > tellFor
		c.mu.Unlock()
		switch {
		case revision != 0 && revision != after:
			return shown, revision, nil
		case err != nil && !told:
			return nginxsync.Snapshot{}, 0, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Run checks until ctx ends, and returns its cause. It must not be called twice.
func (c *Checker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.show(ctx) })
	var after uint64
	tries := retry.Backoff{}
	for {
		snapshot, revision, err := c.cfg.Source.Watch(ctx, after)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			c.fail(err)
			if err := retry.Sleep(ctx, tries.Next(50*time.Millisecond, 5*time.Second)); err != nil {
				return err
			}
			continue
		}
		after, tries = revision, retry.Backoff{}
		c.take(ctx, &wg, snapshot)
	}
}

// together is how long results are collected: a network that fails takes many instances along.
const together = 10 * time.Millisecond

// show publishes the results of checks until ctx ends.
func (c *Checker) show(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.turned:
		}
		if retry.Sleep(ctx, together) != nil {
			return
		}
		c.mu.Lock()
		c.publish()
		c.mu.Unlock()
	}
}

// fail notes an error of the source.
func (c *Checker) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.since = c.cfg.Now()
	}
	c.err = err
	c.wake()
}

// wake has the watchers look. The caller holds mu.
func (c *Checker) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// take takes over a snapshot of the source: it starts the probes of instances that are new and ends
// those of instances that are gone.
func (c *Checker) take(ctx context.Context, wg *sync.WaitGroup, s nginxsync.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.from, c.lists = nil, s, map[target][]place{}
	places(s, func(at place, list []nginxsync.Instance) {
		for _, in := range list {
			if t, ok := c.target(at.cluster, in); ok {
				c.lists[t] = append(c.lists[t], at)
			}
		}
	})
	for t, h := range c.targets {
		if c.lists[t] == nil {
			h.stop()
			delete(c.targets, t)
		}
	}
	for t := range c.lists {
		if c.targets[t] != nil {
			continue
		}
		own, stop := context.WithCancel(ctx)
		h := &health{stop: stop, run: c.cfg.Checks[t.check].Fall - 1}
		c.targets[t] = h
		wg.Go(func() { c.follow(own, t, h) })
	}
	c.publish()
}

// target is the instance with its check, if it has one.
func (c *Checker) target(cluster string, in nginxsync.Instance) (target, bool) {
	at, ok := c.byCluster[cluster]
	if !ok {
		at = c.others
	}
	return target{at, cluster, in.ID, in.Version, in.Addr}, at >= 0 && in.Addr.IsValid()
}

// publish makes the next revision. The caller holds mu.
func (c *Checker) publish() {
	affected := map[place]bool{}
	for t, h := range c.targets {
		if h.down {
			for _, at := range c.lists[t] {
				affected[at] = true
			}
		}
	}
	c.kept = map[target]int{}
	with := map[place][]nginxsync.Instance{}
	for at := range affected {
		with[at] = sift(c.list(at), func(in nginxsync.Instance) (time.Time, bool) {
			h := c.down(at.cluster, in)
			if h == nil {
				return time.Time{}, false
			}
			return h.since, true
		}, c.cfg.Quorum)
		for _, in := range with[at] {
			if c.down(at.cluster, in) != nil {
				t, _ := c.target(at.cluster, in)
				c.kept[t]++
			}
		}
	}
	c.shown = replace(c.from, with)
	c.revision++
	c.wake()
}

// down is the health of an instance that is down, else nil.
func (c *Checker) down(cluster string, in nginxsync.Instance) *health {
	t, ok := c.target(cluster, in)
	if !ok {
		return nil
	}
	if h := c.targets[t]; h != nil && h.down {
		return h
	}
	return nil
}

// list are the instances of a place in the snapshot of the source.
func (c *Checker) list(at place) []nginxsync.Instance {
	switch {
	case at.vip.IsValid():
		return c.from.Overlays[at.vip][at.cluster]
	case at.branch != "":
		return c.from.Branches[at.branch][at.cluster]
	}
	return c.from.Baseline[at.cluster]
}

// follow probes one target until ctx ends.
func (c *Checker) follow(ctx context.Context, t target, h *health) {
	check := c.cfg.Checks[t.check]
	// Instances that become known together are not asked together.
	wait := rand.N(check.Every)
	for {
		if retry.Sleep(ctx, wait) != nil {
			return
		}
		wait = check.Every - rand.N(check.Every/10+1)
		err := c.probe(ctx, check, t.addr)
		if ctx.Err() != nil {
			return
		}
		now := c.cfg.Now()
		c.mu.Lock()
		if c.targets[t] != h {
			c.mu.Unlock()
			return
		}
		turned := h.record(err, check, now)
		down, why := h.down, h.why
		c.mu.Unlock()
		if turned {
			select {
			case c.turned <- struct{}{}:
			default:
			}
		}
		if turned && down {
			c.cfg.Logger.Warn("instance fails its check", "cluster", t.cluster, "id", t.id,
				"addr", t.addr, "err", why)
		} else if turned {
			c.cfg.Logger.Info("instance passes its check again", "cluster", t.cluster, "id", t.id,
				"addr", t.addr)
		}
	}
}

// probe asks once, when one of the slots is free.
func (c *Checker) probe(ctx context.Context, check Check, addr netip.AddrPort) error {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-c.slots }()
	ctx, cancel := context.WithTimeoutCause(ctx, check.Timeout,
		fmt.Errorf("no answer within %s", check.Timeout))
	defer cancel()
	start := c.cfg.Now()
	err := check.Probe(ctx, addr)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	c.cfg.Observe("probe", c.cfg.Now().Sub(start), err)
	return err
}

// Status is the state of a Checker.
type Status struct {
	Checked int       `json:"checked"` // instances with a check
	Failing []Failing `json:"failing"` // by cluster and id
}

// Failing is an instance that fails its check.
type Failing struct {
	Cluster string         `json:"cluster"`
	ID      string         `json:"id"`
	Addr    netip.AddrPort `json:"addr"`
	Version string         `json:"version"`
	Since   time.Time      `json:"since"`
	Reason  string         `json:"reason"` // of the last probe that failed
	// Lists is in how many lists of instances it is: baseline, overlays and branches. In Kept of
	// them it stays, because more than the quorum allows would go.
	Lists int `json:"lists"`
	Kept  int `json:"kept"`
}

// String is such as
//
//	hello_web w2 at 10.0.0.2:8080 is out since 2026-11-30T02:00:00Z: status 503, want 200 to 399
func (f Failing) String() string {
	state := "is out"
	switch f.Kept {
	case 0:
	case f.Lists:
		state = "fails, and stays because too few others are left,"
	default:
		state = fmt.Sprintf("is out of %d of %d lists", f.Lists-f.Kept, f.Lists)
	}
	return fmt.Sprintf("%s %s at %s %s since %s: %s", f.Cluster, f.ID, f.Addr, state,
		f.Since.UTC().Format(time.RFC3339), f.Reason)
}

// Status returns which instances fail, and why.
func (c *Checker) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Status{Checked: len(c.targets), Failing: []Failing{}}
	for t, h := range c.targets {
		if h.down {
			out.Failing = append(out.Failing, Failing{Cluster: t.cluster, ID: t.id, Addr: t.addr,
				Version: t.version, Since: h.since, Reason: h.why, Lists: len(c.lists[t]),
				Kept: c.kept[t]})
		}
	}
	slices.SortFunc(out.Failing, func(a, b Failing) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.ID, b.ID),
			a.Addr.Compare(b.Addr))
	})
	return out
}
