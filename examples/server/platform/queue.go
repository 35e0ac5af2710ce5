package platform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/filestore"
	"github.com/sluice-deploy/sluice/internal/names"
)

// A build has two records. The one of the platform has the request and, from the end of the build
// on, its outcome; it is kept for ever. The journal of package builds has the attempts.

// openBuilds are the builds whose record has no end yet: the key of the record, and the id.
type openBuilds struct {
	// held while builds are put into the queue: they enter it in the order of their submission
	settling sync.Mutex

	mu  sync.Mutex
	ids map[string]string
}

func (o *openBuilds) add(key, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ids == nil {
		o.ids = map[string]string{}
	}
	o.ids[key] = id
}

func (o *openBuilds) remove(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.ids, key)
}

// list returns the ids in the order of submission.
func (o *openBuilds) list() (ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(o.ids)) {
		ids = append(ids, o.ids[key])
	}
	return ids
}

// buildStore calls appended for each entry, and logged for each piece of a log, that it has stored.
type buildStore struct {
	*filestore.Store
	appended, logged func()
}

var _ builds.Compacter = buildStore{}

func (s buildStore) Append(ctx context.Context, after uint64, e builds.Entry) error {
	err := s.Store.Append(ctx, after, e)
	if err == nil {
		s.appended()
	}
	return err
}

func (s buildStore) AppendLog(ctx context.Context, name string, offset int64, data []byte) error {
	err := s.Store.AppendLog(ctx, name, offset, data)
	if err == nil {
		s.logged()
	}
	return err
}

// openQueue opens the journal of builds. A build that a crash has cut off is carried out again: the
// same input gives the same digest.
func (p *Platform) openQueue(ctx context.Context) (err error) {
	if err := p.openSpool(ctx); err != nil {
		return err
	}
	p.buildFiles, err = filestore.Open(ctx, filestore.Config{Dir: p.buildsDir()})
	if err != nil {
		return err
	}
	store := buildStore{p.buildFiles, func() { p.buildNews.Bump(); p.Events.Bump() },
		p.Events.Bump}
	p.queue, err = builds.New(builds.Config{
		Journal: store, Logs: store, Owners: store,
		Owner:    "server", // the one process that uses the directory
		Builders: p.config.Builds, Engine: imageEngine{p}, Context: p.buildContext,
		Logger: p.config.Logger,
	})
	if err != nil {
		return err
	}
	known, err := p.builds.list()
	for _, b := range known {
		if b.State.Ended() {
			continue
		}
		key, _, err := p.buildRecord(b.ID)
		if err != nil {
			return err
		}
		p.open.add(key, b.ID)
	}
	return err
}

func (p *Platform) buildsDir() string { return filepath.Join(p.config.Dir, "builds") }

// order asks the queue for a build. It has no more than the record, so that it is the same order
// whenever it is submitted.
func order(b Build) builds.Order {
	o := builds.Order{ID: b.ID, Actor: b.Actor, Team: b.Team, Policy: policies[b.Policy],
		Dockerfile: b.Dockerfile, Repository: stored(b.Cluster)}
	if b.From != nil {
		o.Source = *b.From
	}
	if o.Policy != builds.Parallel {
		o.Group = b.Cluster
	}
	return o
}

// followBuilds puts builds into the queue that are not in it yet, and writes their ends into their
// records.
func (p *Platform) followBuilds(ctx context.Context) error {
	for seen := p.buildNews.Revision(); ; {
		err := p.settleBuilds(ctx)
		if err != nil && ctx.Err() == nil {
			p.config.Logger.Warn("builds", "err", err)
			time.AfterFunc(time.Second, p.buildNews.Bump) // to try again
		}
		if seen, err = p.buildNews.Wait(ctx, seen); err != nil {
			return err
		}
	}
}

