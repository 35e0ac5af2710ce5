package kubejob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/internal/push"
)

// ErrLeft is the cause of a context that ends for a build while its Job goes on: a platform that
// stops uses it, and takes the Job up under the request's ID when it starts again. Any other end of
// the context deletes the Job.
var ErrLeft = errors.New("left running")

// Engine builds images in Jobs of a cluster. It is safe for concurrent use.
type Engine struct {
	config Config
	news   *news
	tags   *push.Tags
	sent   push.Sent
}

var _ builder.Engine = (*Engine)(nil)

// Build implements [builder.Engine]. A request with an ID whose Job is there already, of this
// process or another one, takes that Job up: the build that runs, the result of one that has
// succeeded, and the failure that no caller has heard of yet. A Job whose failure was returned
// makes place for a new one. Another request under the ID is builds.ErrConflict. A failure is a
// [*builder.Failure] wherever the pod, the cluster or a registry says why.
func (e *Engine) Build(ctx context.Context, r builder.Request) (builder.Result, error) {
	start := e.config.Now()
	res, err := e.build(ctx, r)
	if e.config.Observe != nil {
		e.config.Observe("build", e.config.Now().Sub(start), err)
	}
	if err == nil {
		return res, nil
	}
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", err, cause)
		}
	} else {
		err = push.Typed(err)
	}
	return builder.Result{}, fmt.Errorf("build %s: %w", r.Repository, err)
}

func (e *Engine) build(ctx context.Context, r builder.Request) (builder.Result, error) {
	if ctx.Err() != nil {
		return builder.Result{}, context.Cause(ctx)
	}
	plan, err := builder.Check(ctx, r)
	if err != nil {
		return builder.Result{}, err
	}
	if len(r.Platforms) > 0 {
		return builder.Result{}, fmt.Errorf("platforms %v: a Job builds for its own: leave them "+
			"out: %w",
			r.Platforms, builder.ErrUnsupported)
	}
	repo, err := name.NewRepository(r.Repository, append(e.nameOptions(r.Repository),
		name.StrictValidation)...)
	if err != nil {
		return builder.Result{}, fmt.Errorf("repository: %w: %w", err, builder.ErrInvalid)
	}
	if err := tellSteps(ctx, r, plan); err != nil {
		return builder.Result{}, err
	}
	order, err := e.pushOrder(ctx, r, repo)
	if err != nil {
		return builder.Result{}, err
	}
	id := r.ID
	if id == "" {
		id = rand.Text()
	}
	w := &work{engine: e, request: r, id: id}
	var leave func()
	w.changed, leave = e.news.join(hash(id))
	defer leave()
	if err := w.submit(ctx, order); err != nil {
		return builder.Result{}, err
	}
	res, err := e.finish(ctx, w, repo)
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), ErrLeft) {
		return res, err
	}
	return res, errors.Join(err, w.release(ctx, err))
}

// tellSteps emits an event for each instruction of the Dockerfile.
func tellSteps(ctx context.Context, r builder.Request, p builder.Plan) error {
	var steps []builder.Event
	for _, s := range p.Stages {
		steps = append(steps, builder.Event{Line: s.Location[0].Start.Line, Text: s.SourceCode})
		for _, c := range s.Commands {
			steps = append(steps, builder.Event{Line: c.Location()[0].Start.Line,
				Text: fmt.Sprint(c)})
		}
	}
	for i, s := range steps {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.Kind, s.Step, s.Steps = builder.EventStep, i+1, len(steps)
		r.Emit(s)
	}
	return nil
}

// finish waits for the verdict, reads the image back and writes the tag.
func (e *Engine) finish(ctx context.Context, w *work, repo name.Repository) (builder.Result,
	error) {
	verdict, err := w.wait(ctx)
	if err != nil {
		return builder.Result{}, err
	}
	res, img, err := e.result(ctx, repo, verdict)
	if err != nil {
		return builder.Result{}, err
	}
	w.request.Emit(builder.Event{Kind: builder.EventPush, Bytes: res.Uploaded,
		Text: fmt.Sprintf("pushed %s: %d bytes sent, %d reused", res.Reference, res.Uploaded,
			res.Reused)})
	if w.request.Tag != "" {
		if err := e.tag(ctx, w.request, repo, img, res.Digest); err != nil {
			return builder.Result{}, err
		}
		w.request.Emit(builder.Event{Kind: builder.EventTag, Text: "tag " + w.request.Tag})
	}
	w.request.Emit(builder.Event{Kind: builder.EventDone, Text: "digest " + res.Digest})
	return res, nil
}

func (e *Engine) tag(ctx context.Context, r builder.Request, repo name.Repository, img v1.Image,
	digest string) error {
	h, err := v1.NewHash(digest)
	if err != nil {
		return err
	}
	tag, options := repo.Tag(r.Tag), e.options(ctx)
	if err := e.tags.Write(ctx, tag, img, h, r.ReplaceTag, options...); err != nil {
		return err
	}
	there, err := push.Tagged(tag, h, r.ReplaceTag, options...)
	if err == nil && !there {
		err = fmt.Errorf("tag %s does not name %s right after it was written: another process "+
			"writes the tag", tag, digest)
	}
	return err
}

// work is one call of Build.
type work struct {
	engine  *Engine
	request builder.Request
	id      string
	changed <-chan struct{}
	uid     types.UID // of the Job
	since   time.Time // of the Job's creation, on the clock of this process
	settled bool      // the end of the pod is known, and its log is kept
	failed  bool      // the pod has failed, or cannot run
}

