package consulsource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// limits of one question that does not wait, and of the pauses after a failure
const (
	askLimit   = 5 * time.Second
	firstPause = 100 * time.Millisecond
	mostPause  = 5 * time.Second
)

// Run asks Consul until ctx ends, and returns its cause. A Consul that fails is asked again without
// limit. Run must not be called twice.
func (s *Source) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	s.mu.Lock()
	s.run = true
	for _, v := range s.services {
		wg.Go(func() { s.follow(ctx, v) })
	}
	s.mu.Unlock()
	defer s.stop()
	wg.Go(func() { s.probe(ctx) })
	if s.cfg.Tag != "" {
		wg.Go(func() { s.discover(ctx, &wg) })
	}
	first := time.NewTimer(s.cfg.FirstWait)
	defer first.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-first.C:
			if !s.late() {
				first.Reset(s.cfg.FirstWait)
			}
		}
	}
}

// stop ends the timers.
func (s *Source) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run = false
	for _, v := range s.services {
		if v.timer != nil {
			v.timer.Stop()
		}
	}
}

// late gives out the first snapshot without the services that did not answer, when any did.
func (s *Source) late() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.services {
		if !s.ready && !v.answered.IsZero() {
			s.ready = true
			s.announce()
		}
	}
	return s.ready
}

// plain is the error with the cause of a context that ended it.
func plain(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// follow asks for one service again and again.
func (s *Source) follow(ctx context.Context, v *service) {
	var index uint64
	rate := bucket{every: s.cfg.Every}
	tries := retry.Backoff{}
	for ctx.Err() == nil {
		if err := retry.Sleep(ctx, rate.take(s.cfg.Now())); err != nil {
			return
		}
		entries, next, err := s.ask(ctx, v, index)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			s.hold(v, entries)
			var list []nginxsync.Instance
			var aside []string
			list, aside, v.given = instances(entries, s.cfg.VersionMeta, v.given)
			s.answer(v, list, aside)
			index, tries = next, retry.Backoff{}
		case errors.Is(err, errWoken):
			index = 0
		default:
			index = 0
			s.fail(v, err)
			s.pause(ctx, tries.Next(firstPause, mostPause))
		}
	}
}

// errWoken ends a blocking query whose connection may be one that died: see renew.
var errWoken = errors.New("the connection may be dead")

// pause waits, at most until Consul is back.
func (s *Source) pause(ctx context.Context, d time.Duration) {
	s.mu.Lock()
	spell := s.spell
	s.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-spell.Done():
	case <-ctx.Done():
	}
}

// ask sends one query for a service, which waits for a change when index is not 0. It returns the
// index for the next one. An answer that takes the last instance away is confirmed by the leader.
func (s *Source) ask(ctx context.Context, v *service, index uint64) ([]*api.ServiceEntry, uint64,
	error) {
	start := s.cfg.Now()
	entries, meta, err := s.query(ctx, v, index, false)
	if err != nil {
		return nil, 0, err
	}
	next := nextIndex(index, meta.LastIndex, s.cfg.Now().Sub(start) < s.wait())
	s.mu.Lock()
	empties := len(entries) == 0 && len(v.raw) > 0
	s.mu.Unlock()
	if empties {
		if entries, _, err = s.query(ctx, v, 0, true); err != nil {
			return nil, 0, fmt.Errorf("confirm that no instance is left: %w", err)
		}
	}
	return entries, next, nil
}

// query sends one query, with a slot of its own while it waits.
func (s *Source) query(ctx context.Context, v *service, index uint64, leader bool) (
	[]*api.ServiceEntry, *api.QueryMeta, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	ctx, wake := context.WithCancelCause(ctx)
	defer wake(nil)
	if s.waiting(v, func() { wake(errWoken) }) {
		index = 0
	}
	defer s.waiting(v, nil)
	options, end := s.options(ctx, index, leader)
	defer end()
	start := s.cfg.Now()
	entries, meta, err := s.clients.queries.Health().Service(v.name, "", true, options)
	err = plain(options.Context(), err)
	if err == nil {
		err = believable(meta, s.cfg.MaxStale)
	}
	s.cfg.Observe("service", s.cfg.Now().Sub(start), err)
	return entries, meta, err
}