// settleBuilds looks at the builds whose record has no end yet. A problem of one keeps no other
// one up.
func (p *Platform) settleBuilds(ctx context.Context) error {
	p.open.settling.Lock()
	defer p.open.settling.Unlock()
	var errs []error
	for _, id := range p.open.list() {
		if err := p.settleBuild(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("build %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

func (p *Platform) settleBuild(ctx context.Context, id string) error {
	key, build, err := p.buildRecord(id)
	if err != nil {
		return err
	}
	if !build.State.Ended() {
		if build, err = p.enqueued(ctx, build); err != nil || !build.State.Ended() {
			return err
		}
		_, err := p.builds.update(key, func(Build) (Build, error) { return build, nil })
		if err != nil {
			return err
		}
		p.Events.Bump()
	}
	if err := os.RemoveAll(p.keptSource(id)); err != nil {
		return err
	}
	p.open.remove(key)
	return nil
}

// enqueued is a build as it is now; one that the queue does not have yet is put into it.
func (p *Platform) enqueued(ctx context.Context, b Build) (Build, error) {
	_, err := p.queue.Submit(ctx, order(b))
	if errors.Is(err, builds.ErrConflict) || errors.Is(err, builder.ErrInvalid) {
		// a journal of another past than the records, which no one can mend
		b.State, b.Error, b.Ended = BuildFailed, err.Error(), time.Now().UTC()
		return b, nil
	}
	if err != nil {
		return b, err
	}
	return p.now(ctx, b)
}

// now is an open build as the journal has it.
func (p *Platform) now(ctx context.Context, b Build) (Build, error) {
	got, err := p.queue.Get(ctx, b.ID)
	if errors.Is(err, builder.ErrNotFound) {
		return b, nil // it is not in the queue yet
	}
	if err != nil {
		return b, err
	}
	entries, err := p.queue.Follow(ctx, b.ID, 0)
	if err != nil {
		return b, err
	}
	b.Started = time.Time{}
	for _, e := range entries {
		switch {
		case e.Seq > got.Seq:
		case e.Kind == builds.Started:
			b.Started = e.Time
		case e.Kind == builds.Requeued:
			b.Started = time.Time{}
		}
	}
	b.CancelledBy, b.Tries, b.Identity = got.By, got.Tries, got.Identity
	if got.Reason != noReason {
		b.Reason = got.Reason
	}
	if got.State.Ended() {
		b.Ended, b.Log = got.Changed, got.Log
	}
	switch got.State {
	case builds.StateQueued:
		b.State = BuildQueued
	case builds.StateSucceeded:
		b.State = BuildSucceeded
		b.Digest, b.Size, b.Uploaded = got.Result.Digest, got.Result.Size, got.Result.Uploaded
	case builds.StateFailed:
		b.State, b.Failure, b.Error = BuildFailed, got.Failure, got.Failure.Message
	case builds.StateCancelled:
		b.State, b.Error = BuildCancelled, "cancelled by "+got.By
		if b.Reason != "" {
			b.Error += ": " + b.Reason
		}
	case builds.StateSuperseded:
		b.State, b.Error = BuildSuperseded, got.Reason
	default:
		b.State = BuildRunning
	}
	return b, nil
}

// noReason is the reason in the journal when none was given.
const noReason = "no reason was given"

// CancelBuild ends a build that is queued or runs, for actor and a reason, which may be empty, and
// returns it as it is then: one that runs ends a moment later. One that has ended is ErrConflict.
func (p *Platform) CancelBuild(ctx context.Context, id, actor, reason string) (Build, error) {
	if err := checkNames(names.Actor(actor)); err != nil {
		return Build{}, err
	}
	reason = cmp.Or(reason, noReason)
	build, err := p.known(ctx, id)
	if err != nil {
		return Build{}, err
	}
	if build.State.Ended() {
		return Build{}, fmt.Errorf("build %s: it has %s already: %w", id, build.State, ErrConflict)
	}
	if _, err := p.queue.Cancel(ctx, id, actor, reason); err != nil {
		return Build{}, err
	}
	build, err = p.now(ctx, build)
	if err == nil && build.State.Ended() && build.State != BuildCancelled {
		err = fmt.Errorf("build %s: it has %s already: %w", id, build.State, ErrConflict)
	}
	return build, err
}

// sweepBuilds removes the kept sources of builds that need them no more: a crash has come between
// the two.
func (p *Platform) sweepBuilds() error {
	left, err := filepath.Glob(p.keptSource("*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		id := strings.TrimSuffix(filepath.Base(dir), filepath.Ext(dir))
		_, build, err := p.buildRecord(id)
		if err == nil && !build.State.Ended() || err != nil && !errors.Is(err, ErrNotFound) {
			continue // a record that cannot be read is not one that has ended
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}
