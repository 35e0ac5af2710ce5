// Package nginxroutes sends the requests of a rollout's targets to instances through Nginx: it is a
// rollout.Routes on an nginxsync.Agent. Routes move without a reload, are verified in every worker,
// and an instance is drained when no worker has a request in flight to it.
//
// The embedder calls Open and gives the result to rollout.New, runs Routes.Agent().Run, and calls
// Refresh when something else than a rollout changes the routes: an instance that was started again
// at another address, a lease.
package nginxroutes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// Config configures a Routes. Agent, Records and Instances are required, and one of Environment
// and Snapshot.
type Config struct {
	// Agent configures the agent that Open opens. Its Source must be nil: Open sets it.
	Agent nginxsync.Config
	// Records and Instances are those of the rollout.
	Records   rollout.Records
	Instances rollout.Instances
	// Environment is the environment whose instances serve the baseline, for the default of
	// Snapshot.
	Environment string
	// Snapshot turns the instances that are to take requests, of all targets, into routes. It is
	// called by one goroutine at a time. The default is a baseline of the instances of Environment.
	Snapshot func(ctx context.Context, serving []rollout.Instance) (nginxsync.Snapshot, error)
}

func (c Config) validate() error {
	var errs []error
	bad := func(field, problem string) {
		errs = append(errs, fmt.Errorf("nginxroutes: Config.%s: %s: %w", field, problem,
			promote.ErrInvalid))
	}
	if c.Agent.Source != nil {
		bad("Agent.Source", "want nil: Open sets it")
	}
	if c.Records == nil {
		bad("Records", "nil: want those of the rollout")
	}
	if c.Instances == nil {
		bad("Instances", "nil: want those of the rollout")
	}
	if (c.Environment == "") == (c.Snapshot == nil) {
		bad("Environment, Config.Snapshot", "want exactly one of them")
	}
	return errors.Join(errs...)
}

// Routes is a rollout.Routes on Nginx. It is safe for concurrent use.
//
// A target whose record cannot be read keeps the instances that served when it could, and Damage
// names it. Where that was before this process, the target has no instance in the routes: the agent
// holds the loss of a baseline back, and an overlay answers 503, so that no other version serves in
// its place. The routes of all other targets go on.
type Routes struct {
	cfg    Config
	agent  *nginxsync.Agent
	source *nginxsync.StaticSource

	mu       sync.Mutex
	routed   nginxsync.Snapshot // as source was given last
	revision uint64             // of routed
	applied  map[promote.Target]uint64
	known    map[promote.Target][]string // the ids that served when their record was read last
	damage   *rollout.UnreadableError    // of the last look at the records; nil when all is well
}

var _ rollout.Routes = (*Routes)(nil)

// Open makes the routes of the instances that are to serve, and opens the agent on them. It returns
// all problems of cfg at once. Run the agent next: nothing is verified before.
func Open(ctx context.Context, cfg Config) (*Routes, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Routes{cfg: cfg, applied: map[promote.Target]uint64{},
		known: map[promote.Target][]string{}}
	if cfg.Agent.Logger == nil {
		r.cfg.Agent.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Snapshot == nil {
		r.cfg.Snapshot = r.baseline
	}
	first, err := r.snapshot(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("nginxroutes: %w", err)
	}
	r.routed, r.source = first, nginxsync.NewStaticSource(first)
	r.revision = r.source.Set(first)
	cfg.Agent.Source = r.source
	if r.agent, err = nginxsync.OpenAgent(ctx, cfg.Agent); err != nil {
		return nil, fmt.Errorf("nginxroutes: %w", err)
	}
	return r, nil
}

// baseline is the default of Config.Snapshot.
func (r *Routes) baseline(_ context.Context, serving []rollout.Instance) (nginxsync.Snapshot,
	error) {
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{}}
	for _, i := range serving {
		if i.Target.Environment == r.cfg.Environment {
			s.Baseline[i.Target.Cluster] = append(s.Baseline[i.Target.Cluster], Instance(i))
		}
	}
	return s, nil
}

// Instance returns the entry of an instance in a snapshot.
func Instance(i rollout.Instance) nginxsync.Instance {
	return nginxsync.Instance{ID: i.ID, Addr: i.Addr, Version: i.Image.Version}
}

// Agent returns the agent, for its Run and its Status.
func (r *Routes) Agent() *nginxsync.Agent { return r.agent }

// Revision returns the revision of the newest routes: they are in force once the agent's status has
// verified it.
func (r *Routes) Revision() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revision
}

