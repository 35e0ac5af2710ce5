package platform

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
)

// BuildEvent is one entry of the journal of builds.
type BuildEvent struct {
	// Seq is its place in the journal: those of one build grow.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Kind is one that docs/builds.md lists.
	Kind string `json:"kind"`
	// Attempt is the number of the attempt, the Seq of its start.
	Attempt uint64 `json:"attempt,omitempty"`
	Actor   string `json:"actor,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// By is the build that took the place of this one.
	By      string           `json:"by,omitempty"`
	Digest  string           `json:"digest,omitempty"`
	Failure *builder.Failure `json:"failure,omitempty"`
	Log     *builds.LogState `json:"log,omitempty"`
}

// BuildEvents returns the events of a build with a Seq above after, oldest first, as there are now.
// A build that the journal has forgotten, or that is older than it, has none.
func (p *Platform) BuildEvents(ctx context.Context, id string, after uint64) ([]BuildEvent, error) {
	if _, err := p.known(ctx, id); err != nil {
		return nil, err
	}
	got, err := p.queue.Get(ctx, id)
	if errors.Is(err, builder.ErrNotFound) || err == nil && got.Seq <= after {
		return []BuildEvent{}, nil
	}
	if err != nil {
		return nil, err
	}
	return p.followBuild(ctx, id, after) // at once, for there are some
}

// FollowBuildEvents is BuildEvents, but waits for at least one event. An ended build has no more:
// then it returns none at once.
func (p *Platform) FollowBuildEvents(ctx context.Context, id string, after uint64) ([]BuildEvent,
	error) {
	if _, err := p.known(ctx, id); err != nil {
		return nil, err
	}
	return p.followBuild(ctx, id, after)
}

func (p *Platform) followBuild(ctx context.Context, id string, after uint64) ([]BuildEvent, error) {
	entries, err := p.queue.Follow(ctx, id, after)
	if errors.Is(err, builder.ErrNotFound) {
		return []BuildEvent{}, nil
	}
	events := make([]BuildEvent, 0, len(entries))
	for _, e := range entries {
		event := BuildEvent{Seq: e.Seq, Time: e.Time, Kind: string(e.Kind), Attempt: e.Attempt,
			Actor: e.Actor, Reason: e.Reason, By: e.By, Failure: e.Failure, Log: e.Log}
		if e.Kind == builds.Submitted {
			event.Actor = e.Order.Actor
		}
		if e.Result != nil {
			event.Digest = e.Result.Digest
		}
		events = append(events, event)
	}
	return events, err
}

// known returns a build that the queue has, unless it has ended.
func (p *Platform) known(ctx context.Context, id string) (Build, error) {
	build, err := p.Build(ctx, id)
	if err != nil || build.State.Ended() {
		return build, err
	}
	if _, err := p.queue.Get(ctx, id); !errors.Is(err, builder.ErrNotFound) {
		return build, err
	}
	if err := p.settleBuilds(ctx); err != nil {
		return build, err
	}
	return p.Build(ctx, id)
}
