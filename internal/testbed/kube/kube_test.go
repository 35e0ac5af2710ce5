//go:build linux

package kube_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/kube"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
	"github.com/sluice-deploy/sluice/internal/testbed/rsync"
)

func labels(app string) map[string]string { return map[string]string{"app": app} }

func job(name string, pod corev1.PodSpec) *batchv1.Job {
	pod.RestartPolicy = corev1.RestartPolicyNever
	none := int32(0)
	return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: batchv1.JobSpec{BackoffLimit: &none, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels(name)}, Spec: pod,
		}}}
}

// failing is a test that has failed: it runs its own clean-up, and keeps its log.
type failing struct {
	*testing.T
	cleanups []func()
	log      strings.Builder
}

func (f *failing) Failed() bool                 { return true }
func (f *failing) Cleanup(fn func())            { f.cleanups = append(f.cleanups, fn) }
func (f *failing) Logf(format string, a ...any) { fmt.Fprintf(&f.log, format+"\n", a...) }

func TestFailureShowsTheServersLogs(t *testing.T) {
	f := &failing{T: t}
	kube.Start(f)
	for _, clean := range slices.Backward(f.cleanups) {
		clean()
	}
	for _, server := range []string{"etcd", "kube-apiserver", "kube-controller-manager",
		"kube-scheduler", "kubelet", "containerd"} {
		require.Regexp(t, "the end of the log of "+server+":\nlog \\(\\d+ lines\\)\n.+",
			f.log.String())
	}
}

// finished waits for the end of a job and returns the log of its pod.
func finished(t *testing.T, k *kube.Cluster, name string) string {
	t.Helper()
	var log string
	testbed.Poll(t, "the end of job "+name, func() error {
		j, err := k.Client.BatchV1().Jobs(k.Namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if j.Status.Succeeded+j.Status.Failed == 0 {
			return fmt.Errorf("%+v", j.Status)
		}
		pods, err := k.Client.CoreV1().Pods(k.Namespace).List(t.Context(),
			metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil || len(pods.Items) != 1 {
			return fmt.Errorf("%d pods: %w", len(pods.Items), err)
		}
		data, err := k.Client.CoreV1().Pods(k.Namespace).GetLogs(pods.Items[0].Name,
			&corev1.PodLogOptions{}).DoRaw(t.Context())
		log = string(data)
		if err == nil && j.Status.Failed > 0 {
			t.Fatalf("job %s failed:\n%s", name, log)
		}
		return err
	})
	return log
}

func TestAJobsLogIsReadThroughTheAPI(t *testing.T) {
	t.Parallel()
	k := kube.Start(t)
	oci := registry.Start(t, k.HostIP)
	k.Trust(t, oci.Addr)
	_, err := k.Client.BatchV1().Jobs(k.Namespace).Create(t.Context(),
		job("hello", corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: image.Base(t, oci.Addr), Command: []string{"sh", "-c",
				"echo hello from $(hostname)"},
		}}}), metav1.CreateOptions{})
	require.NoError(t, err)
	require.Contains(t, finished(t, k, "hello"), "hello from hello-")
}

// The kubelet listens where every pod reaches it, and obeys the API server only.
func TestKubeletSendsStrangersAway(t *testing.T) {
	t.Parallel()
	k := kube.Start(t)
	nodes, err := k.Client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	node := nodes.Items[0].Status
	i := slices.IndexFunc(node.Addresses, func(a corev1.NodeAddress) bool {
		return a.Type == corev1.NodeInternalIP
	})
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := client.Get(fmt.Sprintf("https://%s:%d/pods", node.Addresses[i].Address,
		node.DaemonEndpoints.KubeletEndpoint.Port))
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, http.StatusUnauthorized, answer.StatusCode)
}

