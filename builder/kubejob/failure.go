package kubejob

import (
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
)

// refused types the API server's answer to a Job that it does not take.
func refused(err error) error {
	f := &builder.Failure{Message: "create the job: " + err.Error(), Err: err}
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		noRoom(f)
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err):
		forbidden(f)
	default:
		return fmt.Errorf("create the job: %w", err)
	}
	return f
}

func noRoom(f *builder.Failure) {
	f.Reason, f.Retryable = builder.ReasonNoRoom, true
	f.Hint = "try again later, raise the quota, or add nodes"
}

func forbidden(f *builder.Failure) {
	f.Reason = builder.ReasonForbidden
	f.Hint = "ask Doctor which profile the namespace allows, and look at its policies"
}

// end returns the pod's verdict once there is one, or a failure by the cluster's words. Both are
// nil while the build can go on. waited is the time since the Job was made or taken up.
func (s *seen) end(c Config, waited time.Duration) (*pod.Verdict, *builder.Failure) {
	if s.job == nil {
		return nil, deleted("the Job is gone")
	}
	if s.job.DeletionTimestamp != nil && !s.podEnded() {
		return nil, deleted("the Job is to be deleted")
	}
	status := s.container()
	if status != nil && status.State.Terminated != nil {
		return s.terminated(status.State.Terminated)
	}
	if s.pod != nil && s.pod.Status.Phase == corev1.PodFailed {
		return nil, s.podFailure(&builder.Failure{Message: s.pod.Status.Message})
	}
	if s.pod != nil && s.pod.DeletionTimestamp != nil {
		if f := s.lost(); f != nil {
			return nil, f
		}
	}
	if failed := condition(s.job); failed != nil && s.pod == nil {
		f := &builder.Failure{Message: failed.Message}
		f.Evidence = []string{"job condition: " + failed.Reason}
		unknown(f)
		if failed.Reason == batchv1.JobReasonBackoffLimitExceeded {
			f.Message = "the pod is gone, and with it what it knew"
		}
		return nil, f
	}
	if s.running() {
		return nil, nil
	}
	return nil, s.stuck(c, waited)
}

// terminated returns the verdict of a container that has ended.
func (s *seen) terminated(t *corev1.ContainerStateTerminated) (*pod.Verdict, *builder.Failure) {
	v, err := pod.ParseVerdict(t.Message)
	if err == nil && (v.Failure != nil || v.Digest != "") {
		if v.Failure != nil && v.Failure.Reason == builder.ReasonEvicted {
			s.podFailure(v.Failure)
		}
		return v, v.Failure
	}
	f := &builder.Failure{Message: fmt.Sprintf("the pod ended without a verdict: %s, exit code %d",
		t.Reason, t.ExitCode)}
	return nil, s.podFailure(f)
}

// podFailure types the failure of a pod from its status.
func (s *seen) podFailure(f *builder.Failure) *builder.Failure {
	p := s.pod
	unknown(f)
	if c := s.container(); c != nil && c.State.Terminated != nil {
		t := c.State.Terminated
		f.Evidence = append(f.Evidence, fmt.Sprintf("container: %s, exit code %d", t.Reason,
			t.ExitCode))
		if t.Reason == "OOMKilled" {
			f.Reason, f.Retryable = builder.ReasonMemory, false
			f.Hint = "allow the build more memory, or let it need less"
		}
	}
	if p.Status.Reason != "" {
		f.Evidence = append(f.Evidence, "pod: "+p.Status.Reason+": "+p.Status.Message)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			f.Evidence = append(f.Evidence, "disruption: "+c.Reason+": "+c.Message)
			f.Reason, f.Retryable = builder.ReasonEvicted, true
			f.Hint = "try again"
		}
	}
	switch p.Status.Reason {
	case "DeadlineExceeded":
		f.Reason, f.Retryable = builder.ReasonDeadline, false
		f.Hint = "allow more time, or make the build smaller"
	case "Evicted":
		f.Reason, f.Retryable, f.Hint = builder.ReasonEvicted, true, "try again"
		if strings.Contains(p.Status.Message, "ephemeral") ||
			strings.Contains(p.Status.Message, "emptyDir") {
			f.Reason, f.Retryable = builder.ReasonDisk, false
			f.Hint = "allow the build more disk, or make it smaller"
		}
	}
	if p.DeletionTimestamp != nil && f.Reason == builder.ReasonEvicted &&
		!slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.DisruptionTarget
		}) && p.Status.Reason == "" {
		*f = *deleted("the pod was deleted")
	}
	return f
}

