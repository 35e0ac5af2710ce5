package kubejob

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
)

// archive takes the numbered lines of a pod's log in their order. Lines after a gap are held back
// until the gap is filled or given up.
type archive struct {
	key   string      // of the log in store: the UID of the Job
	store builds.Logs // nil for none
	to    io.Writer   // the caller's; may be nil

	mu     sync.Mutex
	lines  int64 // that were stored or told, and their bytes
	bytes  int64
	held   []pod.Line
	size   int // bytes of held
	ahead  int64
	end    *pod.Verdict
	broken error // of the store
	state  builds.LogState
	missed int64
}

// maxHeld is how many bytes of lines are held back behind a gap.
const maxHeld = 64 << 20

// openLog finds the end of the log that is kept already.
func (w *work) openLog(ctx context.Context) (*archive, error) {
	a := &archive{key: string(w.uid), to: w.request.Log}
	if w.request.ID == "" || w.engine.config.Logs == nil {
		return a, nil
	}
	a.store = w.engine.config.Logs
	for {
		data, _, err := a.store.ReadLog(ctx, a.key, a.bytes, page)
		if err != nil {
			return nil, fmt.Errorf("log %s of build %s: %w", a.key, w.id, err)
		}
		if len(data) == 0 {
			return a, nil
		}
		a.lines += int64(bytes.Count(data, []byte("\n")))
		a.bytes += int64(len(data))
	}
}

const page = 256 << 10 // bytes that are read of a log at a time

// stored returns the name of the log in the store, "" without one.
func (a *archive) stored() string {
	if a.store == nil {
		return ""
	}
	return a.key
}

// next returns the number of the line that a follower needs.
func (a *archive) next() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(a.lines, a.ahead) + 1
}

func (a *archive) verdict() *pod.Verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.end
}

// take takes a line of the pod.
func (a *archive) take(ctx context.Context, l pod.Line) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case l.End != nil:
		a.end = l.End
	case l.Number == 0 || l.Number <= max(a.lines, a.ahead):
	case l.Number == a.lines+1 && len(a.held) == 0:
		a.write(ctx, l.Text+"\n", 1)
	case a.size+len(l.Text) <= maxHeld:
		a.held = append(a.held, l)
		a.size += len(l.Text)
		a.ahead = l.Number
	}
}

// write stores whole lines.
func (a *archive) write(ctx context.Context, text string, lines int64) {
	if a.to != nil {
		io.WriteString(a.to, text)
	}
	if a.store != nil && a.broken == nil {
		if err := a.store.AppendLog(ctx, a.key, a.bytes, []byte(text)); err != nil {
			a.broken = err
		}
	}
	a.lines += lines
	a.bytes += int64(len(text))
}

// settle ends the log: lines that are missing come from whole, the text of all lines, where it is
// known, and are counted otherwise.
func (a *archive) settle(ctx context.Context, whole []byte, trailer *pod.Trailer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if whole != nil {
		rest := whole
		for range a.lines {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			rest = rest[i+1:]
		}
		if len(rest) > 0 {
			a.write(ctx, string(rest), int64(bytes.Count(rest, []byte("\n"))))
		}
		a.held = nil
	}
	for _, l := range a.held {
		a.gap(ctx, l.Number-1)
		a.write(ctx, l.Text+"\n", 1)
	}
	a.held = nil
	a.state.Verdict = builds.Complete
	switch {
	case trailer == nil:
		a.state.Verdict = builds.Truncated
	case trailer.Lines > a.lines:
		a.gap(ctx, trailer.Lines)
	}
	if trailer != nil && trailer.Lost > 0 {
		a.state.Verdict, a.state.Lost = builds.Truncated, trailer.Lost
	}
	if a.missed > 0 || a.broken != nil {
		a.state.Verdict = builds.Gap
	}
	a.state.Bytes = a.bytes
}

// gap notes that lines up to a number are missing.
func (a *archive) gap(ctx context.Context, last int64) {
	n := last - a.lines
	if n <= 0 {
		return
	}
	text := fmt.Sprintf("[%d lines of the log are missing here: %d to %d]\n", n, a.lines+1, last)
	a.missed += n
	a.write(ctx, text, n)
}

// close ends the log and calls Config.Ended.
func (w *work) close(ctx context.Context, log *archive, s *seen, v *pod.Verdict,
	failure *builder.Failure) error {
	r := Report{ID: w.request.ID, Job: nameOf(w.id), Stored: log.stored(), Failure: failure}
	if s.pod != nil {
		r.Pod = s.pod.Name
	}
	var trailer *pod.Trailer
	var whole []byte
	if v != nil {
		trailer, r.SHA256 = &v.Log, v.Log.SHA256
		if log.next()-1 != v.Log.Lines || len(log.held) > 0 {
			whole = w.wholeLog(ctx, v.Log)
		}
	}
	log.settle(ctx, whole, trailer)
	r.Lines, r.Missing, r.Log = log.lines, log.missed, log.state
	err := w.readBack(ctx, log, trailer)
	if w.engine.config.Ended != nil {
		w.engine.config.Ended(r)
	}
	return err
}

// readBack compares the log in the store with the sum that the pod has told.
func (w *work) readBack(ctx context.Context, log *archive, trailer *pod.Trailer) error {
	if log.broken != nil {
		return fmt.Errorf("log %s of build %s: %w", log.key, w.id, log.broken)
	}
	if log.store == nil || trailer == nil || log.missed > 0 {
		return nil
	}
	sum, at := sha256.New(), int64(0)
	for {
		data, _, err := log.store.ReadLog(ctx, log.key, at, page)
		if err != nil {
			return fmt.Errorf("read log %s of build %s back: %w", log.key, w.id, err)
		}
		if len(data) == 0 {
			break
		}
		sum.Write(data)
		at += int64(len(data))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != trailer.SHA256 {
		return fmt.Errorf("log %s of build %s: the store has %d bytes with the sum %s, the pod "+
			"wrote %d with %s: another process writes this log", log.key, w.id, at, got,
			trailer.Bytes, trailer.SHA256)
	}
	return nil
}

// wholeLog reads the log that the pod has pushed; nil if it has none, or another one than it says.
func (w *work) wholeLog(ctx context.Context, t pod.Trailer) []byte {
	ref, err := name.NewDigest(t.Artifact, w.engine.nameOptions(t.Artifact)...)
	if err != nil {
		return nil
	}
	img, err := remote.Image(ref, w.engine.options(ctx)...)
	if err != nil {
		w.engine.config.Logger.Warn("the pod's log cannot be read", "build", w.id, "error", err)
		return nil
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		return nil
	}
	content, err := layers[0].Compressed()
	if err != nil {
		return nil
	}
	defer content.Close()
	text, err := io.ReadAll(io.LimitReader(content, t.Bytes+1))
	if sum := sha256.Sum256(text); err != nil || hex.EncodeToString(sum[:]) != t.SHA256 {
		return nil
	}
	return text
}

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
