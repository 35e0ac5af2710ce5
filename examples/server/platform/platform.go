package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/filestore"
	"github.com/sluice-deploy/sluice/builder/livecatalog"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/examples/server/edge"
	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/cutoff"
	"github.com/sluice-deploy/sluice/nginxsync/door"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
	"github.com/sluice-deploy/sluice/promote/ociregistry"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/boltrecords"
	"github.com/sluice-deploy/sluice/promote/rollout/nginxroutes"
	"github.com/sluice-deploy/sluice/promote/rules"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

// Platform is the example deploy platform. It is safe for concurrent use; its methods work while
// Run does.
type Platform struct {
	// Edge is the private Nginx.
	Edge *edge.Edge
	// Events signals each change.
	Events Events

	config    Config
	pipeline  promote.Pipeline
	db        *bbolt.DB
	builds    records[Build]
	buildIDs  records[buildID]
	freezes   records[Freeze]
	rules     *rules.Set        // nil without Config.Rules
	templates *livecatalog.Live // nil without Config.Templates
	records   *boltrecords.Records
	engine    builder.Engine
	promoter  *promote.Promoter
	leases    *vip.Allocator
	instances *instance.Runtime
	driver    *cutoff.Driver
	routes    *nginxroutes.Routes
	rollout   *rollout.Rollout
	door      *door.Door // nil without Config.Door
	locks     locks
	// the builds that are not over: see queue.go
	buildFiles *filestore.Store
	spool      *source.Spool // nil without Config.Fetch
	queue      *builds.Builds
	buildNews  Events // of the journal of builds
	open       openBuilds
	// for addresses that cannot be guessed
	doorSecret string
	// held for reading while a source is kept for a build, for writing while it is replaced
	sourcesMu sync.RWMutex

	// closed when Run has been through the changes that a crash had cut off
	ready chan struct{}
	// set before ready is closed
	readySince time.Time
	// the instances were up once, or had their time
	up atomic.Bool
	// held for reading by every change, for writing to let them end
	changes sync.RWMutex
	// guarded by changes
	closed bool
}

