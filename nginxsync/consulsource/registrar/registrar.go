// Package registrar registers instances in Consul that do not register themselves, such as those
// of a platform's own machines, and keeps their health up to date there.
//
//	r, err := registrar.New(registrar.Config{Consul: &api.Config{}, Name: "platform",
//		Probe: healthcheck.TCP()})
//	...
//	go r.Run(ctx)
//	err = r.Set([]registrar.Instance{{Service: "hello_web", ID: "hello_web-1", Addr: addr}})
//
// Steps for the embedder:
//
//   - run one Registrar of a name beside each Consul agent, with a token that has service:write;
//   - call Set with all instances, before one gets requests and after one has ended.
//
// Each instance has a check of type TTL, which the Registrar keeps passing while the probe
// succeeds: an instance that fails, and all of them when the Registrar ends without a successor,
// become critical, so that package consulsource leaves them out, and Consul removes them after
// Config.Forget. A Registrar takes over the instances of an earlier one of the same name, and
// removes those that are not in the set; it leaves other instances alone.
package registrar

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/healthcheck"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Registrar. Consul and Name are required.
type Config struct {
	// Consul says how to reach the Consul agent of this machine.
	Consul *api.Config
	// Name distinguishes registrars of one Consul agent. It is in the metadata of each service,
	// under MetaKey.
	Name string
	// Probe asks an instance whether it works. Nil means that all work.
	Probe healthcheck.Probe
	// Every is the time between two rounds of probes. The default is 2 seconds.
	Every time.Duration
	// Timeout bounds a probe. The default is 1 second. A call of Consul has 5 seconds at least.
	Timeout time.Duration
	// TTL is after how long without a word of the Registrar an instance is critical. The default is
	// 15 seconds; three rounds are the least.
	TTL time.Duration
	// Forget is after how long an instance that is critical is removed, 1 minute at least: Consul's
	// own limit. The default is 1 hour.
	Forget time.Duration
	// Logger logs registrations and failures. The default discards.
	Logger *slog.Logger
	// Now is the clock of Observe. The default is time.Now.
	Now func() time.Time
	// Observe is called after each round with "round" and after each probe with "probe", how long
	// it took and its error. It must return soon and be safe for concurrent use. Nil means that
	// there is none.
	Observe func(op string, took time.Duration, err error)
}

// MetaKey is the key of the metadata that holds Config.Name.
const MetaKey = "sluice-registrar"

// Instance is one instance of a service. Service, ID and Addr are required.
type Instance struct {
	Service string
	ID      string // of the Consul agent; each has another one
	Addr    netip.AddrPort
	Version string // metadata "version"
	Tags    []string
	// Weight is Weights.Passing. The default is 1.
	Weight int
}

// Registrar keeps instances registered. It is safe for concurrent use.
type Registrar struct {
	cfg    Config
	client *api.Client

	mu   sync.Mutex
	want map[string]Instance // by id
	set  bool                // Set was called: what is not in want is removed
	wake chan struct{}       // of capacity 1
	err  error               // of the last round
}

// New makes a Registrar, and asks nothing yet. A configuration that is not valid is an error with
// all its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Registrar, error) {
	p := check.Problems{Package: "registrar", Sentinel: nginxsync.ErrInvalid}
	p.Require("Consul", cfg.Consul != nil)
	if err := names.Task(cfg.Name); err != nil {
		p.Join("Name", err)
	}
	p.Duration("Every", &cfg.Every, 2*time.Second)
	p.Duration("Timeout", &cfg.Timeout, time.Second)
	p.Duration("TTL", &cfg.TTL, max(15*time.Second, 3*cfg.Every))
	if cfg.TTL > 0 && cfg.TTL < 3*cfg.Every {
		p.Add("TTL", "%s: want three rounds, %s, or more", cfg.TTL, 3*cfg.Every)
	}
	p.Duration("Forget", &cfg.Forget, time.Hour)
	if cfg.Forget > 0 && cfg.Forget < time.Minute {
		p.Add("Forget", "%s: want 1m or more", cfg.Forget)
	}
	r := &Registrar{want: map[string]Instance{}, wake: make(chan struct{}, 1)}
	if cfg.Consul != nil {
		own := *cfg.Consul
		var err error
		if r.client, err = api.NewClient(&own); err != nil {
			p.Join("Consul", err)
		}
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	r.cfg = cfg
	return r, nil
}

