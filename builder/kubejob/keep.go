package kubejob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
)

// openLog finds the end of the log that is kept already.
func (w *work) openLog(ctx context.Context) (*archive, error) {
	a := &archive{key: string(w.uid), to: w.request.Log}
	if w.request.ID == "" || w.engine.config.Logs == nil {
		return a, nil
	}
	a.store = w.engine.config.Logs
	if err := w.persist(ctx, func() error { return a.open(ctx) }); err != nil {
		return nil, err
	}
	a.start(ctx)
	return a, nil
}

// persist calls the store of logs until it succeeds, for some minutes. The error is then worth
// another try of the build, which takes the same Job up.
func (w *work) persist(ctx context.Context, call func() error) error {
	c := w.engine.config
	begun, told := c.Now(), false
	for {
		err := call()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		c.Logger.Error("the log of a build is not kept", "build", w.id, "error", err)
		if c.Now().Sub(begun) >= c.LogPatience {
			err = fmt.Errorf("log %s of build %s is not kept: %w", w.uid, w.id, err)
			return &builder.Failure{Reason: builder.ReasonInfrastructure, Retryable: true,
				Message: err.Error(), Err: err,
				Hint: "look at the store of logs, then build again: the Job stays until its " +
					"log is kept"}
		}
		if w.request.Log != nil && !told {
			fmt.Fprintf(w.request.Log, "the log is not kept yet: %v\n", err)
			told = true
		}
		again := time.NewTimer(min(c.Poll, time.Second))
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// close ends the log of a pod that has ended, keeps it, and calls Config.Ended. An error means that
// the log is not kept.
func (w *work) close(ctx context.Context, log *archive, s *seen, v *pod.Verdict,
	failure *builder.Failure) error {
	var trailer *pod.Trailer
	var whole []byte
	if v != nil {
		trailer = &v.Log
		if log.next()-1 != v.Log.Lines || len(log.held) > 0 || log.cut {
			whole = w.wholeLog(ctx, v.Log)
		}
	}
	log.close()
	log.settle(ctx, whole, trailer)
	if log.store != nil {
		if err := w.persist(ctx, func() error { return w.keep(ctx, log, trailer) }); err != nil {
			return err
		}
	}
	w.report(log, s, trailer, failure)
	return nil
}

// report hands a report to Config.Ended.
func (w *work) report(log *archive, s *seen, trailer *pod.Trailer, f *builder.Failure) {
	if w.engine.config.Ended == nil {
		return
	}
	r := Report{ID: w.request.ID, Job: nameOf(w.id), Pod: s.podName(), Stored: log.stored(),
		Lines: log.lines, Missing: log.missed, Log: log.state, Failure: f}
	if trailer != nil {
		r.SHA256 = trailer.SHA256
	}
	w.engine.config.Ended(r)
}

// leave stores the known part of the log when ctx has ended. The build has ended then, unless the
// cause is ErrLeft; its pod may go on for a moment.
func (w *work) leave(ctx context.Context, log *archive, s *seen) {
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	log.close()
	cause := context.Cause(ctx)
	if !errors.Is(cause, ErrLeft) {
		log.settle(ending, nil, nil)
	}
	if broken := log.sync(ending); broken != nil {
		w.engine.config.Logger.Error("the log of a build is not kept", "build", w.id, "error",
			broken)
		log.state.Verdict = builds.Gap
		log.state.Bytes, log.state.Lost = log.kept, log.bytes-log.kept
	}
	if errors.Is(cause, ErrLeft) {
		return
	}
	f := &builder.Failure{Reason: builder.ReasonCancelled, Message: cause.Error(), Err: cause}
	if errors.Is(cause, context.DeadlineExceeded) {
		f = builder.FailureOf(cause)
	}
	w.report(log, s, nil, f)
}

// keep stores the rest of the log, reads the whole log back, and compares it with the sum that the
// pod has told. A log that differs is stored again.
func (w *work) keep(ctx context.Context, log *archive, trailer *pod.Trailer) error {
	if err := log.sync(ctx); err != nil {
		return err
	}
	if trailer == nil || log.missed > 0 {
		return nil // the pod told no sum, or one of lines that are missing
	}
	got, size, err := readSum(ctx, log)
	if err != nil || got == trailer.SHA256 {
		return err
	}
	w.engine.config.Logger.Warn("the store has another log than the pod wrote", "build", w.id,
		"bytes", size, "written", trailer.Bytes)
	whole := w.wholeLog(ctx, *trailer)
	if whole == nil {
		log.state.Verdict, log.state.Bytes = builds.Gap, size
		log.state.Lost = max(0, trailer.Bytes-size)
		return nil
	}
	if err := log.replace(ctx, whole); err != nil {
		return err
	}
	log.state.Bytes = int64(len(whole))
	if got, size, err = readSum(ctx, log); err == nil && got != trailer.SHA256 {
		err = fmt.Errorf("the store has %d bytes with the sum %s, the pod wrote %d with %s: "+
			"another process writes this log", size, got, trailer.Bytes, trailer.SHA256)
	}
	return err
}

// readSum reads a log in the store.
func readSum(ctx context.Context, log *archive) (sum string, size int64, err error) {
	h := sha256.New()
	for {
		data, _, err := log.store.ReadLog(ctx, log.key, size, page)
		if err != nil {
			return "", 0, fmt.Errorf("read back: %w", err)
		}
		if len(data) == 0 {
			return hex.EncodeToString(h.Sum(nil)), size, nil
		}
		h.Write(data)
		size += int64(len(data))
	}
}

// wholeLog reads the log that the pod has pushed; nil if it has none, or another one than it says.
func (w *work) wholeLog(ctx context.Context, t pod.Trailer) []byte {
	ref, err := name.NewDigest(t.Artifact, w.engine.nameOptions(t.Artifact)...)
	if err != nil {
		return nil
	}
	img, err := remote.Image(ref, w.engine.options(ctx)...)
	if err != nil {
		w.engine.config.Logger.Warn("the pod's log cannot be read", "build", w.id, "error", err)
		return nil
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		return nil
	}
	content, err := layers[0].Compressed()
	if err != nil {
		return nil
	}
	defer content.Close()
	text, err := io.ReadAll(io.LimitReader(content, t.Bytes+1))
	if sum := sha256.Sum256(text); err != nil || hex.EncodeToString(sum[:]) != t.SHA256 {
		return nil
	}
	return text
}
