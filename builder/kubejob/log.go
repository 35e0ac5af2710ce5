package kubejob

import (
	"bufio"
	"context"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
)

// follower follows the log of a pod until its last line.
type follower struct {
	cancel context.CancelCauseFunc
	ended  chan struct{}
}

var errFollowed = errors.New("the log has ended")

func (w *work) follow(ctx context.Context, podName string, log *archive) *follower {
	ctx, cancel := context.WithCancelCause(ctx)
	f := &follower{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		since := time.Time{}
		for log.verdict() == nil && ctx.Err() == nil {
			err := w.stream(ctx, podName, log, &since)
			if log.verdict() != nil {
				return
			}
			w.engine.config.Logger.Debug("log interrupted", "build", w.id, "error", err)
			timer := time.NewTimer(200 * time.Millisecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
	}()
	return f
}

// stop ends the follower.
func (f *follower) stop() {
	if f != nil {
		f.cancel(errFollowed)
		<-f.ended
	}
}

// wait waits for the last line of a container that has ended, for a short time: a container that
// was killed wrote none.
func (f *follower) wait(ctx context.Context, complete bool) {
	if f == nil {
		return
	}
	if complete {
		timer := time.NewTimer(5 * time.Second)
		defer timer.Stop()
		select {
		case <-f.ended:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	f.stop()
}

// stream reads the log once, from since on, of which it notes how far it came.
func (w *work) stream(ctx context.Context, podName string, log *archive, since *time.Time) error {
	c := w.engine.config
	options := &corev1.PodLogOptions{Container: container, Follow: true, Timestamps: true}
	if !since.IsZero() {
		options.SinceTime = &metav1.Time{Time: since.Add(-time.Second)}
	}
	body, err := c.Client.CoreV1().Pods(c.Namespace).GetLogs(podName, options).Stream(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReaderSize(body, 64<<10)
	for {
		text, err := lines.ReadString('\n')
		if err != nil { // a line without its end comes again
			return err
		}
		stamp, rest, found := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
		at, bad := time.Parse(time.RFC3339Nano, stamp)
		if !found || bad != nil {
			continue
		}
		*since = at
		log.take(ctx, pod.ParseLine(rest))
	}
}
