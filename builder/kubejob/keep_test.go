//go:build linux

package kubejob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// fullDisk is a store that keeps nothing while it is full.
type fullDisk struct {
	builds.Logs
	full atomic.Bool
}

func (d *fullDisk) AppendLog(ctx context.Context, key string, at int64, data []byte) error {
	if d.full.Load() {
		return errors.New("no space left on device")
	}
	return d.Logs.AppendLog(ctx, key, at, data)
}

// A Job keeps its finalizer while its log is not kept, at each end of a build: the failure says so,
// and the next Build takes the same Job up.
func TestJobStaysUntilItsLogIsKept(t *testing.T) {
	t.Parallel()
	b := start(t)
	disk := &fullDisk{Logs: b.config.Logs}
	b.config.Logs, b.config.LogPatience = disk, time.Second
	e := b.engine(t)
	for id, c := range map[string]struct {
		run    string
		reason builder.Reason
	}{"good": {"true", ""}, "bad": {"exit 3", builder.ReasonCommand}} {
		disk.full.Store(true)
		b.reports = nil
		r := b.request(id, "FROM "+b.base+"\nRUN echo hello; "+c.run+"\n")
		var live bytes.Buffer
		r.Log = &live
		before := len(b.jobs(t))
		_, err := e.Build(t.Context(), r)
		f := builder.FailureOf(err)
		require.Equal(t, builder.ReasonInfrastructure, f.Reason, "%v", err)
		require.True(t, f.Retryable)
		require.Contains(t, f.Message, "is not kept: no space left on device")
		require.Contains(t, live.String(), "the log is not kept yet")
		require.Empty(t, b.reports)
		jobs := b.jobs(t)
		require.Len(t, jobs, before+1)
		held := 0
		for _, j := range jobs {
			held += len(j.Finalizers)
		}
		require.Equal(t, 1, held)

		disk.full.Store(false)
		_, err = e.Build(t.Context(), r)
		if c.reason == "" {
			require.NoError(t, err)
		} else {
			require.Equal(t, c.reason, builder.FailureOf(err).Reason, "%v", err)
		}
		require.Len(t, b.jobs(t), before+1)
		for _, j := range b.jobs(t) {
			require.Empty(t, j.Finalizers)
		}
		report := b.report(t)
		require.Equal(t, builds.Complete, report.Log.Verdict)
		log := b.log(t, report.Stored)
		sum := sha256.Sum256(log)
		require.Equal(t, report.SHA256, hex.EncodeToString(sum[:]))
		require.Contains(t, string(log), "      hello\n")
	}
}

// A build that is cancelled has a report of its end, with the log as far as it had come, and its
// Job goes.
func TestCancelledBuildIsTold(t *testing.T) {
	t.Parallel()
	b := start(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	r := b.request("app", fmt.Sprintf(sleeps, b.base))
	begun := make(chan struct{})
	r.Log = &noted{begun: begun}
	done := make(chan error, 1)
	e := b.engine(t)
	go func() {
		_, err := e.Build(ctx, r)
		done <- err
	}()
	select {
	case <-begun:
	case err := <-done:
		require.NoError(t, err)
	}
	cause := errors.New("ann has cancelled it")
	cancel(cause)
	require.ErrorIs(t, <-done, cause)
	report := b.report(t)
	require.Equal(t, builder.ReasonCancelled, report.Failure.Reason)
	require.Equal(t, cause.Error(), report.Failure.Message)
	require.Equal(t, builds.Truncated, report.Log.Verdict)
	log := b.log(t, report.Stored)
	require.Contains(t, string(log), "RUN sleep 600\n")
	require.Equal(t, report.Log.Bytes, int64(len(log)))
	testbed.Poll(t, "the end of the job", func() error {
		if n := len(b.jobs(t)); n > 0 {
			return fmt.Errorf("%d jobs", n)
		}
		return nil
	})
}
