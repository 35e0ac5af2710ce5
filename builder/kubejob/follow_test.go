//go:build linux

package kubejob_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/faultproxy"
)

// logRequests changes the course of the requests for logs.
type logRequests struct {
	http.RoundTripper
	change func(*http.Request, http.RoundTripper) (*http.Response, error)
}

func (l logRequests) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/log") {
		return l.change(r, l.RoundTripper)
	}
	return l.RoundTripper.RoundTrip(r)
}

// logs lets the engine read logs through change.
func (b *bench) logs(t *testing.T, change func(*http.Request, http.RoundTripper) (*http.Response,
	error)) {
	t.Helper()
	config := rest.CopyConfig(b.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return logRequests{next, change} })
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	b.config.Client = client
}

// numbered prints lines with a number and a check of it, a burst each second.
func numbered(bursts, lines int) string {
	return fmt.Sprintf(`for k in $(seq 0 %d); do awk -v k=$k 'BEGIN { for (i = k*%[2]d+1; `+
		`i <= (k+1)*%[2]d; i++) printf "%%d %%d %%060d\n", i, (i*7919)%%1000003, 0 }'; `+
		`sleep 1; done`,
		bursts-1, lines)
}

var numberedLine = regexp.MustCompile(`(?m)^      (\d+) (\d+) 0{60}$`)

// The log is whole, each line once, though its connection is cut each second, the kubelet keeps a
// part of it only, and BuildKit would clip it.
func TestLogThroughCutsAndRotation(t *testing.T) {
	t.Parallel()
	b := start(t)
	var cuts atomic.Int64
	b.logs(t, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			body := resp.Body
			timer := time.AfterFunc(time.Second, func() { cuts.Add(1); body.Close() })
			resp.Body = &cutBody{ReadCloser: body, timer: timer}
		}
		return resp, err
	})
	bursts, lines := soak.Count(6, 40), 12_000
	r := b.request("app", "FROM "+b.base+"\nRUN "+numbered(bursts, lines)+"\n")
	_, err := b.engine(t).Build(t.Context(), r)
	require.NoError(t, err)
	report := b.report(t)
	require.Equal(t, builds.Complete, report.Log.Verdict)
	require.Zero(t, report.Missing)
	log := b.log(t, report.Stored)
	sum := sha256.Sum256(log)
	require.Equal(t, report.SHA256, hex.EncodeToString(sum[:]))
	require.Equal(t, report.Lines, int64(bytes.Count(log, []byte("\n"))))
	found := numberedLine.FindAllSubmatch(log, -1)
	require.Len(t, found, bursts*lines)
	for i, m := range found {
		n := i + 1
		require.Equal(t, fmt.Sprint(n), string(m[1]))
		require.Equal(t, fmt.Sprint(n*7919%1000003), string(m[2]))
	}
	require.Positive(t, cuts.Load())
}

// cutBody is an answer whose connection is cut, unless it was read to its end before.
type cutBody struct {
	io.ReadCloser
	timer *time.Timer
}

func (c *cutBody) Close() error {
	c.timer.Stop()
	return c.ReadCloser.Close()
}

// killProgram kills the program of a pod with these arguments, as the kernel does: it gets no signal
// that it could heed.
func killProgram(t *testing.T, args []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	end := []byte(strings.Join(args, "\x00") + "\x00")
	for _, f := range files {
		if line, err := os.ReadFile(f); err != nil || !bytes.HasSuffix(line, end) {
			continue // it has ended, or is another one
		}
		pid, err := strconv.Atoi(strings.Split(f, "/")[2])
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		return
	}
	require.Fail(t, "no program has these arguments", "%q", args)
}

// A pod whose program is killed leaves a log without an end, and the verdict says so.
func TestLogOfKilledPodIsTruncated(t *testing.T) {
	t.Parallel()
	if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "" {
		t.Skip("the nodes of the cluster are other machines")
	}
	b := start(t)
	r := b.request("app", fmt.Sprintf("FROM %s\nRUN echo seen\nRUN sleep 600\n", b.base))
	begun := make(chan struct{})
	r.Log = &noted{begun: begun}
	done := make(chan error, 1)
	e := b.engine(t)
	go func() {
		_, err := e.Build(t.Context(), r)
		done <- err
	}()
	select {
	case <-begun:
	case err := <-done:
		require.NoError(t, err)
	}
	killProgram(t, b.jobs(t)[0].Spec.Template.Spec.Containers[0].Args)
	require.NotNil(t, builder.FailureOf(<-done))
	report := b.report(t)
	require.Equal(t, builds.Truncated, report.Log.Verdict)
	require.Zero(t, report.Missing)
	require.Empty(t, report.SHA256)
	log := b.log(t, report.Stored)
	require.Contains(t, string(log), "      seen\n")
	require.Equal(t, report.Lines, int64(bytes.Count(log, []byte("\n"))))
}

// Lines that the kubelet has rotated away, and that the registry did not take, are missing: the
// verdict says gap, the count is right, and the log says where.
func TestRotatedLinesAreAGap(t *testing.T) {
	t.Parallel()
	if !soak.Whole() {
		return // the kubelet looks at the size of logs each 10 s: 30 s
	}
	b := start(t)
	b.config.Transport = straight{from: b.proxy.Addr, to: b.oci.Addr}
	// the registry takes the image, and refuses the log
	b.proxy.Break(faultproxy.Rule{Method: "PUT", Skip: 1, Status: http.StatusForbidden,
		Path: regexp.MustCompile("^/v2/team/app/manifests/"), Body: bodies[403]})
	var ended atomic.Bool
	b.logs(t, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if !ended.Load() {
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Request: r,
				Body: http.NoBody}, nil
		}
		return next.RoundTrip(r)
	})
	bursts, lines := 30, 12_000
	r := b.request("app", "FROM "+b.base+"\nRUN "+numbered(bursts, lines)+"\n")
	done := make(chan error, 1)
	e := b.engine(t)
	go func() {
		_, err := e.Build(t.Context(), r)
		done <- err
	}()
	testbed.Poll(t, "the end of the pod", func() error {
		pods, err := b.Client.CoreV1().Pods(b.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			for _, c := range p.Status.ContainerStatuses {
				if c.State.Terminated != nil {
					ended.Store(true)
					return nil
				}
			}
		}
		return fmt.Errorf("it runs")
	})
	require.NoError(t, <-done)
	report := b.report(t)
	require.Equal(t, builds.Gap, report.Log.Verdict)
	require.Positive(t, report.Missing)
	log := string(b.log(t, report.Stored))
	require.Contains(t, log, fmt.Sprintf("[%d lines of the log are missing here: 1 to %d]\n",
		report.Missing, report.Missing))
	require.Equal(t, report.Lines-report.Missing+1, int64(strings.Count(log, "\n")))
}
