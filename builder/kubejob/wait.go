package kubejob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
)

// wait follows the Job and its log to the end, and returns the pod's verdict or a
// [*builder.Failure].
func (w *work) wait(ctx context.Context) (*pod.Verdict, error) {
	log, err := w.openLog(ctx)
	if err != nil {
		return nil, err
	}
	defer log.close()
	var follow *follower
	var last *seen
	verdict, err := w.toTheEnd(ctx, log, &follow, &last)
	follow.stop()
	if ctx.Err() != nil && !w.settled {
		w.leave(ctx, log, last)
	}
	return verdict, err
}

// toTheEnd looks at the Job until its end, and keeps the log.
func (w *work) toTheEnd(ctx context.Context, log *archive, follow **follower, last **seen) (
	*pod.Verdict, error) {
	answered := w.engine.config.Now()
	for {
		s, err := w.look(ctx)
		if now := w.engine.config.Now(); err == nil {
			answered, *last = now, s
		} else if !passes(err) || now.Sub(answered) > patience {
			return nil, err
		} else {
			w.engine.config.Logger.Warn("no answer about the job", "build", w.id, "error", err)
			if err := w.pause(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if *follow == nil && s.started() {
			*follow = w.follow(ctx, s.pod.Name, log)
		}
		verdict, failure := s.end(w.engine.config, w.engine.config.Now().Sub(w.since))
		if verdict == nil && failure == nil {
			if err := w.pause(ctx); err != nil {
				return nil, err
			}
			continue
		}
		(*follow).wait(ctx, s.podEnded())
		if verdict == nil {
			verdict = log.verdict()
		}
		if verdict != nil && failure == nil {
			failure = verdict.Failure
		}
		err = w.close(ctx, log, s, verdict, failure)
		w.settled = err == nil
		if failure == nil {
			return verdict, err
		}
		w.failed = true
		return nil, errors.Join(err, asError(*failure)) // the first one decides on another try
	}
}

// patience is how long a build waits for an API server that does not answer: its pod goes on.
const patience = 5 * time.Minute

// passes reports whether an error of the API server may pass: of the network, or one that says that
// the server cannot answer now.
func passes(err error) bool {
	reason := apierrors.ReasonForError(err)
	return reason == metav1.StatusReasonUnknown || reason == metav1.StatusReasonInternalError ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsServerTimeout(err) ||
		apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err)
}

// asError returns a failure as an error: one of the Dockerfile is a [*builder.DockerfileError] as
// well.
func asError(f builder.Failure) error {
	f.Err = nil
	if f.Reason == builder.ReasonDockerfile {
		f.Err = &builder.DockerfileError{Line: f.Line, Instruction: f.Instruction,
			Err: errors.New(f.Message)}
	}
	return &f
}

// seen is the API server's answer about a build at one time.
type seen struct {
	job    *batchv1.Job // nil if it has gone
	pod    *corev1.Pod  // the newest; nil if there is none
	events []corev1.Event
}

// look asks the API server.
func (w *work) look(ctx context.Context) (*seen, error) {
	c := w.engine.config
	var s seen
	job, err := c.Client.BatchV1().Jobs(c.Namespace).Get(ctx, nameOf(w.id), metav1.GetOptions{})
	switch {
	case err == nil && job.UID == w.uid:
		s.job = job
	case err != nil && !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("job %s: %w", nameOf(w.id), err)
	}
	pods, err := c.Client.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: buildLabel + "=" + hash(w.id)})
	if err != nil {
		return nil, fmt.Errorf("pods of job %s: %w", nameOf(w.id), err)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	for i, p := range pods.Items {
		if slices.ContainsFunc(p.OwnerReferences, func(o metav1.OwnerReference) bool {
			return o.UID == w.uid
		}) {
			s.pod = &pods.Items[i]
		}
	}
	if s.job != nil && !s.running() {
		if s.events, err = w.events(ctx, &s); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

// events returns the warnings about the Job and its pod, the newest last.
func (w *work) events(ctx context.Context, s *seen) ([]corev1.Event, error) {
	c := w.engine.config
	of := []string{string(s.job.UID)}
	if s.pod != nil {
		of = append(of, string(s.pod.UID))
	}
	var all []corev1.Event
	for _, uid := range of {
		list, err := c.Client.CoreV1().Events(c.Namespace).List(ctx, metav1.ListOptions{
			FieldSelector: "type=Warning,involvedObject.uid=" + uid})
		if err != nil {
			return nil, fmt.Errorf("events of job %s: %w", s.job.Name, err)
		}
		all = append(all, list.Items...)
	}
	slices.SortStableFunc(all, func(a, b corev1.Event) int {
		return cmp.Compare(a.LastTimestamp.UnixNano(), b.LastTimestamp.UnixNano())
	})
	return all, nil
}

// podName returns the name of the pod, "" for none.
func (s *seen) podName() string {
	if s == nil || s.pod == nil {
		return ""
	}
	return s.pod.Name
}

// started reports whether the container that builds has begun.
func (s *seen) started() bool {
	c := s.container()
	return c != nil && (c.State.Running != nil || c.State.Terminated != nil)
}

func (s *seen) running() bool {
	c := s.container()
	return c != nil && c.State.Running != nil
}

// podEnded reports whether the log of the pod grows no more.
func (s *seen) podEnded() bool {
	c := s.container()
	return c != nil && c.State.Terminated != nil
}

// container returns the status of the container that builds, nil for none.
func (s *seen) container() *corev1.ContainerStatus {
	if s.pod == nil {
		return nil
	}
	for i, c := range s.pod.Status.ContainerStatuses {
		if c.Name == container {
			return &s.pod.Status.ContainerStatuses[i]
		}
	}
	return nil
}
