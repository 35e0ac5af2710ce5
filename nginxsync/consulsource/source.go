package consulsource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// Source is an nginxsync.Source of the services in Consul. Its methods are safe for concurrent use;
// any number of agents may watch one source, which asks Consul once for all of them.
type Source struct {
	cfg     Config
	clients clients
	slots   chan struct{} // one for each blocking query under way

	mu       sync.Mutex
	services map[string]*service // by cluster
	revision uint64
	snapshot nginxsync.Snapshot // of revision; not changed any more
	ready    bool               // the first snapshot is complete, or was waited for long enough
	trouble  error              // nil, or why nothing is heard
	since    time.Time          // of trouble
	told     bool               // a watcher was told of trouble
	changed  chan struct{}      // closed with each change
	away     error              // of the last probe
	spell    context.Context    // ends when queries have to begin again: see renew
	wake     context.CancelFunc // ends the spell
	renewed  time.Time          // of the last spell that ended because connections were dead
	run      bool
	holders  map[registration]holder
	// of the catalogue: whether it has answered, the error of the last query, and the services with
	// the tag that are no clusters, with the reason
	searched  bool
	catalogue error
	refused   map[string]string
}

var _ nginxsync.Source = (*Source)(nil)

// service is the knowledge of one service. Its fields are guarded by Source.mu.
type service struct {
	cluster, name string
	answered      time.Time // of the last answer that was used; zero before the first
	err           error     // of the last query
	given         given     // the ids of the last answer; of follow alone
	stale         bool      // the next query must not wait
	wake          func()    // ends the query that waits; nil while none does
	raw           []nginxsync.Instance
	serve         []nginxsync.Instance
	aside         []string
	flapping      []string
	damper        damper
	timer         *time.Timer // looks again at flapping instances
}

// New checks the configuration and makes a source. It sends nothing: see Run. A configuration that
// is not valid is an error with all its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Source, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	clients, err := connect(*cfg.Consul, cfg.Connections+1) // one for the catalogue
	if err != nil {
		return nil, fmt.Errorf("consulsource: Config.Consul: %w: %w", err, nginxsync.ErrInvalid)
	}
	s := &Source{cfg: cfg, clients: clients, slots: make(chan struct{}, cfg.Connections),
		services: map[string]*service{}, holders: map[registration]holder{},
		changed:  make(chan struct{}),
		searched: cfg.Tag == "", refused: map[string]string{}}
	s.spell, s.wake = context.WithCancel(context.Background())
	for cluster, name := range cfg.Services {
		s.services[cluster] = &service{cluster: cluster, name: name}
	}
	return s, nil
}

// patience is how long nothing may be heard before a watcher gets an error: a server that has just
// started, or just lost its leader, is soon well.
const patience = 500 * time.Millisecond

// lateIn is how long a watcher still waits before it gets the error of a trouble. A clock that was
// set back begins that time once more.
func lateIn(since, now time.Time) time.Duration {
	return min(patience-now.Sub(since), patience)
}

// Watch implements nginxsync.Source. It returns an error while nothing is heard of Consul for more
// than half a second: the last snapshot stays in force. Before the first answers it waits.
func (s *Source) Watch(ctx context.Context, after uint64) (nginxsync.Snapshot, uint64, error) {
	for {
		if ctx.Err() != nil {
			return nginxsync.Snapshot{}, 0, context.Cause(ctx)
		}
		s.mu.Lock()
		snapshot, revision, trouble, changed := s.snapshot, s.revision, s.trouble, s.changed
		wait := lateIn(s.since, s.cfg.Now())
		s.told = s.told || trouble != nil && wait <= 0
		s.mu.Unlock()
		var late <-chan time.Time
		switch {
		case revision != 0 && revision != after:
			return snapshot, revision, nil
		case trouble != nil && wait <= 0:
			return nginxsync.Snapshot{}, 0, trouble
		case trouble != nil:
			late = time.After(wait)
		}
		select {
		case <-changed:
		case <-late:
		case <-ctx.Done():
		}
	}
}

// Status is the state of a Source.
type Status struct {
	// Services by the order of their clusters.
	Services []ServiceStatus `json:"services"`
	// Away is why Consul does not answer; empty when it does.
	Away string `json:"away"`
	// Refused are the services with the tag that are no clusters, with the reason.
	Refused map[string]string `json:"refused"`
	// Catalogue is the error of the last search for the tag; empty when it went well.
	Catalogue string `json:"catalogue"`
	// Turns is how many turns the queries take because there are more services than connections: 1
	// when each has its own.
	Turns int `json:"turns"`
}

