package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/examples/server/edge"
	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
	"github.com/sluice-deploy/sluice/promote/ociregistry"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

// Config is what a Platform needs.
type Config struct {
	// Dir holds everything that outlives the process. It is made if it is missing.
	Dir string
	// Registry is host:port of the registry that images are pushed to and pulled from, over plain HTTP.
	Registry string
	// Nginx is the production configuration tree; its main file is nginx.conf.
	Nginx fs.FS
	// NginxPort is where the private Nginx listens in place of production's port 80.
	NginxPort int
	// Pool is the range of VIPs, such as 127.58.0.0/24.
	Pool string
	// CoolDown keeps a returned VIP from the next task. The default is 130 s.
	CoolDown time.Duration
	// Envconfig is the path of the envconfig binary that goes into images.
	Envconfig string
	// Instances is how many instances a deployment has, by environment. The default is one.
	Instances map[string]int
	// Logger receives what goes on in the background. The default discards.
	Logger *slog.Logger
}

// Platform is the example deploy platform. It is safe for concurrent use; its methods work while Run does.
type Platform struct {
	// Catalog are the Dockerfile templates on offer.
	Catalog *builder.Catalog
	// Edge is the private Nginx.
	Edge *edge.Edge
	// Events tells when something has changed.
	Events Events

	config    Config
	pipeline  promote.Pipeline
	db        *bbolt.DB
	builds    records[Build]
	serving   records[serving]
	engine    builder.Engine
	promoter  *promote.Promoter
	leases    *vip.Allocator
	instances *instance.Runtime
	driver    nginxsync.Driver
	agent     *nginxsync.Agent
	source    *nginxsync.StaticSource
	ready     chan struct{} // closed when what a crash had cut off is finished
	sourcesMu sync.Mutex
	taskLocks locks

	settleMu sync.Mutex
	routed   nginxsync.Snapshot // what source was given last
	revision uint64             // of routed
	replaced map[string]bool    // instances that another has taken the place of
}

// Open opens the state in config.Dir and starts, or finds, the private Nginx. Call Run next.
func Open(ctx context.Context, config Config) (p *Platform, err error) {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	p = &Platform{
		Catalog: builder.Default(), config: config, pipeline: promote.DefaultPipeline(),
		ready: make(chan struct{}), replaced: map[string]bool{},
	}
	for _, sub := range []string{"sources", "builds"} {
		if err := os.MkdirAll(filepath.Join(config.Dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := p.sweepSources(); err != nil {
		return nil, err
	}
	if p.db, err = openState(config.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.db.Close())
		}
	}()
	if err := p.openParts(ctx); err != nil {
		return nil, err
	}
	return p, p.openEdge(ctx)
}

// openParts opens what is on disk and what works on it.
func (p *Platform) openParts(ctx context.Context) (err error) {
	if p.builds, err = openRecords[Build](p.db, "builds"); err != nil {
		return err
	}
	if p.serving, err = openRecords[serving](p.db, "serving"); err != nil {
		return err
	}
	p.engine = assemble.New(assemble.Config{Insecure: []string{p.config.Registry}})
	journal, err := boltjournal.New(p.db)
	if err != nil {
		return err
	}
	p.promoter, err = promote.New(promote.Config{
		Pipeline: p.pipeline, Journal: journal, Deployer: deployer{p},
		Gates: []promote.Gate{promote.OrderGate{}, promote.ConfigGate{Source: ociregistry.New(ociregistry.Config{Insecure: true})}},
	})
	if err != nil {
		return err
	}
	store, err := boltstore.New(p.db)
	if err != nil {
		return err
	}
	pool, err := vip.ParsePool("trial", p.config.Pool)
	if err != nil {
		return err
	}
	pool.CoolDown = p.config.CoolDown
	p.leases, err = vip.New(ctx, store, []vip.Pool{pool}, vip.Config{Logger: p.config.Logger})
	if err != nil {
		return err
	}
	p.instances, err = instance.Open(instance.Config{
		Dir: filepath.Join(p.config.Dir, "instances"), Changed: p.Events.Bump, Logger: p.config.Logger,
	})
	return err
}

// openEdge starts Nginx with the routes that the state on disk asks for.
func (p *Platform) openEdge(ctx context.Context) (err error) {
	p.Edge, err = edge.New(edge.Config{
		Dir: filepath.Join(p.config.Dir, "nginx"), Tree: p.config.Nginx, Ports: map[int]int{80: p.config.NginxPort},
	})
	if err != nil {
		return err
	}
	active, _, err := p.split()
	if err != nil {
		return err
	}
	p.routed = routes(active, p.leases.List(vip.Query{States: []vip.State{vip.Leased}}), p.baseline())
	p.source = nginxsync.NewStaticSource(p.routed)
	p.revision = p.source.Set(p.routed)
	if p.driver, err = luadriver.New(luadriver.Config{Socket: p.Edge.Socket()}); err != nil {
		return err
	}
	p.agent, err = nginxsync.NewAgent(nginxsync.Config{
		Source: p.source, Driver: p.driver, StateFile: p.Edge.StateFile(), Logger: p.config.Logger,
	})
	if err != nil {
		return err
	}
	return p.Edge.Start(ctx)
}

// Run does what goes on in the background until ctx is done: it first finishes what a crash has cut off, then closes
// Ready's channel, works off builds, keeps instances alive, ends leases, and keeps the routes in step. Instances and Nginx go on
// after it has returned. It is called once.
func (p *Platform) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.agent.Run(ctx) })
	group.Go(func() error { return p.instances.Run(ctx) })
	group.Go(func() error { return p.leases.Run(ctx) })
	group.Go(func() error {
		if err := p.recover(ctx); err != nil {
			return fmt.Errorf("recover: %w", err)
		}
		close(p.ready)
		group.Go(func() error { return p.runBuilds(ctx) })
		return p.reconcile(ctx)
	})
	return group.Wait()
}

