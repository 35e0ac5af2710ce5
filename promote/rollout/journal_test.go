package rollout_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
	"github.com/sluice-deploy/sluice/promote/rollout/rollouttest"
)

// greyDeployer carries a deployment out as a grey release alone.
type greyDeployer struct{ *rollout.Steps }

func (d greyDeployer) Deploy(ctx context.Context, dep promote.Deployment) error {
	return d.Run(ctx, dep.Target, dep.Generation)
}

func (d greyDeployer) Remove(ctx context.Context, dep promote.Deployment) error {
	return d.Back(ctx, dep.Target)
}

// The journal has each step of a grey release, its verdict and the way back, under the change's ID.
func TestProgressInTheJournal(t *testing.T) {
	t.Parallel()
	var p *promote.Promoter
	refused := errors.New("5 % errors, the baseline has 0.1 %")
	var late rollout.Event
	steps, err := rollout.NewSteps(rollout.StepsConfig{Switch: &rollouttest.MemSwitch{},
		Shares: []rollout.Share{50_000, rollout.All},
		Check: func(_ context.Context, s rollout.Passed) error {
			if s.Share == rollout.All {
				return refused
			}
			return nil
		},
		Events: func(e rollout.Event) {
			if progress, ok := e.Progress(); ok {
				written, err := p.Progress(context.Background(), progress)
				require.NoError(t, err)
				require.True(t, written)
				late = e
			}
		}})
	require.NoError(t, err)
	p, err = promote.New(promote.Config{Journal: promote.NewMemJournal(),
		Deployer: greyDeployer{steps}})
	require.NoError(t, err)
	require.NoError(t, p.Bind(t.Context(), promote.Binding{Cluster: "web", Version: "v1",
		Digest:     promote.Digest("sha256:" + strings.Repeat("01", 32)),
		Repository: "registry:5000/web", Actor: "ci"}))
	id, err := p.Start(t.Context(), promote.Request{Version: "v1", Expect: promote.None,
		Target: promote.Target{Cluster: "web", Environment: "test"}, Actor: "ann"})
	require.NoError(t, err)
	_, err = p.Wait(t.Context(), id)
	require.ErrorContains(t, err, refused.Error())
	entries, err := p.Events(t.Context(), id)
	require.NoError(t, err)
	var lines []string
	for _, e := range entries {
		require.Equal(t, id, e.ID())
		lines = append(lines, strings.TrimSpace(string(e.Kind)+" "+string(e.Op)+" "+e.Reason))
	}
	require.Equal(t, []string{"started promote", "progressed switched 5 %",
		"progressed checked 5 %", "progressed switched 100 %", "progressed back 100 %",
		"progressed switched 0 %", "restoring promote", "failed promote"}, lines)
	require.Equal(t, refused.Error(), entries[4].Error)
	status, err := p.Status(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, promote.Undone, status.State)

	progress, _ := late.Progress()
	written, err := p.Progress(t.Context(), progress)
	require.NoError(t, err)
	require.False(t, written, "its change has ended")
	_, err = p.Events(t.Context(), "web-1")
	require.ErrorIs(t, err, promote.ErrNotFound)
	_, err = p.Events(t.Context(), "web")
	require.ErrorIs(t, err, promote.ErrInvalid)
	progress.Op = "promote"
	_, err = p.Progress(t.Context(), progress)
	require.ErrorIs(t, err, promote.ErrInvalid)
	_, journaled := rollout.Event{Kind: rollout.EventReady, Instance: "a"}.Progress()
	require.False(t, journaled)
}
