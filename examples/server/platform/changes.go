package platform

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// Change is a promotion, a rollback or the start of a task, and how far it has come.
type Change struct {
	ID          string    `json:"id"`
	State       string    `json:"state"` // docs/promote-states.md has the states
	Op          string    `json:"op"`
	Cluster     string    `json:"cluster"`
	Environment string    `json:"environment"`
	Task        string    `json:"task,omitempty"`
	Version     string    `json:"version"`
	Digest      string    `json:"digest"`
	Actor       string    `json:"actor"`
	Reason      string    `json:"reason,omitempty"`
	Started     time.Time `json:"started"`
	Ended       time.Time `json:"ended,omitzero"`
	// Waiting is why the deployer cannot be asked now.
	Waiting string `json:"waiting,omitempty"`
	Error   string `json:"error,omitempty"`
	// Doubt is why the earlier deployment could not be restored.
	Doubt       string `json:"doubt,omitempty"`
	AbortedBy   string `json:"abortedBy,omitempty"`
	AbortReason string `json:"abortReason,omitempty"`
}

// Change returns a change, also one that has ended.
func (p *Platform) Change(ctx context.Context, id string) (Change, error) {
	s, err := p.promoter.Status(ctx, promote.ChangeID(id))
	if err != nil {
		return Change{}, err
	}
	return Change{ID: string(s.ID), State: string(s.State), Op: string(s.Op), Cluster: s.Cluster,
		Environment: s.Environment, Task: s.Task, Version: s.Version, Digest: string(s.Digest),
		Actor: s.Actor, Reason: s.Reason, Started: s.Started, Ended: s.Ended, Waiting: s.Waiting,
		Error: s.Error, Doubt: s.Doubt, AbortedBy: s.AbortedBy, AbortReason: s.AbortReason}, nil
}

// ChangeEvents returns all entries of a change, oldest first: its start, the events while it was
// carried out, and its end.
func (p *Platform) ChangeEvents(ctx context.Context, id string) ([]Entry, error) {
	entries, err := p.promoter.Events(ctx, promote.ChangeID(id))
	return entriesOf(entries), err
}

// rolled shows an event of the rollout, and writes it into the journal where it belongs there.
func (p *Platform) rolled(e rollout.Event) {
	defer p.Events.Bump()
	progress, ok := e.Progress()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := p.promoter.Progress(ctx, progress); err != nil {
		p.config.Logger.Warn("event of a rollout is not in the journal", "err", err)
	}
}

// AbortChange ends a change that is under way and returns it: the earlier deployment is put back.
func (p *Platform) AbortChange(ctx context.Context, id, actor, reason string) (Change, error) {
	if err := p.promoter.Abort(ctx, promote.ChangeID(id), actor, reason); err != nil {
		return Change{}, err
	}
	return p.Change(ctx, id)
}

// PauseChange holds the rollout of a change before it starts instances or moves routes next, until
// ContinueChange, or until the change is aborted. The journal has the actor.
func (p *Platform) PauseChange(ctx context.Context, id, actor string) (Change, error) {
	return p.steer(ctx, id, actor, "pause", p.rollout.Pause)
}

// ContinueChange lets a paused change go on.
func (p *Platform) ContinueChange(ctx context.Context, id, actor string) (Change, error) {
	return p.steer(ctx, id, actor, "continue", p.rollout.Continue)
}

// steer pauses or continues the rollout of a change. The journal has it before it is done, and once
// more when it did not succeed.
func (p *Platform) steer(ctx context.Context, id, actor string, op promote.Op,
	do func(context.Context, promote.Target) error) (Change, error) {
	s, err := p.promoter.Status(ctx, promote.ChangeID(id))
	if err != nil {
		return Change{}, err
	}
	refused := func(why string) (Change, error) {
		return Change{}, fmt.Errorf("%s change %s: %s: %w", op, id, why, ErrConflict)
	}
	if s.State.Ended() {
		return refused("it has ended")
	}
	if s.Op == promote.OpRetire {
		return refused("it ends a target, which has no batches")
	}
	status, err := p.rollout.Status(ctx, s.Target)
	if err != nil {
		return Change{}, err
	}
	if status.Record.Seen != s.Generation {
		return refused("its rollout has not begun: ask again")
	}
	note := promote.Note{Target: s.Target, Op: op, Actor: actor, Reason: "change " + id}
	if err := p.promoter.Note(ctx, note); err != nil {
		return Change{}, err
	}
	if err := do(ctx, s.Target); err != nil {
		note.Error = err.Error()
		return Change{}, errors.Join(err, p.promoter.Note(context.WithoutCancel(ctx), note))
	}
	return p.Change(ctx, id)
}