// Ready is closed when Run has finished what a crash had cut off.
func (p *Platform) Ready() <-chan struct{} { return p.ready }

func (p *Platform) recover(ctx context.Context) error {
	entries, err := p.promoter.Recover(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p.config.Logger.Info("finished after a restart", "change", e.Op, "cluster", e.Cluster, "environment", e.Environment, "kind", e.Kind)
	}
	if err := errors.Join(p.releaseUnserved(ctx), p.tidyTasks(ctx)); err != nil {
		return err
	}
	return p.settle(ctx)
}

// reconcile catches what no request has caused: an instance on another port, an expired lease, an Nginx that is gone.
func (p *Platform) reconcile(ctx context.Context) error {
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return ctx.Err()
		case <-tick.C:
		}
		if err := errors.Join(p.Edge.Ensure(ctx), p.tidyTasks(ctx), p.settle(ctx)); err != nil && ctx.Err() == nil {
			p.config.Logger.Warn("not in step", "err", err)
		}
	}
}

// Close closes the state on disk. Call it after Run has returned.
func (p *Platform) Close() error { return p.db.Close() }

// Stop ends all instances and Nginx: after it nothing of this platform runs. Call it after Run has returned. A later Open
// on the same folder starts them again.
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
	instances, err := instance.Open(instance.Config{Dir: filepath.Join(dir, "instances")})
	if err != nil {
		return err
	}
	return stop(ctx, dir, instances)
}

func stop(ctx context.Context, dir string, instances *instance.Runtime) error {
	err := edge.Stop(ctx, filepath.Join(dir, "nginx"))
	for _, i := range instances.List() {
		err = errors.Join(err, instances.End(ctx, i.ID))
	}
	return err
}

// stateFile is locked by the process that uses the folder.
const stateFile = "state.db"

func openState(dir string) (*bbolt.DB, error) {
	db, err := bbolt.Open(filepath.Join(dir, stateFile), 0o600, &bbolt.Options{Timeout: 2 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("state in %s: %w: does another server use it?", dir, err)
	}
	return db, nil
}

func (p *Platform) baseline() string { return p.pipeline[len(p.pipeline)-1] }

// VIPAddr is where a tester reaches a VIP.
func (p *Platform) VIPAddr(addr netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(addr, uint16(p.config.NginxPort))
}
