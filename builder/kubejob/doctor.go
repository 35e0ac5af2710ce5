package kubejob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sluice-deploy/sluice/builder"
)

// Diagnosis is the answer of Doctor.
type Diagnosis struct {
	// Profiles has an element for each profile, the ones with the least rights on the node first.
	Profiles []ProfileState `json:"profiles"`
	// Missing are rights that manifests/rbac.yaml gives and the client lacks: "create jobs.batch".
	Missing []string `json:"missing,omitempty"`
}

// ProfileState says whether pods of a profile may run.
type ProfileState struct {
	Profile Profile `json:"profile"`
	// Allowed says that the API server admits such a pod into the namespace.
	Allowed bool `json:"allowed"`
	// Nodes is the number of ready nodes of Config.NodeSelector that can run it; -1 where the
	// client may not list nodes.
	Nodes int `json:"nodes"`
	// Why has the API server's objection; "" for none.
	Why string `json:"why,omitempty"`
}

// Works reports whether pods of the profile can run, as far as that is known.
func (p ProfileState) Works() bool { return p.Allowed && p.Nodes != 0 }

// rights are the rules of manifests/rbac.yaml.
var rights = []authorizationv1.ResourceAttributes{
	{Group: "batch", Resource: "jobs", Verb: "create"},
	{Group: "batch", Resource: "jobs", Verb: "get"},
	{Group: "batch", Resource: "jobs", Verb: "list"},
	{Group: "batch", Resource: "jobs", Verb: "watch"},
	{Group: "batch", Resource: "jobs", Verb: "patch"},
	{Group: "batch", Resource: "jobs", Verb: "delete"},
	{Resource: "pods", Verb: "list"},
	{Resource: "pods", Verb: "watch"},
	{Resource: "pods", Subresource: "log", Verb: "get"},
	{Resource: "events", Verb: "list"},
}

// Doctor asks the API server for its admission of each profile, by creating a pod as a dry run, for
// the rights of the client, and for nodes with user namespaces. It changes nothing. To
// create pods as a dry run and to list nodes are rights of manifests/doctor.yaml: builds need
// neither.
func (e *Engine) Doctor(ctx context.Context) (Diagnosis, error) {
	var d Diagnosis
	for _, r := range rights {
		r.Namespace = e.config.Namespace
		answer, err := e.config.Client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx,
			&authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &r},
			}, metav1.CreateOptions{})
		if err != nil {
			return Diagnosis{}, fmt.Errorf("doctor: rights of the client: %w", err)
		}
		if !answer.Status.Allowed {
			d.Missing = append(d.Missing, right(r))
		}
	}
	nodes, err := e.nodes(ctx)
	if err != nil {
		return Diagnosis{}, err
	}
	for _, p := range []Profile{Userns, Privileged} {
		s, err := e.admitted(ctx, p)
		if err != nil {
			return Diagnosis{}, err
		}
		s.Nodes = -1
		if nodes != nil {
			s.Nodes = 0
			for _, n := range nodes {
				if p != Userns || hasUserNamespaces(n) {
					s.Nodes++
				}
			}
			if s.Nodes == 0 && s.Why == "" {
				s.Why = "no ready node that NodeSelector chooses can run it"
			}
		}
		d.Profiles = append(d.Profiles, s)
	}
	return d, nil
}

func right(r authorizationv1.ResourceAttributes) string {
	resource := r.Resource
	if r.Group != "" {
		resource += "." + r.Group
	}
	if r.Subresource != "" {
		resource += "/" + r.Subresource
	}
	return r.Verb + " " + resource
}

// admitted asks for the admission of a profile's pod.
func (e *Engine) admitted(ctx context.Context, p Profile) (ProfileState, error) {
	c := e.config
	c.Profile = p
	order, err := name.NewDigest(c.Image)
	if err != nil {
		return ProfileState{}, err
	}
	job := c.job(builder.Request{}, "doctor", order.String(), order.DigestStr(), c.Deadline)
	job.Spec.Template.Labels = nil // no build of this engine
	_, err = c.Client.CoreV1().Pods(c.Namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "doctor-"}, Spec: job.Spec.Template.Spec,
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	s := ProfileState{Profile: p, Allowed: err == nil}
	var status apierrors.APIStatus
	switch {
	case err == nil:
	case errors.As(err, &status) && (apierrors.IsForbidden(err) || apierrors.IsInvalid(err)):
		s.Why = strings.TrimSpace(status.Status().Message)
	default:
		return ProfileState{}, fmt.Errorf("doctor: pod of profile %s: %w", p, err)
	}
	return s, nil
}

// nodes returns the nodes that a build may have, nil where the client may not list them.
func (e *Engine) nodes(ctx context.Context) ([]corev1.Node, error) {
	list, err := e.config.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{
		LabelSelector: labels.SelectorFromSet(e.config.NodeSelector).String()})
	if apierrors.IsForbidden(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("doctor: nodes: %w", err)
	}
	found := slices.DeleteFunc(list.Items, func(n corev1.Node) bool {
		return n.Spec.Unschedulable || !slices.ContainsFunc(n.Status.Conditions,
			func(c corev1.NodeCondition) bool {
				return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
			})
	})
	return append([]corev1.Node{}, found...), nil
}

func hasUserNamespaces(n corev1.Node) bool {
	return slices.ContainsFunc(n.Status.RuntimeHandlers, func(h corev1.NodeRuntimeHandler) bool {
		return h.Features != nil && h.Features.UserNamespaces != nil && *h.Features.UserNamespaces
	})
}