// Set replaces the instances that are to be registered. It does not wait for Consul. An error lists
// all instances that are not valid, with nginxsync.ErrInvalid in its chain, and nothing changes.
func (r *Registrar) Set(instances []Instance) error {
	p := check.Problems{Package: "registrar", Sentinel: nginxsync.ErrInvalid}
	want := make(map[string]Instance, len(instances))
	for i, in := range instances {
		at := fmt.Sprintf("Instances[%d]", i)
		if in.Service == "" || len(in.Service) > 128 {
			p.Add(at, "service %.64q: want a name of 1 to 128 bytes", in.Service)
		}
		if err := names.Instance(in.ID); err != nil {
			p.Join(at, err)
		}
		if !in.Addr.IsValid() || in.Addr.Addr().IsUnspecified() || in.Addr.Port() == 0 {
			p.Add(at, "%s: want the address of a host, with a port", in.Addr)
		}
		if in.Weight < 0 || in.Weight > 65535 {
			p.Add(at, "weight %d: want 0 (default 1) to 65535", in.Weight)
		}
		if _, twice := want[in.ID]; twice {
			p.Add(at, "another one has the id %q", in.ID)
		}
		in.Weight = max(in.Weight, 1)
		in.Addr = netip.AddrPortFrom(in.Addr.Addr().Unmap(), in.Addr.Port())
		in.Tags = slices.Clone(in.Tags)
		want[in.ID] = in
	}
	if err := p.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	r.want, r.set = want, true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

// Err returns the error of the last round, nil when all went well.
func (r *Registrar) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Run keeps the instances registered until ctx ends, and returns its cause. A Consul that fails is
// asked again in the next round. The registrations stay: a successor of the same name goes on, and
// without one they become critical after Config.TTL. Run must not be called twice.
func (r *Registrar) Run(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Every)
	defer tick.Stop()
	for {
		r.mu.Lock()
		want, set := r.want, r.set
		r.mu.Unlock()
		if set {
			start := r.cfg.Now()
			err := r.round(ctx, want)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			r.cfg.Observe("round", r.cfg.Now().Sub(start), err)
			r.mu.Lock()
			known := r.err
			r.err = err
			r.mu.Unlock()
			if err != nil && (known == nil || known.Error() != err.Error()) {
				r.cfg.Logger.Warn("consul", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.wake:
		case <-tick.C:
		}
	}
}

// round brings the Consul agent to the instances, and passes on the results of their probes.
func (r *Registrar) round(ctx context.Context, want map[string]Instance) error {
	have, err := ask(r, ctx, func(q *api.QueryOptions) (map[string]*api.AgentService, error) {
		return r.client.Agent().ServicesWithFilterOpts(fmt.Sprintf("Meta[%q] == %q", MetaKey,
			r.cfg.Name), q)
	})
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	results := r.probes(ctx, want)
	var errs []string
	note := func(id string, err error) { errs = append(errs, id+": "+err.Error()) }
	for _, id := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[id]; ok {
			continue
		}
		if err := r.do(ctx, func(q *api.QueryOptions) error {
			return r.client.Agent().ServiceDeregisterOpts(id, q)
		}); err != nil {
			note(id, err)
			continue
		}
		r.cfg.Logger.Info("instance deregistered", "id", id)
	}
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if err := r.tell(ctx, want[id], have[id], results[id]); err != nil {
			note(id, err)
		}
	}
	if errs != nil {
		return fmt.Errorf("%d of %d instances: %s", len(errs), len(want), strings.Join(errs, "; "))
	}
	return nil
}

// tell registers an instance that Consul lacks, and reports the result of its probe.
func (r *Registrar) tell(ctx context.Context, in Instance, have *api.AgentService,
	result error) error {
	state, output := api.HealthPassing, "works"
	if result != nil {
		state, output = api.HealthCritical, result.Error()
	}
	if !in.is(have) {
		if err := r.do(ctx, func(q *api.QueryOptions) error {
			return r.client.Agent().ServiceRegisterOpts(r.registration(in, state),
				api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(q.Context()))
		}); err != nil {
			return err
		}
		r.cfg.Logger.Info("instance registered", "service", in.Service, "id", in.ID, "addr",
			in.Addr)
	}
	return r.do(ctx, func(q *api.QueryOptions) error {
		return r.client.Agent().UpdateTTLOpts(checkID(in.ID), output, state, q)
	})
}

func checkID(id string) string { return "sluice:" + id }

func (r *Registrar) registration(in Instance, state string) *api.AgentServiceRegistration {
	meta := map[string]string{MetaKey: r.cfg.Name}
	if in.Version != "" {
		meta["version"] = in.Version
	}
	return &api.AgentServiceRegistration{ID: in.ID, Name: in.Service, Tags: in.Tags,
		Address: in.Addr.Addr().String(), Port: int(in.Addr.Port()), Meta: meta,
		Weights: &api.AgentWeights{Passing: in.Weight, Warning: in.Weight},
		Check: &api.AgentServiceCheck{CheckID: checkID(in.ID), Name: "sluice registrar",
			TTL: r.cfg.TTL.String(), Status: state,
			DeregisterCriticalServiceAfter: r.cfg.Forget.String()}}
}

// is reports whether Consul has the instance as it is wanted.
func (in Instance) is(have *api.AgentService) bool {
	return have != nil && have.Service == in.Service && have.Address == in.Addr.Addr().String() &&
		have.Port == int(in.Addr.Port()) && have.Meta["version"] == in.Version &&
		slices.Equal(have.Tags, in.Tags) && have.Weights.Passing == in.Weight
}

// probes asks all instances, 100 at a time.
func (r *Registrar) probes(ctx context.Context, want map[string]Instance) map[string]error {
	results := map[string]error{}
	if r.cfg.Probe == nil {
		return results
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 100)
	for id, in := range want {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.Timeout,
				fmt.Errorf("no answer within %s", r.cfg.Timeout))
			defer cancel()
			start := r.cfg.Now()
			err := r.cfg.Probe(ctx, in.Addr)
			if err != nil {
				err = cmp.Or(context.Cause(ctx), err)
			}
			r.cfg.Observe("probe", r.cfg.Now().Sub(start), err)
			mu.Lock()
			results[id] = err
			mu.Unlock()
		})
	}
	wg.Wait()
	return results
}

// do calls Consul.
func (r *Registrar) do(ctx context.Context, call func(*api.QueryOptions) error) error {
	_, err := ask(r, ctx, func(q *api.QueryOptions) (struct{}, error) {
		return struct{}{}, call(q)
	})
	return err
}

func ask[T any](r *Registrar, ctx context.Context, call func(*api.QueryOptions) (T, error)) (T,
	error) {
	limit := max(5*time.Second, r.cfg.Timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	out, err := call((&api.QueryOptions{}).WithContext(ctx))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return out, err
}
