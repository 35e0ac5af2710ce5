package platform_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/internal/names/namestest"
)

func TestNames(t *testing.T) {
	t.Parallel()
	p, err := platform.Open(t.Context(), goodConfig(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	require.NoError(t, p.PutSource("web", bytes.NewReader(archive(t, map[string]string{"app": "x",
		"envs/test/f": "x"}))))
	notNow, cancel := context.WithCancel(t.Context()) // a request with good names waits for Run
	cancel()
	for _, s := range namestest.Samples() {
		build := platform.BuildRequest{Cluster: "web", Version: "v1", Template: "go-static",
			Source: "web", Actor: "ann"}
		task := platform.TaskRequest{Task: "search", Cluster: "web", Version: "v1", Actor: "ann"}
		switch s.Word {
		case namestest.Cluster:
			build.Cluster, task.Cluster = s.Name, s.Name
		case namestest.Version:
			build.Version, task.Version = s.Name, s.Name
		case namestest.Task:
			task.Task = s.Name
		default:
			continue
		}
		t.Run(string(s.Word)+" "+s.Case, func(t *testing.T) {
			_, err := p.SubmitBuild(t.Context(), build)
			_, taskErr := p.StartTask(notNow, task)
			if s.Good {
				require.NoError(t, err)
				require.ErrorIs(t, taskErr, context.Canceled)
				return
			}
			require.ErrorIs(t, taskErr, platform.ErrInvalid)
			require.ErrorContains(t, taskErr, string(s.Word)+" ")
			if s.Word != namestest.Task {
				require.ErrorIs(t, err, platform.ErrInvalid)
				require.ErrorContains(t, err, string(s.Word)+" ")
			}
		})
	}
}
