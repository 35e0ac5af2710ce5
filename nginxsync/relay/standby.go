package relay

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// standBy follows the fallback while no relay is heard.
func (s *Source) standBy(ctx context.Context) {
	tries := retry.Backoff{}
	for s.away(ctx) {
		err := s.stand(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil { // a relay is heard
			tries = retry.Backoff{}
			continue
		}
		s.unfit(err)
		if retry.Sleep(ctx, tries.Next(time.Second, time.Minute)) != nil {
			return
		}
	}
}

// away waits until no relay has been heard for long enough; false when ctx ends.
func (s *Source) away(ctx context.Context) bool {
	for {
		s.mu.Lock()
		changed, connected, since := s.changed, s.status.Connected, s.status.Since
		s.mu.Unlock()
		// A clock that was set back begins the time once more.
		wait := min(s.cfg.FallbackAfter-s.cfg.Now().Sub(since), s.cfg.FallbackAfter)
		var late <-chan time.Time
		switch {
		case !connected && wait <= 0:
			return ctx.Err() == nil
		case !connected:
			late = time.After(wait)
		}
		select {
		case <-changed:
		case <-late:
		case <-ctx.Done():
			return false
		}
	}
}

// stand runs a fallback until a relay is heard, which is no error.
func (s *Source) stand(ctx context.Context) error {
	spare, err := s.cfg.Fallback()
	if err != nil {
		return err
	}
	s.cfg.Logger.Warn("fallback is followed", "after", s.cfg.FallbackAfter)
	own, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { _ = spare.Run(own) }) // its error is the context's cause
	wg.Go(func() {
		defer stop()
		for {
			s.mu.Lock()
			changed, connected := s.changed, s.status.Connected
			s.mu.Unlock()
			if connected {
				return
			}
			select {
			case <-changed:
			case <-own.Done():
				return
			}
		}
	})
	var after uint64
	tries := retry.Backoff{}
	for {
		snapshot, revision, err := spare.Watch(own, after)
		if own.Err() != nil {
			return nil
		}
		if err != nil {
			s.unfit(err)
			if retry.Sleep(own, tries.Next(100*time.Millisecond, 5*time.Second)) != nil {
				return nil
			}
			continue
		}
		after, tries = revision, retry.Backoff{}
		s.mu.Lock()
		if !s.status.Connected {
			s.stood, s.status.Fallback, s.status.FallbackError = &snapshot, true, ""
			s.revision++
			s.tell()
		}
		s.mu.Unlock()
	}
}

// unfit notes an error of the fallback.
func (s *Source) unfit(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.FallbackError != err.Error() {
		s.cfg.Logger.Warn("fallback cannot be followed", "err", err)
	}
	s.status.FallbackError = err.Error()
}