// Open opens the state in cfg.Dir and checks the Nginx configuration; it starts nothing. It returns
// all problems of cfg at once. Call Run next, then Close.
func Open(ctx context.Context, cfg Config) (*Platform, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Platform{config: cfg.withDefaults(), pipeline: pipeline(), ready: make(chan struct{})}
	for _, sub := range []string{"sources", "builds"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	var err error
	// from here on no other process uses the directory
	if p.db, err = openState(cfg.Dir); err != nil {
		return nil, err
	}
	err = p.sweepSources()
	for _, open := range []func(context.Context) error{p.openParts, p.openEdge, p.openPromoter,
		p.openDoor} {
		if err == nil {
			err = open(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(err, p.closeStores())
	}
	return p, nil
}

// openParts opens the stores on disk and the parts that work on them.
func (p *Platform) openParts(ctx context.Context) (err error) {
	if p.builds, err = openRecords[Build](p.db, "builds"); err != nil {
		return err
	}
	if p.buildIDs, err = openRecords[buildID](p.db, "buildIDs"); err != nil {
		return err
	}
	if p.freezes, err = openRecords[Freeze](p.db, "freezes"); err != nil {
		return err
	}
	if p.records, err = boltrecords.Open(ctx, boltrecords.Config{DB: p.db}); err != nil {
		return err
	}
	p.engine, err = assemble.New(assemble.Config{Insecure: []string{p.config.Registry},
		Repositories: p.repositories})
	if err != nil {
		return err
	}
	if err = p.openQueue(ctx); err != nil {
		return err
	}
	if p.config.Templates != "" {
		if p.templates, err = openTemplates(p.config.Templates, p.config.Logger); err != nil {
			return err
		}
	}
	store, err := boltstore.New(p.db)
	if err != nil {
		return err
	}
	pool, err := p.config.pool()
	if err != nil {
		return err
	}
	p.leases, err = vip.Open(ctx, vip.Config{Store: store, Pools: []vip.Pool{pool},
		Logger: p.config.Logger})
	if err != nil {
		return err
	}
	p.instances, err = instance.Open(ctx, instance.Config{
		Dir: filepath.Join(p.config.Dir, "instances"), Changed: p.Events.Bump,
		Logger: p.config.Logger,
	})
	if err != nil {
		return err
	}
	return errors.Join(p.adopt(ctx), p.sweepBuilds())
}

// openPromoter opens the promoter, whose changes the rollout carries out.
func (p *Platform) openPromoter(ctx context.Context) (err error) {
	p.rollout, err = rollout.New(rollout.Config{Records: p.records, Instances: machine{p},
		Routes: patient{p}, Policy: p.policy, Drain: p.config.Drain,
		Events: p.rolled, Logger: p.config.Logger})
	if err != nil {
		return err
	}
	images, err := ociregistry.New(ociregistry.Config{Insecure: []string{p.config.Registry}})
	if err != nil {
		return err
	}
	journal, err := boltjournal.Open(ctx, boltjournal.Config{DB: p.db})
	if err != nil {
		return err
	}
	gates := []promote.Gate{promote.OrderGate{}, promote.ConfigGate{Source: configs{images, p}},
		frozen{p}}
	if p.config.Rules != "" {
		p.rules, err = rules.Open(ctx, rules.Config{Path: p.config.Rules, Pipeline: p.pipeline,
			Logger: p.config.Logger})
		if err != nil {
			return err
		}
		gates = append(gates, p.rules.Gates()...)
	}
	p.promoter, err = promote.New(promote.Config{
		Pipeline: p.pipeline, Journal: journal, Deployer: deployer{p.rollout},
		Grace: p.config.Patience + p.config.Drain + 15*time.Second,
		Gates: gates, Breakers: p.config.Breakers, Adopters: p.config.Adopters,
	})
	return err
}

// openEdge prepares Nginx and the routes that the state on disk asks for.
func (p *Platform) openEdge(ctx context.Context) (err error) {
	ports := map[int]int{80: p.config.NginxPort}
	if p.config.NginxTLSPort != 0 {
		ports[443] = p.config.NginxTLSPort
	}
	p.Edge, err = edge.Open(ctx, edge.Config{
		Dir: filepath.Join(p.config.Dir, "nginx"), Tree: p.config.Nginx, Ports: ports,
		Logger: p.config.Logger,
	})
	if err != nil {
		return err
	}
	nginx, err := luadriver.New(luadriver.Config{Socket: p.Edge.Socket()})
	if err != nil {
		return err
	}
	p.driver, err = cutoff.New(cutoff.Config{Driver: nginx, File: p.Edge.StateFile() + ".gone",
		Logger: p.config.Logger})
	if err != nil {
		return err
	}
	p.routes, err = nginxroutes.Open(ctx, nginxroutes.Config{
		Agent: nginxsync.Config{Driver: p.driver, StateFile: p.Edge.StateFile(),
			Logger: p.config.Logger},
		Records: p.records, Instances: machine{p}, Snapshot: p.snapshot,
	})
	return err
}

// Run starts the private Nginx, or has the one that runs already take the new configuration,
// finishes the changes that a crash has cut off, closes Ready's channel, and then works until ctx
// is done: on builds, on instances that have ended, on leases that have expired, and on routes that
// are not in step. It returns when no change is at work any more: an unfinished change stays open
// in the journal, and the next Run finishes it. Instances and Nginx go on after it has returned. It
// is called once.
func (p *Platform) Run(ctx context.Context) error {
	if err := p.Edge.Start(ctx); err != nil {
		return err
	}
	// The parts that a change needs to end go on longer than ctx.
	group, background := errgroup.WithContext(context.WithoutCancel(ctx))
	group.Go(func() error { return p.routes.Agent().Run(background) })
	group.Go(func() error { return p.driver.Run(background) })
	group.Go(func() error { return p.instances.Run(background) })
	group.Go(func() error { return p.leases.Run(background) })
	if p.door != nil {
		group.Go(func() error { return p.door.Run(background) })
	}
	group.Go(func() error {
		work, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(background, cancel)()
		err := p.work(work)
		// Changes in progress stay open in the journal: the next start finishes them.
		err = errors.Join(err, p.promoter.Close(background))
		p.changes.Lock() // waits for those in progress
		defer p.changes.Unlock()
		p.closed = true
		return err // ends the background
	})
	return group.Wait()
}

// work returns an error always.
func (p *Platform) work(ctx context.Context) error {
	seen := p.keepInStep(ctx, "")
	if err := p.rollout.Recover(ctx); err != nil {
		p.config.Logger.Warn("not in step", "err", err)
	}
	if err := p.releaseUnserved(ctx); err != nil {
		return fmt.Errorf("after a restart: %w", err)
	}
	p.readySince = time.Now()
	close(p.ready)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.queue.Run(ctx) })
	group.Go(func() error { return p.followBuilds(ctx) })
	group.Go(func() error { return p.keepLogsShort(ctx) })
	group.Go(func() error { return p.renewCertificates(ctx) })
	if p.rules != nil {
		group.Go(func() error { return p.rules.Run(ctx) })
	}
	if p.templates != nil {
		group.Go(func() error { return p.templates.Run(ctx) })
	}
	group.Go(func() error {
		for tick := time.NewTicker(500 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return context.Cause(ctx)
			case <-tick.C:
				seen = p.keepInStep(ctx, seen)
			}
		}
	})
	return group.Wait()
}

