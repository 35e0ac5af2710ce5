package web

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// pace lets the viewers see the same few of many revisions, at the same time, so that the sections
// rendered for one serve all. It is safe for concurrent use.
type pace struct {
	events *platform.Events
	every  time.Duration // the least time between two revisions

	mu    sync.Mutex
	shown uint64    // the newest revision that was let through
	at    time.Time // when
}

// wait returns the newest revision that all viewers see, as soon as it differs from seen, or ctx's
// cause. Start with 0.
func (p *pace) wait(ctx context.Context, seen uint64) (uint64, error) {
	for {
		shown, pause := p.look()
		if shown != seen && shown != 0 {
			return shown, nil
		}
		if pause > 0 {
			select {
			case <-ctx.Done():
				return seen, context.Cause(ctx)
			case <-time.After(pause):
			}
			continue
		}
		if _, err := p.events.Wait(ctx, shown); err != nil {
			return seen, err
		}
	}
}

// look lets the current revision through when its time has come. Else it returns how long that
// takes, 0 when there is no newer one.
func (p *pace) look() (shown uint64, pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	current := p.events.Revision()
	if current == p.shown {
		return p.shown, 0
	}
	if pause = p.every - time.Since(p.at); p.at.IsZero() || pause <= 0 {
		p.shown, p.at, pause = current, time.Now(), 0
	}
	return p.shown, pause
}

// newest is the newest revision that viewers have seen.
func (p *pace) newest() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown
}