// Apply implements rollout.Routes: it returns nil once every worker of Nginx answers with the
// routes.
func (r *Routes) Apply(ctx context.Context, a rollout.Assignment) error {
	return r.update(ctx, &a)
}

// Refresh makes the routes again from the instances that are to serve, and returns nil once every
// worker of Nginx answers with them.
func (r *Routes) Refresh(ctx context.Context) error { return r.update(ctx, nil) }

func (r *Routes) update(ctx context.Context, a *rollout.Assignment) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	revision, err := r.set(ctx, a)
	if err != nil {
		return err
	}
	return r.agent.WaitVerified(ctx, revision)
}

// set gives the agent the routes, and returns their revision.
func (r *Routes) set(ctx context.Context, a *rollout.Assignment) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a != nil {
		if last := r.applied[a.Target]; a.Revision < last {
			return 0, fmt.Errorf("routes of %s: revision %d: revision %d was applied: %w", a.Target,
				a.Revision, last, promote.ErrFenced)
		}
	}
	next, err := r.snapshot(ctx, a)
	if err != nil {
		return 0, err
	}
	if a != nil {
		// the rollout explains each change of its cluster: the agent's guard is to believe it
		for _, change := range nginxsync.Diff(r.routed, next) {
			if change.Cluster == a.Target.Cluster {
				next.Planned = append(next.Planned, nginxsync.Intent{VIP: change.VIP,
					Branch: change.Branch, Cluster: change.Cluster, By: "rollout"})
			}
		}
		r.applied[a.Target] = a.Revision
	}
	if !next.Equal(r.routed) {
		r.revision = r.source.Set(next)
		r.routed = next
	}
	return r.revision, nil
}

// snapshot makes the routes. The instances of an assignment take the place of its target's.
func (r *Routes) snapshot(ctx context.Context, a *rollout.Assignment) (nginxsync.Snapshot, error) {
	serving, err := r.serving(ctx)
	if err != nil {
		return nginxsync.Snapshot{}, err
	}
	if a != nil {
		serving = slices.DeleteFunc(serving, func(i rollout.Instance) bool {
			return i.Target == a.Target
		})
		serving = append(serving, a.Instances...)
	}
	next, err := r.cfg.Snapshot(ctx, serving)
	if err != nil || a == nil {
		return next, err
	}
	// The agent would go on with the routes before, so the old instances must not end.
	_, aside := next.Usable()
	for _, s := range aside {
		if s.Cluster == a.Target.Cluster {
			return next, fmt.Errorf("routes of %s: the agent would set them aside: %s: %w",
				a.Target, s.Reason, promote.ErrInvalid)
		}
	}
	return next, nil
}

// serving returns the instances that are to take requests. Those of a target whose record cannot be
// read are the ones that served when it could.
func (r *Routes) serving(ctx context.Context) ([]rollout.Instance, error) {
	serving, err := rollout.Serving(ctx, r.cfg.Records, r.cfg.Instances)
	damage, err := rollout.Unreadable(err)
	if err != nil {
		return nil, err
	}
	known := map[promote.Target][]string{}
	if damage != nil {
		all, err := r.cfg.Instances.List(ctx)
		if err != nil {
			return nil, fmt.Errorf("list instances: %w", err)
		}
		for _, target := range damage.Targets {
			known[target] = r.known[target]
			for _, i := range all {
				if i.Target == target && slices.Contains(known[target], i.ID) {
					serving = append(serving, i)
				}
			}
		}
		if r.damage == nil || r.damage.Error() != damage.Error() {
			r.cfg.Agent.Logger.Error("records of a rollout cannot be read", "err", damage)
		}
	}
	for _, i := range serving {
		if damage == nil || !slices.Contains(damage.Targets, i.Target) {
			known[i.Target] = append(known[i.Target], i.ID)
		}
	}
	r.known, r.damage = known, damage
	return serving, nil
}

// Damage names the targets whose records could not be read when the routes were made last; nil when
// all could.
func (r *Routes) Damage() *rollout.UnreadableError {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.damage
}

// Drain implements rollout.Routes: it returns nil once no worker of Nginx has a request in flight
// to the instances.
func (r *Routes) Drain(ctx context.Context, instances []rollout.Instance) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var addrs []netip.AddrPort
	for _, i := range instances {
		if i.Addr.IsValid() {
			addrs = append(addrs, i.Addr)
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	return r.agent.WaitDrained(ctx, r.Revision(), addrs)
}