// ServiceStatus is the state of one service.
type ServiceStatus struct {
	Cluster   string    `json:"cluster"`
	Service   string    `json:"service"`
	Instances int       `json:"instances"`
	Answered  time.Time `json:"answered"` // of the last answer that was used; zero before the first
	Error     string    `json:"error"`    // of the last query; the instances of before stay
	SetAside  []string  `json:"setAside"` // entries that are no instances
	Flapping  []string  `json:"flapping"` // ids that are left out until they are calm
}

// Status returns a copy of the source's current state.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Turns: s.turns(), Refused: maps.Clone(s.refused)}
	if s.catalogue != nil {
		out.Catalogue = s.catalogue.Error()
	}
	if s.away != nil {
		out.Away = s.away.Error()
	}
	for _, cluster := range slices.Sorted(maps.Keys(s.services)) {
		v := s.services[cluster]
		state := ServiceStatus{Cluster: cluster, Service: v.name, Instances: len(v.serve),
			Answered: v.answered, SetAside: slices.Clone(v.aside),
			Flapping: slices.Clone(v.flapping)}
		if v.err != nil {
			state.Error = v.err.Error()
		}
		out.Services = append(out.Services, state)
	}
	return out
}

// turns is how many turns the queries take.
func (s *Source) turns() int {
	return max(1, (len(s.services)+cap(s.slots)-1)/cap(s.slots))
}

// announce makes a new revision, and wakes the watchers. The caller holds mu.
func (s *Source) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
	if !s.ready {
		return
	}
	baseline := make(map[string][]nginxsync.Instance, len(s.services))
	for cluster, v := range s.services {
		if !v.answered.IsZero() {
			baseline[cluster] = v.serve
		}
	}
	s.snapshot = nginxsync.Snapshot{Baseline: baseline}
	s.revision++
}

// answer takes the instances that Consul named for a service.
func (s *Source) answer(v *service, list []nginxsync.Instance, aside []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := v.answered.IsZero()
	v.answered, v.err, v.raw = s.cfg.Now(), nil, list
	changed := s.damp(v)
	if !slices.Equal(v.aside, aside) {
		v.aside = aside
		s.cfg.Logger.Warn("entries set aside", "service", v.name, "entries", aside)
	}
	wasReady := s.ready
	s.ready = s.ready || s.complete()
	recovered := s.heard()
	if changed || first || recovered || !wasReady && s.ready {
		s.announce()
	}
}

// damp works out which instances of a service serve, and reports whether that has changed.
func (s *Source) damp(v *service) bool {
	serve, flapping, again := v.damper.apply(s.cfg.Now(), v.raw)
	if v.timer != nil {
		v.timer.Stop()
		v.timer = nil
	}
	if !again.IsZero() {
		v.timer = time.AfterFunc(calmIn(again, s.cfg.Now()), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.run && s.damp(v) {
				s.announce()
			}
		})
	}
	if !slices.Equal(v.flapping, flapping) {
		v.flapping = flapping
		s.cfg.Logger.Warn("instances that come and go are left out", "service", v.name, "instances",
			flapping)
	}
	changed := !slices.Equal(v.serve, serve)
	v.serve = serve
	return changed
}

// calmIn is in how long to look at flapping instances that may serve from a time on: at calmAfter
// at the latest, so that a clock that was set back does not keep them out.
func calmIn(from, now time.Time) time.Duration {
	return min(from.Sub(now), calmAfter) + time.Millisecond
}

// complete reports whether each service has answered.
func (s *Source) complete() bool {
	if !s.searched {
		return false
	}
	for _, v := range s.services {
		if v.answered.IsZero() {
			return false
		}
	}
	return true
}

// fail notes that a service was not heard.
func (s *Source) fail(v *service, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.err == nil || v.err.Error() != err.Error() {
		s.cfg.Logger.Warn("service is not heard", "service", v.name, "err", err)
	}
	v.err = err
	s.heard()
}

// heard works out whether anything is heard of Consul, wakes the watchers when that has changed,
// and reports whether it is heard again. The caller holds mu.
func (s *Source) heard() (recovered bool) {
	trouble := s.away
	if trouble == nil && len(s.services) == 0 {
		trouble = s.catalogue
	}
	if trouble == nil {
		var errs []error
		for _, v := range s.services {
			if v.err == nil {
				errs = nil
				break
			}
			if len(errs) < 3 {
				errs = append(errs, fmt.Errorf("service %s: %w", v.name, v.err))
			}
		}
		trouble = errors.Join(errs...)
	}
	began, ended := trouble != nil && s.trouble == nil, trouble == nil && s.trouble != nil
	s.trouble = trouble
	if began {
		s.since = s.cfg.Now()
		close(s.changed)
		s.changed = make(chan struct{})
	}
	recovered = ended && s.told
	s.told = s.told && !ended
	return recovered
}
