//go:build linux

package kubejob_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/kubejob"
)

// busy answers the first questions about a build's pods with 503.
type busy struct {
	http.RoundTripper
	left *atomic.Int64
}

func (b busy) RoundTrip(r *http.Request) (*http.Response, error) {
	of := r.URL.Query().Get("labelSelector")
	if strings.HasSuffix(r.URL.Path, "/pods") && strings.Contains(of, "=") && b.left.Add(-1) >= 0 {
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Request: r,
			Body: http.NoBody}, nil
	}
	return b.RoundTripper.RoundTrip(r)
}

// another is a finalizer of another controller.
const another = "example.com/another"

func (b *bench) finalizers(t *testing.T, job, patch string) {
	t.Helper()
	_, err := b.Client.BatchV1().Jobs(b.Namespace).Patch(t.Context(), job,
		types.StrategicMergePatchType, []byte(`{"metadata":{`+patch+`:["`+another+`"]}}`),
		metav1.PatchOptions{})
	require.NoError(t, err)
}

// A platform that stops leaves its build to the Job, and the next one takes it up: one Job, and a
// log that is whole over both, though the API server does not answer for a while. A finalizer of
// another controller stays.
func TestNextProcessTakesTheJobUp(t *testing.T) {
	t.Parallel()
	b := start(t)
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	r := b.request("app", "FROM "+b.base+"\nRUN for i in $(seq 2000); do echo line $i; done\n"+
		"RUN sleep 5\nRUN echo the end\n")
	r.Tag = "v1"
	begun := make(chan struct{})
	r.Log = &noted{begun: begun}
	left := make(chan error, 1)
	first := b.engine(t)
	go func() {
		_, err := first.Build(ctx, r)
		left <- err
	}()
	select {
	case <-begun:
	case err := <-left:
		require.NoError(t, err)
	}
	stop(kubejob.ErrLeft)
	require.ErrorIs(t, <-left, kubejob.ErrLeft)
	jobs := b.jobs(t)
	require.Len(t, jobs, 1)
	require.NotEmpty(t, jobs[0].Finalizers)

	b.finalizers(t, jobs[0].Name, `"finalizers"`)
	defer b.finalizers(t, jobs[0].Name, `"$deleteFromPrimitiveList/finalizers"`)

	var silent atomic.Int64
	silent.Store(3)
	config := rest.CopyConfig(b.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return busy{next, &silent} })
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	b.config.Client, b.config.Poll = client, time.Second
	r.Log = nil
	ctx, done := context.WithTimeout(t.Context(), 3*time.Minute)
	defer done()
	_, err = b.engine(t).Build(ctx, r)
	require.NoError(t, err)
	require.Negative(t, silent.Load(), "the API server was silent, and answered then")
	now := b.jobs(t)
	require.Len(t, now, 1)
	require.Equal(t, jobs[0].UID, now[0].UID)
	require.Equal(t, []string{another}, now[0].Finalizers)
	report := b.report(t)
	require.Equal(t, builds.Complete, report.Log.Verdict)
	sum := sha256.Sum256(b.log(t, report.Stored))
	require.Equal(t, report.SHA256, hex.EncodeToString(sum[:]))
	require.Greater(t, report.Lines, int64(2000))
}
