//go:build linux

package kube_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/engine"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/kube"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
	"github.com/sluice-deploy/sluice/internal/testbed/services"
)

// graceSeconds is the grace time of the pods; envconfig gets a little less.
const graceSeconds = 120

// A pod whose service is at work when the pod is deleted, as kubectl delete does, finishes the work
// and does not wait for the grace time.
func TestDeletedPodsFinishTheirWork(t *testing.T) {
	t.Parallel()
	k := kube.Start(t)
	oci := registry.Start(t, k.HostIP)
	k.Trust(t, oci.Addr)
	root := image.Skeleton(t, oci.Addr)
	exe := filepath.Join(t.TempDir(), "envconfig")
	build := exec.Command("go", "build", "-o", exe,
		"github.com/sluice-deploy/sluice/envconfig/cmd/envconfig")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for i, s := range services.All {
		for j, way := range services.Ways {
			// some services, each one way; the rest in make soak
			if !soak.Whole() && (i%3 != 0 || j != (i/3)%len(services.Ways)) {
				continue
			}
			t.Run(s.Name+"/"+way.Name, func(t *testing.T) {
				t.Parallel()
				s.Need(t)
				dir := t.TempDir()
				require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
				l, err := s.Lay(dir, testbed.Port(t))
				require.NoError(t, err)
				source := t.TempDir()
				conf := filepath.Join(source, "src/envs/test/etc/app.conf")
				require.NoError(t, os.MkdirAll(filepath.Dir(conf), 0o755))
				require.NoError(t, os.WriteFile(conf, []byte("x"), 0o644))
				require.NoError(t, os.Mkdir(source+"/root", 0o755))
				line := l.SetUp() + fmt.Sprintf("exec %s --grace %ds --source %s/src --root "+
					"%[3]s/root --state %[3]s/run %s-- %s", exe, graceSeconds-20, source,
					l.EnvconfigFlags(), l.CommandLine(way))
				p := startPod(t, k, root, line, filepath.Dir(dir), filepath.Dir(exe))
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
				defer cancel()
				work, err := l.Begin(ctx, p.log.String)
				require.NoError(t, err)
				code := p.delete(t)
				require.NoError(t, work.Whole())
				require.Contains(t, []int32{0, 143}, code, "%s", work.Output())
				require.NotContains(t, work.Output(), "grace time over")
				if l.Flags == "" {
					require.NotContains(t, work.Output(), services.WentOn)
				}
			})
		}
	}
}

// pod is a pod that runs, with its log.
type pod struct {
	k    *kube.Cluster
	name string
	log  safeBuffer
	read chan struct{} // closed when the log has ended
}

// safeBuffer is a buffer that can be looked at while it grows.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startPod runs a shell line in a pod with the network and the programs of this machine.
func startPod(t *testing.T, k *kube.Cluster, root, line string, writable ...string) *pod {
	t.Helper()
	seconds := int64(graceSeconds)
	c := corev1.Container{Name: "main", Image: root, Command: []string{"/bin/sh", "-c", line},
		Env: []corev1.EnvVar{{Name: "DEPLOY_ENV", Value: "test"}}}
	spec := corev1.PodSpec{HostNetwork: true, DNSPolicy: corev1.DNSDefault,
		RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &seconds}
	mount := func(dir string, readOnly bool, source corev1.VolumeSource) {
		name := fmt.Sprintf("v%d", len(spec.Volumes))
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: dir,
			ReadOnly: readOnly})
	}
	host := func(dir string) corev1.VolumeSource {
		return corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}
	}
	memory := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	read, empty := engine.Mounts()
	for _, dir := range read {
		mount(dir, true, host(dir))
	}
	for _, dir := range append(empty, "/run") {
		mount(dir, false, memory)
	}
	for _, dir := range writable {
		mount(dir, false, host(dir))
	}
	spec.Containers = []corev1.Container{c}
	made, err := k.Client.CoreV1().Pods(k.Namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "stop-"}, Spec: spec}, metav1.CreateOptions{})
	require.NoError(t, err)
	p := &pod{k: k, name: made.Name, read: make(chan struct{})}
	testbed.Poll(t, "the start of pod "+p.name, func() error {
		now, err := k.Client.CoreV1().Pods(k.Namespace).Get(t.Context(), p.name,
			metav1.GetOptions{})
		if err == nil && now.Status.Phase == corev1.PodPending {
			err = fmt.Errorf("%+v", now.Status)
		}
		return err
	})
	stream, err := k.Client.CoreV1().Pods(k.Namespace).GetLogs(p.name,
		&corev1.PodLogOptions{Follow: true}).Stream(context.Background())
	require.NoError(t, err)
	go func() {
		defer close(p.read)
		defer stream.Close()
		b := make([]byte, 4096)
		for {
			n, err := stream.Read(b)
			_, _ = p.log.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	return p
}

// delete deletes the pod, waits until it has gone, and returns the exit code of its container.
func (p *pod) delete(t *testing.T) int32 {
	t.Helper()
	pods := p.k.Client.CoreV1().Pods(p.k.Namespace)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	events, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + p.name})
	require.NoError(t, err)
	defer events.Stop()
	require.NoError(t, pods.Delete(ctx, p.name, metav1.DeleteOptions{}))
	code := int32(-1)
	for e := range events.ResultChan() {
		now, ok := e.Object.(*corev1.Pod)
		require.True(t, ok, "%+v", e.Object)
		for _, c := range now.Status.ContainerStatuses {
			if c.State.Terminated != nil {
				code = c.State.Terminated.ExitCode
			}
		}
		if e.Type == watch.Deleted {
			<-p.read
			return code
		}
	}
	t.Fatalf("pod %s is still there: %s", p.name, p.log.String())
	return 0
}
