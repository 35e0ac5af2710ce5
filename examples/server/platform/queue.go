package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-deploy/sluice/internal/names"
)

// queue knows the builds that run. The zero value is ready to use.
type queue struct {
	mu      sync.Mutex
	running map[string]context.CancelFunc
}

// enter admits a build unless it runs already or limit others do.
func (q *queue) enter(id string, limit int, cancel context.CancelFunc) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running == nil {
		q.running = map[string]context.CancelFunc{}
	}
	if q.running[id] != nil || len(q.running) >= limit {
		return false
	}
	q.running[id] = cancel
	return true
}

func (q *queue) leave(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running[id]()
	delete(q.running, id)
}

// cancel ends the build if it runs.
func (q *queue) cancel(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cancel := q.running[id]; cancel != nil {
		cancel()
	}
}

// runBuilds works off the queue. A build that a crash has cut off is run again: the same input
// gives the same digest.
func (p *Platform) runBuilds(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for seen := uint64(0); ; {
			builds, err := p.builds.list()
			if err != nil {
				return err
			}
			for _, build := range builds {
				if build.State.Ended() {
					continue
				}
				building, cancel := context.WithCancel(ctx)
				if !p.queue.enter(build.ID, p.config.Builds, cancel) {
					cancel()
					continue
				}
				group.Go(func() error {
					defer p.Events.Bump() // there is room for the next one
					defer p.queue.leave(build.ID)
					return p.runBuild(ctx, building, build.ID)
				})
			}
			if seen, err = p.Events.Wait(ctx, seen); err != nil {
				return err
			}
		}
	})
	return group.Wait()
}

var errEnded = errors.New("the build has ended")

// runBuild returns an error only when the build's record cannot be written or ctx is done. The end
// of building alone cancels the build.
func (p *Platform) runBuild(ctx, building context.Context, id string) error {
	build, err := p.updateBuild(id, func(b *Build) {
		b.State, b.Started = BuildRunning, time.Now().UTC()
	})
	if errors.Is(err, errEnded) { // it was cancelled, or ended a moment ago
		return nil
	}
	if err != nil {
		return err
	}
	log, err := os.Create(p.BuildLog(id))
	if err != nil {
		return err
	}
	defer log.Close()
	if build.CancelledBy != "" { // before a crash
		p.queue.cancel(id)
	}
	result, buildErr := p.build(building, build, io.MultiWriter(log, notifier{&p.Events}))
	if ctx.Err() != nil {
		// it stays "running" on disk and is run again after the next start
		return context.Cause(ctx)
	}
	_, err = p.updateBuild(id, func(b *Build) {
		b.Ended = time.Now().UTC()
		b.Digest, b.Size, b.Uploaded = result.Digest, result.Size, result.Uploaded
		switch {
		case buildErr == nil:
			b.State = BuildSucceeded
		case building.Err() != nil:
			b.State, b.Error = BuildCancelled, "cancelled by "+b.CancelledBy
			fmt.Fprintln(log, b.Error)
		default:
			b.State, b.Error = BuildFailed, buildErr.Error()
			fmt.Fprintln(log, "failed:", buildErr)
		}
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(p.keptSource(id))
}

// CancelBuild ends a build that is queued or runs, for actor, and returns it as it is then: one
// that runs ends a moment later. One that has ended is ErrConflict.
func (p *Platform) CancelBuild(id, actor string) (Build, error) {
	if err := checkNames(names.Actor(actor)); err != nil {
		return Build{}, err
	}
	if _, err := p.Build(id); err != nil {
		return Build{}, err
	}
	queued := false
	build, err := p.updateBuild(id, func(b *Build) {
		b.CancelledBy = actor
		if queued = b.State == BuildQueued; queued {
			b.State, b.Error, b.Ended = BuildCancelled, "cancelled by "+actor, time.Now().UTC()
		}
	})
	if errors.Is(err, errEnded) {
		return Build{}, fmt.Errorf("build %s: it has %s already: %w", id, build.State, ErrConflict)
	}
	if err != nil {
		return Build{}, err
	}
	if queued {
		return build, os.RemoveAll(p.keptSource(id))
	}
	p.queue.cancel(id)
	return build, nil
}

// updateBuild applies change to the record of a build, or returns errEnded for an ended one.
func (p *Platform) updateBuild(id string, change func(*Build)) (Build, error) {
	defer p.Events.Bump()
	return p.builds.update(id, func(b Build) (Build, error) {
		if b.State.Ended() {
			return b, errEnded
		}
		change(&b)
		return b, nil
	})
}

// sweepBuilds removes the kept sources of builds that need them no more: a crash has come between
// the two.
func (p *Platform) sweepBuilds() error {
	left, err := filepath.Glob(p.keptSource("*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		build, found, err := p.builds.get(strings.TrimSuffix(filepath.Base(dir), filepath.Ext(dir)))
		if err != nil || found && !build.State.Ended() {
			continue // a record that cannot be read is not one that has ended
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// notifier bumps the events for everything that is written to it.
type notifier struct{ events *Events }

func (n notifier) Write(data []byte) (int, error) {
	n.events.Bump()
	return len(data), nil
}