// wait is how long a blocking query waits.
func (s *Source) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns() > 1 {
		return min(s.cfg.Wait, s.cfg.Turn)
	}
	return s.cfg.Wait
}

// options are the options of one query. It ends when it takes longer than Consul may take, and with
// the spell.
func (s *Source) options(ctx context.Context, index uint64, leader bool) (*api.QueryOptions,
	func()) {
	wait := s.wait()
	s.mu.Lock()
	spell := s.spell
	s.mu.Unlock()
	limit := askLimit
	if index > 0 {
		limit += wait + wait/16
	}
	limited, end := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer in %s", limit))
	limited, wake := context.WithCancelCause(limited)
	stop := context.AfterFunc(spell, func() { wake(errWoken) })
	// Near keeps Consul from its streaming backend, which names no leader in its answers and wakes
	// no query after a restore (seen with Consul 1.22).
	options := &api.QueryOptions{WaitIndex: index, AllowStale: !leader, RequireConsistent: leader,
		Filter: s.cfg.Filter, Near: "_agent"}
	if index > 0 {
		options.WaitTime = wait
	}
	return options.WithContext(limited), func() { stop(); wake(nil); end() }
}

// discover finds the services with the tag.
func (s *Source) discover(ctx context.Context, wg *sync.WaitGroup) {
	var index uint64
	rate := bucket{every: s.cfg.Every}
	tries := retry.Backoff{}
	for ctx.Err() == nil {
		if err := retry.Sleep(ctx, rate.take(s.cfg.Now())); err != nil {
			return
		}
		options, end := s.options(ctx, index, false)
		options.Filter = ""
		start := s.cfg.Now()
		found, meta, err := s.clients.queries.Catalog().Services(options)
		err = plain(options.Context(), err)
		end()
		if err == nil {
			err = believable(meta, s.cfg.MaxStale)
		}
		s.cfg.Observe("catalog", s.cfg.Now().Sub(start), err)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errWoken):
			index = 0
			continue
		case err != nil:
			index = 0
			s.cfg.Logger.Warn("catalogue is not heard", "err", err)
			s.found(ctx, wg, nil, fmt.Errorf("catalogue: %w", err))
			s.pause(ctx, tries.Next(firstPause, mostPause))
			continue
		}
		early := s.cfg.Now().Sub(start) < options.WaitTime
		index, tries = nextIndex(index, meta.LastIndex, early), retry.Backoff{}
		s.found(ctx, wg, found, nil)
	}
}

// found follows the services that the catalogue names with the tag. One that it names no more is
// followed all the same: it has no instance then.
func (s *Source) found(ctx context.Context, wg *sync.WaitGroup, services map[string][]string,
	err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catalogue = err
	if err != nil {
		s.heard()
		return
	}
	s.searched = true
	known := map[string]bool{}
	for _, v := range s.services {
		known[v.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if known[name] || s.refused[name] != "" || !slices.Contains(services[name], s.cfg.Tag) {
			continue
		}
		cluster := strings.ToLower(name)
		err := names.Cluster(cluster)
		if err == nil && s.services[cluster] != nil {
			err = fmt.Errorf("service %s is the cluster %s already", s.services[cluster].name,
				cluster)
		}
		if err != nil {
			s.refused[name] = err.Error()
			s.cfg.Logger.Warn("service is no cluster", "service", name, "err", err)
			continue
		}
		v := &service{cluster: cluster, name: name}
		s.services[cluster] = v
		wg.Go(func() { s.follow(ctx, v) })
	}
	if s.heard() {
		s.announce()
	}
}