func unknown(f *builder.Failure) {
	if f.Reason == "" {
		f.Reason, f.Retryable = builder.ReasonInfrastructure, true
		f.Hint = "try again; if it fails again, look at the pod and its node"
	}
}

func deleted(message string) *builder.Failure {
	return &builder.Failure{Reason: builder.ReasonDeleted, Message: message,
		Hint: "submit the build again, if its deletion was a mistake"}
}

// lost returns a failure for a pod that is terminating on a node that does not answer.
func (s *seen) lost() *builder.Failure {
	for _, c := range s.pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Reason == "DeletionByTaintManager" {
			return &builder.Failure{Reason: builder.ReasonMachineLost, Retryable: true,
				Message:  "node " + s.pod.Spec.NodeName + " does not answer",
				Hint:     "try again; look at the node",
				Evidence: []string{"disruption: " + c.Reason + ": " + c.Message}}
		}
	}
	return nil
}

// condition returns the Job's condition Failed, nil if it has none.
func condition(j *batchv1.Job) *batchv1.JobCondition {
	for i, c := range j.Status.Conditions {
		if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
			return &j.Status.Conditions[i]
		}
	}
	return nil
}

// stuck returns the failure of a build whose pod cannot begin: at once where waiting does not help,
// and otherwise at the end of Config.StartDeadline.
func (s *seen) stuck(c Config, waited time.Duration) *builder.Failure {
	f := &builder.Failure{}
	if s.pod == nil {
		for _, e := range s.events {
			if e.Reason == "FailedCreate" {
				f.Message, f.Evidence = e.Message, []string{"event: " + e.Reason}
			}
		}
		switch {
		case f.Message == "":
		case strings.Contains(f.Message, "exceeded quota"):
			noRoom(f)
		case strings.Contains(f.Message, "is forbidden") ||
			strings.Contains(f.Message, "denied the request"):
			forbidden(f)
			return f
		}
	} else if s.waiting(f) {
		return f
	}
	if waited < c.StartDeadline {
		return nil
	}
	unknown(f)
	if f.Message == "" {
		f.Message = "no pod, and no word of the cluster why"
	}
	f.Message = fmt.Sprintf("the build did not begin within %s: %s", c.StartDeadline, f.Message)
	return f
}

// waiting says in f why a pod has not begun, and reports whether waiting does not help.
func (s *seen) waiting(f *builder.Failure) bool {
	for _, c := range s.pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			noRoom(f)
			f.Message, f.Evidence = c.Message, []string{"pod condition: " + c.Reason}
			return false
		}
	}
	f.Message = "the pod is being set up"
	for _, e := range s.events {
		switch e.Reason {
		case "FailedMount", "FailedCreatePodSandBox", "FailedAttachVolume":
			f.Reason, f.Message = builder.ReasonSetup, e.Message
			f.Hint = "look at the Secrets that Config names, and at the node's container runtime"
			f.Evidence = []string{"event: " + e.Reason}
		}
	}
	for _, c := range slices.Concat(s.pod.Status.InitContainerStatuses,
		s.pod.Status.ContainerStatuses) {
		w := c.State.Waiting
		if w == nil {
			continue
		}
		switch w.Reason {
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
			f.Reason, f.Message = builder.ReasonBuilderImage, w.Message
			f.Hint = "look at Config.Image and Config.PullSecrets"
			f.Evidence = []string{"container " + c.Name + ": " + w.Reason}
			return w.Reason != "ErrImagePull" // the first try may meet a registry that is busy
		case "CreateContainerConfigError", "CreateContainerError":
			f.Reason, f.Message = builder.ReasonSetup, w.Message
			f.Hint = "look at the Secrets that Config names"
			f.Evidence = []string{"container " + c.Name + ": " + w.Reason}
		}
	}
	return false
}