// keepInStep finishes the changes that were cut off and handles the events that no request has
// caused: an instance on another port, an expired lease, an Nginx that is gone. Nothing is lost
// when it fails: it is tried again. It returns the problem, and logs it unless it equals before.
func (p *Platform) keepInStep(ctx context.Context, before string) string {
	err := p.Edge.Ensure(ctx)
	entries, recoverErr := p.promoter.Recover(ctx)
	for _, e := range entries {
		p.config.Logger.Info("finished after a restart", "change", e.Op, "cluster", e.Cluster,
			"environment", e.Environment, "kind", e.Kind)
	}
	err = errors.Join(err, recoverErr, p.tidyTasks(ctx), p.settle(ctx), p.rollout.Tidy(ctx))
	switch {
	case ctx.Err() != nil:
		return before
	case err == nil && before != "":
		p.config.Logger.Info("in step again")
		return ""
	case err != nil && err.Error() != before:
		p.config.Logger.Warn("not in step", "err", err)
		return err.Error()
	}
	return before
}

// Ready is closed when Run has been through the changes that a crash had cut off; those it could
// not finish are logged and tried again. Changes wait for it.
func (p *Platform) Ready() <-chan struct{} { return p.ready }

// begin admits a change when the platform is ready for it. Run waits for its end.
func (p *Platform) begin(ctx context.Context) (end func(), err error) {
	select {
	case <-p.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("the server is not ready: %w", context.Cause(ctx))
	}
	p.changes.RLock()
	if p.closed {
		p.changes.RUnlock()
		return nil, ErrClosed
	}
	return func() {
		p.changes.RUnlock()
		p.Events.Bump()
	}, nil
}

// Close closes the state on disk. Call it after Run has returned.
func (p *Platform) Close() error {
	if p.door != nil {
		p.door.Close()
	}
	return p.closeStores()
}

func (p *Platform) closeStores() error {
	var err error
	if p.spool != nil {
		err = p.spool.Close()
	}
	if p.buildFiles != nil {
		err = errors.Join(err, p.buildFiles.Close())
	}
	return errors.Join(err, p.db.Close())
}

// Stop ends all instances and Nginx: after it nothing of this platform runs. Call it after Run has
// returned. A later Open on the same directory starts them again.
func (p *Platform) Stop(ctx context.Context) error { return stop(ctx, p.config.Dir, p.instances) }

// StopAll is Stop for a platform whose process was killed. It refuses while a server uses dir.
func StopAll(ctx context.Context, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, stateFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := openState(dir)
	if err != nil {
		return err
	}
	defer db.Close()
	instances, err := instance.Open(ctx, instance.Config{Dir: filepath.Join(dir, "instances")})
	if err != nil {
		return err
	}
	return stop(ctx, dir, instances)
}

func stop(ctx context.Context, dir string, instances *instance.Runtime) error {
	var group errgroup.Group
	group.Go(func() error { return edge.Stop(ctx, filepath.Join(dir, "nginx")) })
	for _, i := range instances.List() {
		group.Go(func() error { return instances.End(ctx, i.ID) })
	}
	return group.Wait()
}

// stateFile is locked by the process that uses the directory.
const stateFile = "state.db"

func openState(dir string) (*bbolt.DB, error) {
	db, err := bbolt.Open(filepath.Join(dir, stateFile), 0o600,
		&bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("state in %s: %w: does another server use it?", dir, err)
	}
	return db, nil
}

func (p *Platform) baseline() string { return p.pipeline[len(p.pipeline)-1] }
