package consulsource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// limits of the probe
const (
	quick      = 500 * time.Millisecond // after that without an answer, a new connection is tried
	again      = time.Second            // and one more after each of these
	renewEvery = 10 * time.Second       // between two spells that end because of dead connections
)

// probe asks for the leader all the time.
func (s *Source) probe(ctx context.Context) {
	for ctx.Err() == nil {
		dead, err := s.leader(ctx)
		if ctx.Err() != nil {
			return
		}
		s.probed(dead, err)
		pause := s.cfg.Probe
		if err != nil {
			pause = min(pause, again)
		}
		_ = retry.Sleep(ctx, pause)
	}
}

// errNoLeader is the answer of a Consul whose servers have no leader.
var errNoLeader = errors.New("consul has no leader")

// leader returns an error unless Consul names a leader in time. dead is true when a new connection
// brought the answer while the open one was silent.
func (s *Source) leader(ctx context.Context) (dead bool, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, askLimit, fmt.Errorf("no answer in %s",
		askLimit))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	start := s.cfg.Now()
	type outcome struct {
		fresh bool
		err   error
	}
	out := make(chan outcome, 2+int(askLimit/again)) // one for each question
	ask := func(client *api.Client, fresh bool) {
		leader, err := client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(
			limited))
		if err == nil && leader == "" {
			err = errNoLeader
		}
		out <- outcome{fresh, plain(limited, err)}
	}
	wg.Go(func() { ask(s.clients.kept, false) })
	timer := time.NewTimer(quick)
	defer timer.Stop()
	var failed error // of a new connection, while the open one is silent
	for {
		select {
		case <-timer.C:
			if s.clients.fresh != nil {
				wg.Go(func() { ask(s.clients.fresh, true) })
			}
			timer.Reset(again)
			continue
		case o := <-out:
			if o.fresh && o.err != nil && !errors.Is(o.err, errNoLeader) && limited.Err() == nil {
				failed = o.err // another one is tried
				continue
			}
			dead, err = o.fresh && o.err == nil, o.err
		}
		if err != nil && limited.Err() != nil {
			err = cmp.Or(failed, err)
		}
		s.cfg.Observe("probe", s.cfg.Now().Sub(start), err)
		return dead, err
	}
}

// probed notes the outcome of a probe.
func (s *Source) probed(dead bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (err == nil) != (s.away == nil) {
		s.cfg.Logger.Warn("consul", "err", err)
	}
	now := s.cfg.Now()
	since := now.Sub(s.renewed) // less than nothing after the clock was set back
	switch {
	case err == nil && s.away != nil:
		s.renew()
	case dead && (since >= renewEvery || since < 0):
		s.cfg.Logger.Warn("connections to consul are dead, new ones work")
		s.renewed = now
		s.renew()
	}
	s.away = err
	if s.heard() {
		s.announce()
	}
}

// renew has all queries begin again on new connections: Consul is back after it was away, or the
// open connections are dead. The caller holds mu.
func (s *Source) renew() {
	s.clients.idle()
	s.wake()
	s.spell, s.wake = context.WithCancel(context.Background())
}