func TestRBACHolds(t *testing.T) {
	t.Parallel()
	k := kube.Start(t)
	_, err := k.Client.RbacV1().Roles(k.Namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "jobs"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{"batch"}, Resources: []string{"jobs"},
			Verbs: []string{"list"}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = k.Client.RbacV1().RoleBindings(k.Namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "jobs"}, RoleRef: rbacv1.RoleRef{Kind: "Role",
			Name: "jobs"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "default",
			Namespace: k.Namespace}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	as := rest.CopyConfig(k.Config)
	as.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + k.Namespace +
		":default"}
	client, err := kubernetes.NewForConfig(as)
	require.NoError(t, err)
	testbed.Poll(t, "the role", func() error {
		_, err := client.BatchV1().Jobs(k.Namespace).List(t.Context(), metav1.ListOptions{})
		return err
	})
	_, err = client.CoreV1().Secrets(k.Namespace).List(t.Context(), metav1.ListOptions{})
	require.True(t, apierrors.IsForbidden(err), "%v", err)
}

// A Dockerfile with RUN is built by BuildKit in a Job, on a base image of the registry and with
// code from an rsync daemon, and the built image runs.
func TestBuildKitBuildsInAJob(t *testing.T) {
	t.Parallel()
	yes, no, unmasked := true, false, corev1.UnmaskedProcMount
	t.Run("privileged", func(t *testing.T) {
		t.Parallel()
		buildInAJob(t, nil, &corev1.SecurityContext{Privileged: &yes})
	})
	t.Run("user namespace", func(t *testing.T) {
		t.Parallel()
		buildInAJob(t, &no, &corev1.SecurityContext{
			Capabilities:   &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
			ProcMount:      &unmasked,
		})
	})
}

func buildInAJob(t *testing.T, hostUsers *bool, security *corev1.SecurityContext) {
	k := kube.Start(t)
	oci := registry.Start(t, k.HostIP)
	k.Trust(t, oci.Addr)
	code := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(code, "output"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(code, "output", "index.html"),
		[]byte("built from rsync\n"), 0o644))
	rsyncd := rsync.Start(t, code, k.HostIP)

	ref := oci.Addr + "/hello:v1"
	_, err := k.Client.CoreV1().ConfigMaps(k.Namespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "build"},
		Data: map[string]string{
			"Dockerfile": "FROM " + image.Base(t, oci.Addr) + "\nARG CACHE=1\nRUN mkdir /www && " +
				"rsync -a " + rsyncd.URL + "/output/ /www/\n" +
				"CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n",
			"buildkitd.toml": fmt.Sprintf("[registry.%q]\n  http = true\n", oci.Addr),
			"build.sh": `set -eu
buildkitd --config /build/buildkitd.toml --oci-worker-snapshotter=native &
until buildctl debug workers >/dev/null 2>&1; do kill -0 $!; sleep 0.2; done
exec buildctl build --frontend dockerfile.v0 --local context=/build --local dockerfile=/build \
  --output type=image,name=` + ref + `,push=true --progress plain
`,
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = k.Client.BatchV1().Jobs(k.Namespace).Create(t.Context(), job("build", corev1.PodSpec{
		HostUsers: hostUsers,
		Containers: []corev1.Container{{
			Name: "main", Image: image.Builder(t, oci.Addr),
			Command:         []string{"sh", "/build/build.sh"},
			SecurityContext: security,
			VolumeMounts: []corev1.VolumeMount{{Name: "build", MountPath: "/build"},
				{Name: "state", MountPath: "/var/lib/buildkit"}},
		}},
		Volumes: []corev1.Volume{
			{Name: "build",
				VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "build"}}}},
			{Name: "state",
				VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		},
	}), metav1.CreateOptions{})
	require.NoError(t, err)
	require.Contains(t, finished(t, k, "build"), "RUN mkdir /www")

	_, err = k.Client.AppsV1().Deployments(k.Namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "hello"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels("hello")},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels("hello")},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main",
					Image: ref}}},
			},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	testbed.Poll(t, "an answer of the pod", func() error {
		pods, err := k.Client.CoreV1().Pods(k.Namespace).List(t.Context(),
			metav1.ListOptions{LabelSelector: "app=hello"})
		if err != nil || len(pods.Items) == 0 || pods.Items[0].Status.PodIP == "" {
			return fmt.Errorf("no pod with an address: %w", err)
		}
		response, err := http.Get("http://" + pods.Items[0].Status.PodIP + ":8080/")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || strings.TrimSpace(string(body)) != "built from rsync" {
			return fmt.Errorf("%s: %q: %w", response.Status, body, err)
		}
		return nil
	})
}
