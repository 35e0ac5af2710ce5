//go:build linux

package kubejob_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/faultproxy"
)

// straight carries the engine's own requests around the proxy, whose rules meet the pods alone.
type straight struct{ from, to string }

func (s straight) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == s.from {
		r = r.Clone(r.Context())
		r.URL.Host = s.to
	}
	return http.DefaultTransport.RoundTrip(r)
}

// fault is a way to make a build fail.
type fault struct {
	dockerfile string // with %s for the base image
	// inject breaks something, and returns a function that mends it; it is nil where the request
	// is at fault
	inject func(t *testing.T, b *bench) (mend func())
	// during is called while the build runs, with its only pod
	during func(t *testing.T, b *bench, pod *corev1.Pod)
	want   string // the failure as JSON without its message
	says   string // in the message
	long   bool   // for make soak
}

const copies = "FROM %s\nCOPY a.txt /a\n"

const sleeps = "FROM %s\nRUN sleep 600\n"

// faults are the faults by the name of their test.
var faults = map[string]fault{
	"command": {
		dockerfile: "FROM %s\nCOPY a.txt /a\nRUN echo no; exit 3\n",
		want: `{"reason": "command", "line": 3, "instruction": "RUN echo no; exit 3",
			"hint": "look at the output of the command in the log", "evidence": ["exit code 3"]}`,
		says: "exit code: 3",
	},
	"base is missing": {
		dockerfile: "FROM %s-missing:1\nRUN true\n",
		want: `{"reason": "registryNotFound", "line": 1, "instruction": "FROM BASE-missing:1",
			"hint": "look at the name of the image"}`,
		says: "not found",
	},
	"base is refused": {dockerfile: copies, inject: answer("GET,HEAD", "/v2/testbed/base/", 403),
		want: `{"reason": "registryDenied", "line": 1, "instruction": "FROM BASE",
			"hint": "look at the credentials and their right to push",
			"evidence": ["the registry answered with status 403"]}`, says: "403", long: true},
	"push gets 401": {dockerfile: copies, inject: answer("POST,PUT", "/v2/team/app/", 401),
		want: `{"reason": "registryDenied", "hint":
			"look at the credentials and their right to push",
			"evidence": ["the registry answered with status 401"]}`,
		says: "unauthorized", long: true},
	"push gets 403": {dockerfile: copies, inject: answer("POST,PUT", "/v2/team/app/", 403),
		want: `{"reason": "registryDenied", "hint":
			"look at the credentials and their right to push",
			"evidence": ["the registry answered with status 403"]}`, says: "denied"},
	"push gets 429": {dockerfile: copies, inject: answer("POST,PUT", "/v2/team/app/", 429),
		want: `{"reason": "registryLimit", "hint": "try again later", "retryable": true,
			"evidence": ["the registry answered with status 429"]}`,
		says: "toomanyrequests", long: true},
	"push gets 503": {dockerfile: copies, inject: answer("POST,PUT", "/v2/team/app/", 503),
		want: `{"reason": "registryAway", "retryable": true,
			"hint": "try again; look at the log of the registry",
			"evidence": ["the registry answered with status 503"]}`, says: "503", long: true},
	"memory": {dockerfile: "FROM %s\nRUN tail /dev/zero\n",
		inject: limit(corev1.ResourceMemory, "200Mi"),
		want: `{"reason": "memory", "line": 2, "instruction": "RUN tail /dev/zero",
			"hint": "allow the build more memory, or let it need less"}`},
	"deadline": {dockerfile: sleeps, inject: func(_ *testing.T, b *bench) func() {
		b.config.Deadline = 8 * time.Second
		return nil
	}, want: `{"reason": "deadline", "hint": "allow more time, or make the build smaller"}`,
		says: "longer than 8s", long: true},
	"evicted": {dockerfile: sleeps, during: func(t *testing.T, b *bench, pod *corev1.Pod) {
		require.NoError(t, b.Client.PolicyV1().Evictions(b.Namespace).Evict(t.Context(),
			&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name,
				Namespace: b.Namespace}}))
	}, want: `{"reason": "evicted", "hint": "try again", "retryable": true}`,
		says: "told to end"},
	"job is deleted": {dockerfile: sleeps, during: func(t *testing.T, b *bench, pod *corev1.Pod) {
		background := metav1.DeletePropagationBackground
		require.NoError(t, b.Client.BatchV1().Jobs(b.Namespace).Delete(t.Context(),
			pod.Labels["job-name"], metav1.DeleteOptions{PropagationPolicy: &background}))
	}, want: `{"reason": "deleted", "hint":
		"submit the build again, if its deletion was a mistake"}`, says: "deleted"},
	"pod is deleted": {dockerfile: sleeps, during: func(t *testing.T, b *bench, pod *corev1.Pod) {
		require.NoError(t, b.Client.CoreV1().Pods(b.Namespace).Delete(t.Context(), pod.Name,
			metav1.DeleteOptions{}))
	}, want: `{"reason": "deleted", "hint":
		"submit the build again, if its deletion was a mistake"}`, says: "deleted"},
	"builder image is missing": {dockerfile: copies, inject: func(_ *testing.T, b *bench) func() {
		good := b.config.Image
		b.config.Image = good[:len(good)-8] + "01234567"
		return func() { b.config.Image = good }
	}, want: `{"reason": "builderImage", "hint":
		"look at Config.Image and Config.PullSecrets",
		"evidence": ["container build: ImagePullBackOff"]}`, says: "not found", long: true},
	"no node": {dockerfile: copies, inject: func(_ *testing.T, b *bench) func() {
		b.config.NodeSelector = map[string]string{"no": "node"}
		b.config.StartDeadline = 3 * time.Second
		return func() {
			b.config.NodeSelector, b.config.StartDeadline = nil, 0
		}
	}, want: `{"reason": "noRoom", "retryable": true, "hint":
		"try again later, raise the quota, or add nodes",
		"evidence": ["pod condition: Unschedulable"]}`, says: "within 3s", long: true},
	"quota of pods": {dockerfile: copies, inject: quota("pods"),
		want: `{"reason": "noRoom", "retryable": true, "hint":
		"try again later, raise the quota, or add nodes", "evidence": ["event: FailedCreate"]}`,
		says: "exceeded quota"},
	"quota of jobs": {dockerfile: copies, inject: quota("count/jobs.batch"),
		want: `{"reason": "noRoom", "retryable": true, "hint":
		"try again later, raise the quota, or add nodes"}`, says: "exceeded quota", long: true},
	"pod security": {dockerfile: copies, inject: func(t *testing.T, b *bench) func() {
		enforce(t, b, "baseline")
		return func() { enforce(t, b, "privileged") }
	}, want: `{"reason": "forbidden", "hint":
		"ask Doctor which profile the namespace allows, and look at its policies",
		"evidence": ["event: FailedCreate"]}`, says: "PodSecurity"},
	"secret is missing": {dockerfile: copies, inject: func(_ *testing.T, b *bench) func() {
		b.config.BuildSecrets, b.config.StartDeadline = []string{"missing"}, 10*time.Second
		return func() { b.config.BuildSecrets, b.config.StartDeadline = nil, 0 }
	}, want: `{"reason": "setup", "hint":
		"look at the Secrets that Config names, and at the node's container runtime",
		"evidence": ["event: FailedMount"]}`, says: "missing", long: true},
}