// BeginPromotion is Promote that returns when the promotion is in the journal.
func (p *Platform) BeginPromotion(ctx context.Context, request PromotionRequest) (Change, error) {
	return p.beginPromotion(ctx, request.promotion)
}

// beginPromotion is promote that returns when the promotion is in the journal.
func (p *Platform) beginPromotion(ctx context.Context, asked func() (promote.Request, error)) (
	Change, error) {
	request, err := asked()
	if err != nil {
		return Change{}, err
	}
	return p.beginChange(ctx, func() (promote.ChangeID, error) {
		return p.promoter.Start(ctx, request)
	})
}

// BeginRollback is Rollback that returns when the rollback is in the journal.
func (p *Platform) BeginRollback(ctx context.Context, request RollbackRequest) (Change, error) {
	asked, err := request.rollback()
	if err != nil {
		return Change{}, err
	}
	return p.beginChange(ctx, func() (promote.ChangeID, error) {
		return p.promoter.StartRollback(ctx, asked)
	})
}

// beginChange admits a change that start begins, and returns it.
func (p *Platform) beginChange(ctx context.Context, start func() (promote.ChangeID, error)) (Change,
	error) {
	end, err := p.begin(ctx)
	if err != nil {
		return Change{}, err
	}
	id, err := start()
	if err != nil {
		end()
		return Change{}, err
	}
	go func() {
		defer end()
		_, _ = p.promoter.Wait(context.WithoutCancel(ctx), id) // the journal keeps the outcome
	}()
	return p.Change(ctx, string(id))
}

// BeginTask is StartTask that returns when the task has a VIP and its deployment is in the journal.
// The ID of the change is empty where the task is served already.
func (p *Platform) BeginTask(ctx context.Context, request TaskRequest) (Change, error) {
	deploy, done, err := p.admitTask(ctx, request)
	if err != nil {
		return Change{}, err
	}
	lease, served, err := p.lease(ctx, deploy)
	if err != nil || served {
		done()
		return Change{}, err
	}
	release := func(ctx context.Context) error {
		_, err := p.leases.Release(ctx, lease.ID, "the deployment did not succeed")
		return err
	}
	id, err := p.promoter.Start(ctx, deploy)
	if err != nil {
		defer done()
		return Change{}, errors.Join(err, release(context.WithoutCancel(ctx)))
	}
	go func() {
		defer done()
		ctx := context.WithoutCancel(ctx)
		_, err := p.promoter.Wait(ctx, id)
		switch {
		case errors.Is(err, promote.ErrClosed): // the next start of the server finishes it
		case err != nil:
			err = release(ctx)
		default:
			_, err = p.leases.Renew(ctx, lease.ID, p.config.TaskTTL)
		}
		if err != nil {
			p.config.Logger.Warn("task", "task", deploy.Task, "err", err)
		}
	}()
	return p.Change(ctx, string(id))
}

// DigestRequest asks to keep a digest back, or to release it.
type DigestRequest struct {
	Cluster string `json:"cluster,omitempty"` // empty: of all clusters
	Digest  string `json:"digest"`
	Actor   string `json:"actor"`
	Reason  string `json:"reason"`
}

func (r DigestRequest) request() promote.QuarantineRequest {
	return promote.QuarantineRequest{Cluster: r.Cluster, Digest: promote.Digest(r.Digest),
		Actor: r.Actor, Reason: r.Reason}
}

// Quarantine keeps a digest from every environment until Release.
func (p *Platform) Quarantine(ctx context.Context, request DigestRequest) error {
	return p.promoter.Quarantine(ctx, request.request())
}

// Release ends the quarantine of a digest, and the holds that rollbacks have put on it.
func (p *Platform) Release(ctx context.Context, request DigestRequest) error {
	return p.promoter.Release(ctx, request.request())
}
