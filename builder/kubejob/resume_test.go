//go:build linux

package kubejob_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/kubejob"
)

// A platform that stops leaves its build to the Job, and the next one takes it up: one Job, and a
// log that is whole over both.
func TestNextProcessTakesTheJobUp(t *testing.T) {
	t.Parallel()
	b := start(t)
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	r := b.request("app", "FROM "+b.base+"\nRUN for i in $(seq 2000); do echo line $i; done\n"+
		"RUN sleep 5\nRUN echo the end\n")
	r.Tag = "v1"
	begun := make(chan struct{})
	r.Log = &noted{begun: begun}
	left := make(chan error, 1)
	first := b.engine(t)
	go func() {
		_, err := first.Build(ctx, r)
		left <- err
	}()
	select {
	case <-begun:
	case err := <-left:
		require.NoError(t, err)
	}
	stop(kubejob.ErrLeft)
	require.ErrorIs(t, <-left, kubejob.ErrLeft)
	jobs := b.jobs(t)
	require.Len(t, jobs, 1)
	require.NotEmpty(t, jobs[0].Finalizers)

	r.Log = nil
	ctx, done := context.WithTimeout(t.Context(), 3*time.Minute)
	defer done()
	_, err := b.engine(t).Build(ctx, r)
	require.NoError(t, err)
	now := b.jobs(t)
	require.Len(t, now, 1)
	require.Equal(t, jobs[0].UID, now[0].UID)
	require.Empty(t, now[0].Finalizers)
	report := b.report(t)
	require.Equal(t, builds.Complete, report.Log.Verdict)
	sum := sha256.Sum256(b.log(t, report.Stored))
	require.Equal(t, report.SHA256, hex.EncodeToString(sum[:]))
	require.Greater(t, report.Lines, int64(2000))
}