// bodies are the bodies of answers, as registries write them: distribution-spec, error codes.
var bodies = map[int]string{
	401: `{"errors": [{"code": "UNAUTHORIZED", "message": "by rule"}]}`,
	403: `{"errors": [{"code": "DENIED", "message": "by rule"}]}`,
	429: `{"errors": [{"code": "TOOMANYREQUESTS", "message": "by rule"}]}`,
}

// answer lets the registry answer the pods' requests with a status.
func answer(method, path string, status int) func(*testing.T, *bench) func() {
	return func(_ *testing.T, b *bench) func() {
		b.proxy.Break(faultproxy.Rule{Method: method, Path: regexp.MustCompile("^" + path),
			Status: status, Body: bodies[status]})
		return func() { b.proxy.Break() }
	}
}

func limit(of corev1.ResourceName, to string) func(*testing.T, *bench) func() {
	return func(_ *testing.T, b *bench) func() {
		b.config.Resources.Limits = corev1.ResourceList{of: resource.MustParse(to)}
		return nil
	}
}

func quota(of corev1.ResourceName) func(*testing.T, *bench) func() {
	return func(t *testing.T, b *bench) func() {
		quotas := b.Client.CoreV1().ResourceQuotas(b.Namespace)
		_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "none"}, Spec: corev1.ResourceQuotaSpec{
				Hard: corev1.ResourceList{of: resource.MustParse("0")}}}, metav1.CreateOptions{})
		require.NoError(t, err)
		testbed.Poll(t, "the quota in force", func() error {
			q, err := quotas.Get(t.Context(), "none", metav1.GetOptions{})
			if err == nil && len(q.Status.Hard) == 0 {
				err = fmt.Errorf("%+v", q.Status)
			}
			return err
		})
		b.config.StartDeadline = 5 * time.Second
		return func() {
			require.NoError(t, quotas.Delete(t.Context(), "none", metav1.DeleteOptions{}))
			b.config.StartDeadline = 0
		}
	}
}