// submit makes the Job, or takes up a Job of the same name.
func (w *work) submit(ctx context.Context, order name.Digest) error {
	c := w.engine.config
	jobs := c.Client.BatchV1().Jobs(c.Namespace)
	deadline := c.Deadline
	if at, ok := ctx.Deadline(); ok {
		deadline = max(min(deadline, at.Sub(c.Now())), time.Second).Round(time.Second)
	}
	want := c.job(w.request, w.id, order.String(), order.DigestStr(), deadline)
	for {
		made, err := jobs.Create(ctx, want, metav1.CreateOptions{})
		if err == nil {
			w.uid, w.since = made.UID, c.Now()
			c.Logger.Info("job created", "build", w.id, "job", made.Name)
			return nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return refused(err)
		}
		there, err := jobs.Get(ctx, want.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return fmt.Errorf("job %s: %w", want.Name, err)
		}
		if there.Annotations[orderAnnotation] != order.DigestStr() {
			return fmt.Errorf("build %s: job %s has another order: take another id: %w", w.id,
				want.Name, builds.ErrConflict)
		}
		if there.Annotations[endedAnnotation] != failedEnd && (there.DeletionTimestamp == nil ||
			slices.Contains(there.Finalizers, logFinalizer)) {
			w.uid, w.since = there.UID, c.Now()
			c.Logger.Info("job taken up", "build", w.id, "job", there.Name)
			return nil
		}
		if err := w.replace(ctx, there); err != nil {
			return err
		}
	}
}

// replace removes a Job of an earlier try, and waits for its disappearance.
func (w *work) replace(ctx context.Context, j *batchv1.Job) error {
	c := w.engine.config
	jobs := c.Client.BatchV1().Jobs(c.Namespace)
	if j.DeletionTimestamp == nil {
		err := jobs.Delete(ctx, j.Name, metav1.DeleteOptions{
			Preconditions:     &metav1.Preconditions{UID: &j.UID},
			PropagationPolicy: ptr(metav1.DeletePropagationBackground)})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("job %s: %w", j.Name, err)
		}
	}
	if err := w.unpin(ctx, j.Name, j.UID, failedEnd); err != nil {
		return err
	}
	for {
		now, err := jobs.Get(ctx, j.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && now.UID != j.UID {
			return nil
		}
		if err := w.pause(ctx); err != nil {
			return err
		}
	}
}

// pause waits for news of the Job, at most Config.Poll.
func (w *work) pause(ctx context.Context) error {
	timer := time.NewTimer(w.engine.config.Poll)
	defer timer.Stop()
	select {
	case <-w.changed:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// Values of endedAnnotation.
const (
	succeededEnd = "succeeded"
	failedEnd    = "failed"
)

// release lets the Job go once its log is kept, and marks it as told where a further Build is to
// make a new one. The Job of a build that was cancelled is deleted. A Job whose end is not known,
// or whose log is not kept, stays as it is: the next Build takes it up.
func (w *work) release(ctx context.Context, err error) error {
	c := w.engine.config
	ending, done := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer done()
	end := succeededEnd
	switch {
	case err == nil:
	case ctx.Err() != nil || w.request.ID == "":
		return w.remove(ending, err)
	case !w.settled:
		c.Logger.Warn("job stays", "build", w.id, "job", nameOf(w.id), "error", err)
		return nil
	case !w.failed && builder.FailureOf(push.Typed(err)).Retryable:
		end = "" // the image is there, and the next Build reads it
	default:
		end = failedEnd
	}
	if w.request.ID == "" {
		return nil
	}
	return w.unpin(ending, nameOf(w.id), w.uid, end)
}

// remove deletes the Job. The finalizer goes first: a process that is killed in between leaves a
// Job that Kubernetes removes, and none that waits for its finalizer.
func (w *work) remove(ctx context.Context, cause error) error {
	c := w.engine.config
	if w.request.ID != "" {
		if err := w.unpin(ctx, nameOf(w.id), w.uid, failedEnd); err != nil {
			return err
		}
	}
	err := c.Client.BatchV1().Jobs(c.Namespace).Delete(ctx, nameOf(w.id),
		metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &w.uid},
			PropagationPolicy: ptr(metav1.DeletePropagationBackground)})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete job %s: %w", nameOf(w.id), err)
	}
	c.Logger.Info("job deleted", "build", w.id, "job", nameOf(w.id), "error", cause)
	return nil
}

// unpin removes the finalizer of this package, and no other, and notes the end, unless it is "". A
// Job that has gone, or is another one now, needs none of it.
func (w *work) unpin(ctx context.Context, job string, uid types.UID, end string) error {
	c := w.engine.config
	note := ""
	if end != "" {
		note = fmt.Sprintf(`"annotations":{%q:%q},`, endedAnnotation, end)
	}
	patch := fmt.Sprintf(`{"metadata":{"uid":%q,%s"$deleteFromPrimitiveList/finalizers":[%q]}}`,
		uid, note, logFinalizer)
	_, err := c.Client.BatchV1().Jobs(c.Namespace).Patch(ctx, job, types.StrategicMergePatchType,
		[]byte(patch), metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("job %s: remove finalizer %s: %w", job, logFinalizer, err)
	}
	return nil
}
