//go:build linux

package kubejob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/kubejob"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/faultproxy"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/kube"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

// program is the path of sluice-build, which the test binary builds once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-build-*")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "sluice-build")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file,
		"./cmd/sluice-build")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", &exec.Error{Name: string(out), Err: err}
	}
	return file, nil
})

func TestMain(m *testing.M) {
	if asPlatform() {
		return
	}
	code := m.Run()
	if file, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// bench is a cluster with a registry behind a proxy and an engine's configuration.
type bench struct {
	*kube.Cluster
	oci    *registry.Server
	proxy  *faultproxy.Proxy // before the registry
	base   string            // an image with a shell
	config kubejob.Config

	mu      sync.Mutex
	reports []kubejob.Report
}

func start(t *testing.T) *bench {
	t.Helper()
	b := &bench{Cluster: kube.Start(t)}
	b.oci = registry.Start(t, b.HostIP)
	b.proxy = faultproxy.Start(t, b.HostIP, &url.URL{Scheme: "http", Host: b.oci.Addr}, nil)
	b.Trust(t, b.oci.Addr)
	b.Trust(t, b.proxy.Addr)
	b.base = strings.Replace(image.Base(t, b.oci.Addr), b.oci.Addr, b.proxy.Addr, 1)
	file, err := program()
	require.NoError(t, err)
	b.config = kubejob.Config{
		Client: b.Client, Namespace: b.Namespace,
		Image:     image.Builder(t, b.oci.Addr),
		ToolImage: image.Programs(t, b.oci.Addr, "sluice-build", file),
		Insecure:  []string{b.proxy.Addr}, Logs: builds.NewMemory(),
		Ended: func(r kubejob.Report) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.reports = append(b.reports, r)
		},
	}
	return b
}

func (b *bench) engine(t *testing.T) *kubejob.Engine {
	t.Helper()
	e, err := kubejob.New(b.config)
	require.NoError(t, err)
	return e
}

// report returns the only report.
func (b *bench) report(t *testing.T) kubejob.Report {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Len(t, b.reports, 1)
	return b.reports[0]
}

func (b *bench) request(id, dockerfile string) builder.Request {
	return builder.Request{ID: id, Dockerfile: []byte(dockerfile),
		Repository: b.proxy.Addr + "/team/app", Context: fstest.MapFS{
			"a.txt": &fstest.MapFile{Data: []byte("A"), Mode: 0o644}}}
}

// log returns a log that is kept.
func (b *bench) log(t *testing.T, stored string) []byte {
	t.Helper()
	var all []byte
	for {
		data, _, err := b.config.Logs.ReadLog(t.Context(), stored, int64(len(all)), 1<<20)
		require.NoError(t, err)
		if len(data) == 0 {
			return all
		}
		all = append(all, data...)
	}
}

func (b *bench) jobs(t *testing.T) []batchv1.Job {
	t.Helper()
	list, err := b.Client.BatchV1().Jobs(b.Namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	return list.Items
}

// started starts an image in a pod, and returns the kubelet's name for it.
func (b *bench) started(t *testing.T, image string) (id string) {
	t.Helper()
	pods := b.Client.CoreV1().Pods(b.Namespace)
	p, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "started-"},
		Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{
			{Name: "main", Image: image, Command: []string{"true"}}}}}, metav1.CreateOptions{})
	require.NoError(t, err)
	testbed.Poll(t, "the end of the pod", func() error {
		now, err := pods.Get(t.Context(), p.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range now.Status.ContainerStatuses {
			if c.State.Terminated != nil {
				id = c.ImageID
				return nil
			}
		}
		return fmt.Errorf("%+v", now.Status.ContainerStatuses)
	})
	return id
}

const loop = "for i in $(seq 3); do echo line $i of $WORD; done; "

// A Job builds a Dockerfile with RUN and pushes the image, whose digest is read back; the tag is
// written once; the log is kept whole before the Job may go.
func TestJobBuilds(t *testing.T) {
	t.Parallel()
	b := start(t)
	base, layers := b.base, []string{"", "COPY a.txt /a", loop + "cp /a /b"}
	dockerfile := "FROM " + base + "\nARG WORD\nCOPY a.txt /a\nRUN " + loop + "cp /a /b\n"
	for _, p := range []kubejob.Profile{kubejob.Userns, kubejob.Privileged} {
		b.config.Profile = p
		e := b.engine(t)
		id := "app-" + string(p)
		r := b.request(id, dockerfile)
		r.Args, r.Tag = map[string]string{"WORD": "sesame"}, string(p)
		var live bytes.Buffer
		r.Log = &live
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		res, err := e.Build(ctx, r)
		require.NoError(t, err, "%s", &live)

		tag, err := name.NewTag(r.Repository+":"+r.Tag, name.Insecure)
		require.NoError(t, err)
		d, err := remote.Head(tag)
		require.NoError(t, err)
		require.Equal(t, res.Digest, d.Digest.String())
		require.Equal(t, base, res.Base)
		require.Len(t, res.Layers, len(layers))
		for i, l := range res.Layers {
			require.Equal(t, layers[i] == "", l.CreatedBy == "", "%+v", res.Layers)
			require.Contains(t, l.CreatedBy, layers[i])
		}

		report := b.report(t)
		require.Equal(t, builds.Complete, report.Log.Verdict)
		log := b.log(t, report.Stored)
		sum := sha256.Sum256(log)
		require.Equal(t, report.SHA256, hex.EncodeToString(sum[:]), "%s", log)
		require.Equal(t, int64(bytes.Count(log, []byte("\n"))), report.Lines)
		require.Contains(t, string(log), "      line 3 of sesame\n")
		require.NotContains(t, string(log), "RUN for i in $(seq 3); do echo line $i of sesame")
		require.Contains(t, live.String(), string(log))

		require.Contains(t, b.started(t, res.Reference), res.Digest, "the kubelet's image")

		jobs := b.jobs(t)
		require.Empty(t, jobs[len(jobs)-1].Finalizers)
		again, err := e.Build(ctx, r) // the Job that is there has the result
		require.NoError(t, err)
		require.Equal(t, res.Digest, again.Digest)
		require.Equal(t, len(jobs), len(b.jobs(t)))
		other := r
		other.Dockerfile = []byte("FROM scratch\nCOPY a.txt /a\n")
		_, err = e.Build(ctx, other)
		require.ErrorIs(t, err, builds.ErrConflict)
		b.reports = nil

		// the next image begins with this one, and another stage begins with another
		base, layers = res.Reference, []string{"", "", "", "COPY /c /d"}
		dockerfile = "FROM " + b.base + " AS made\nARG WORD\nRUN " + loop + "echo c >/c\n" +
			"FROM " + base + "\nCOPY --from=made /c /d\n"
	}
}
