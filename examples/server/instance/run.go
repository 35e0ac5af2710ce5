package instance

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	watchEvery   = 200 * time.Millisecond
	firstRestart = 500 * time.Millisecond // doubles up to lastRestart
	lastRestart  = 30 * time.Second
)

// Run starts instances again that have ended by themselves, with growing pauses, until ctx is done.
// It leaves the instances running when it returns.
func (r *Runtime) Run(ctx context.Context) error {
	var restarts sync.WaitGroup
	defer restarts.Wait()
	due := map[string]time.Time{}
	pause := map[string]time.Duration{}
	for tick := time.NewTicker(watchEvery); ; {
		for _, i := range r.List() {
			if i.Alive() {
				if time.Since(i.Started) > lastRestart {
					delete(pause, i.ID)
				}
				continue
			}
			if time.Now().Before(due[i.ID]) {
				continue
			}
			release, _ := r.tryClaim(i.ID)
			if release == nil {
				continue
			}
			due[i.ID] = time.Now().Add(max(firstRestart, pause[i.ID]))
			pause[i.ID] = min(max(firstRestart, 2*pause[i.ID]), lastRestart)
			restarts.Go(func() {
				defer release()
				r.restart(ctx, i.ID)
			})
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (r *Runtime) restart(ctx context.Context, id string) {
	i, found := r.get(id)
	if !found || i.Alive() {
		return
	}
	before := i.Addr
	if !r.wasDown(id) {
		i.Restarts++
	}
	i, err := r.start(ctx, i)
	if ctx.Err() != nil { // it may well get ready, and the next Run looks after it
		return
	}
	if err != nil {
		err = errors.Join(err, r.end(ctx, i)) // one that is not ready would pass for alive
		r.config.Logger.Warn("instance does not start again", "id", id, "err", err)
		return
	}
	r.config.Logger.Info("instance started again", "id", id, "addr", i.Addr, "restarts", i.Restarts)
	if i.Addr != before && r.config.Changed != nil {
		r.config.Changed()
	}
}
