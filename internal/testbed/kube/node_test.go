//go:build linux

package kube_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/kube"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

// cluster is a cluster that pulls the base image.
func cluster(t *testing.T) (k *kube.Cluster, base string) {
	k = kube.Start(t)
	oci := registry.Start(t, k.HostIP)
	k.Trust(t, oci.Addr)
	return k, image.Base(t, oci.Addr)
}

// run makes a pod and returns it once done is nil for it.
func run(t *testing.T, k *kube.Cluster, name string, spec corev1.PodSpec,
	done func(*corev1.Pod) error) *corev1.Pod {
	t.Helper()
	pods := k.Client.CoreV1().Pods(k.Namespace)
	spec.RestartPolicy = corev1.RestartPolicyNever
	pod, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: spec}, metav1.CreateOptions{})
	require.NoError(t, err)
	testbed.Poll(t, "pod "+name, func() error {
		if pod, err = pods.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		return done(pod)
	})
	return pod
}

func TestPodOverItsStorageIsEvicted(t *testing.T) {
	t.Parallel()
	k, base := cluster(t)
	pod := run(t, k, "greedy", corev1.PodSpec{Containers: []corev1.Container{{
		Name: "main", Image: base, Command: []string{"sh", "-c",
			"dd if=/dev/zero of=/big bs=1M count=8; sleep 600"},
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
			corev1.ResourceEphemeralStorage: resource.MustParse("2Mi")}},
	}}}, func(pod *corev1.Pod) error {
		if pod.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("%+v", pod.Status)
		}
		return nil
	})
	require.Equal(t, "Evicted", pod.Status.Reason, pod.Status.Message)
}

// The kubelet keeps three files of a container's log and rotates them at 1 MiB: a reader that comes
// late does not find the first lines.
func TestLogsAreRotated(t *testing.T) {
	t.Parallel()
	k, base := cluster(t)
	run(t, k, "loud", corev1.PodSpec{Containers: []corev1.Container{{
		Name: "main", Image: base, Command: []string{"sh", "-c",
			"i=0; while :; do seq -f '%020g' $i $((i+9999)); i=$((i+10000)); sleep 1; done"},
	}}}, func(pod *corev1.Pod) error {
		if pod.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%s", pod.Status.Phase)
		}
		limit := int64(40)
		log, err := k.Client.CoreV1().Pods(k.Namespace).GetLogs("loud",
			&corev1.PodLogOptions{LimitBytes: &limit}).DoRaw(t.Context())
		if err != nil {
			return err
		}
		if string(log[:min(20, len(log))]) == fmt.Sprintf("%020d", 0) {
			return fmt.Errorf("the first line is there still: %q", log)
		}
		return nil
	})
}

func TestAuditLogNamesTheRequests(t *testing.T) {
	t.Parallel()
	k := kube.Start(t)
	_, err := k.Client.CoreV1().ConfigMaps(k.Namespace).Get(t.Context(), "missing",
		metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err), "%v", err)
	testbed.Poll(t, "the request in the audit log", func() error {
		for _, r := range k.Requests(t) {
			if r.Verb == "get" && r.Object.Resource == "configmaps" && r.Object.Name == "missing" &&
				r.User.Username == "admin" && r.Status.Code == http.StatusNotFound {
				return nil
			}
		}
		return fmt.Errorf("%+v", k.Requests(t))
	})
}

// A test adds a node, on which its pods alone run. Its pods are reached, and those of a node that
// hangs are seen as lost.
func TestAddedNode(t *testing.T) {
	t.Parallel()
	k, base := cluster(t)
	node := k.AddNode(t)
	require.NotEqual(t, node.Name, k.AddNode(t).Name)
	run(t, k, "there", corev1.PodSpec{
		NodeSelector: map[string]string{corev1.LabelHostname: node.Name},
		Tolerations:  []corev1.Toleration{node.Toleration()},
		Containers: []corev1.Container{{Name: "main", Image: base,
			Command: []string{"httpd", "-f", "-p", "8080", "-h", "/"}}},
	}, func(pod *corev1.Pod) error {
		response, err := http.Get("http://" + pod.Status.PodIP + ":8080/missing")
		if err == nil {
			err = response.Body.Close()
		}
		return err
	})
	if !soak.Whole() { // Kubernetes waits 50 seconds before it gives a node up
		return
	}
	require.NoError(t, node.Pause())
	testbed.Poll(t, "a node that is given up", func() error {
		got, err := k.Client.CoreV1().Nodes().Get(t.Context(), node.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range got.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown {
				return nil
			}
		}
		return fmt.Errorf("%+v", got.Status.Conditions)
	})
	require.NoError(t, node.Resume())
	testbed.Poll(t, "a node that is back", func() error {
		got, err := k.Client.CoreV1().Nodes().Get(t.Context(), node.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range got.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("%+v", got.Status.Conditions)
	})
}