func enforce(t *testing.T, b *bench, level string) {
	t.Helper()
	_, err := b.Client.CoreV1().Namespaces().Patch(t.Context(), b.Namespace, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":%q}}}`,
			level), metav1.PatchOptions{})
	require.NoError(t, err)
}

// noted is a log that notes when BuildKit has begun a command.
type noted struct {
	seen  int
	begun chan struct{}
}

func (n *noted) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "RUN sleep") {
		if n.seen++; n.seen == 2 { // the plan tells it first
			close(n.begun)
		}
	}
	return len(p), nil
}

// onlyPod returns the pod of the only build.
func (b *bench) onlyPod(t *testing.T) *corev1.Pod {
	t.Helper()
	list, err := b.Client.CoreV1().Pods(b.Namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Len(t, list.Items, 1)
	return &list.Items[0]
}

// Each fault has its reason, and the same request succeeds without the fault. Some faults take long
// or resemble others: make soak has them.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, f := range faults {
		if f.long && !soak.Whole() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f.run(t, start(t))
		})
	}
}

func (f fault) run(t *testing.T, b *bench) {
	b.config.Transport = straight{from: b.proxy.Addr, to: b.oci.Addr}
	b.config.Poll = time.Second
	mend := func() {}
	if f.inject != nil {
		mend = f.inject(t, b)
	}
	const id = "broken"
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := b.request(id, fmt.Sprintf(f.dockerfile, b.base))
	if strings.Contains(f.dockerfile, "%s-missing") {
		r.Dockerfile = []byte(strings.ReplaceAll(f.dockerfile, "%s", b.proxy.Addr+"/testbed/base"))
	}
	begun := make(chan struct{})
	r.Log = &noted{begun: begun}
	done := make(chan error, 1)
	e := b.engine(t)
	go func() {
		_, err := e.Build(ctx, r)
		done <- err
	}()
	if f.during != nil {
		select {
		case <-begun:
		case err := <-done:
			require.NoError(t, err)
		}
		f.during(t, b, b.onlyPod(t))
	}
	err := <-done
	r.Log = nil
	require.Error(t, err)
	got := *builder.FailureOf(err)
	require.Contains(t, got.Message, f.says)
	got.Message = ""
	got.Instruction = strings.ReplaceAll(got.Instruction, b.base, "BASE")
	got.Instruction = strings.ReplaceAll(got.Instruction, b.proxy.Addr+"/testbed/base", "BASE")
	if !strings.Contains(f.want, "evidence") {
		got.Evidence = nil
	}
	text, err := json.Marshal(got)
	require.NoError(t, err)
	var want builder.Failure
	require.NoError(t, json.Unmarshal([]byte(f.want), &want))
	wanted, err := json.Marshal(want)
	require.NoError(t, err)
	require.JSONEq(t, string(wanted), string(text), "%+v", builder.FailureOf(err))
	for _, j := range b.jobs(t) {
		require.Empty(t, j.Finalizers)
	}
	if f.inject == nil || mend == nil {
		return
	}
	mend()
	testbed.Poll(t, "success without the fault", func() error {
		_, err := b.engine(t).Build(ctx, r)
		return err
	})
}
