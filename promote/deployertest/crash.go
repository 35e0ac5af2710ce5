package deployertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// cancelledAtAnyTime ends the context of a deploy later and later, until the deploy succeeds, and
// goes on under the next generation each time, to the new image or back to the old one.
func cancelledAtAnyTime(t *testing.T, s *subject) {
	generation := uint64(1)
	s.deploy(t, s.h.Images[0], generation)
	for delay := time.Duration(0); delay < time.Hour; delay = max(time.Millisecond, 4*delay) {
		generation++
		ctx, cancel := context.WithTimeoutCause(t.Context(), delay, errCause)
		err := s.h.Deployer.Deploy(ctx, s.at(s.h.Images[1], generation))
		cancel()
		if err != nil && !errors.Is(err, errCause) {
			t.Fatalf("deploy whose context ends after %s: got %v, want nil or the context's cause",
				delay, err)
		}
		generation++
		s.deploy(t, s.h.Images[generation/2%2], generation)
		generation++
		s.deploy(t, s.h.Images[0], generation)
		if err == nil {
			return
		}
	}
}

// crashAtEveryStep kills the process at each step of a deploy and of a remove. The next process is
// asked for the same under the same generation, for the same under a newer one, or for the earlier
// image; each ends as asked.
func crashAtEveryStep(t *testing.T, s *subject) {
	if s.h.CrashAt == nil {
		return
	}
	const most = 10_000 // a call with more steps is taken for endless
	for _, remove := range []bool{false, true} {
		for n, whole := 0, false; !whole && n < most; n++ {
			for after := range 3 {
				own := &subject{h: s.h, target: s.h.Target()}
				own.deploy(t, s.h.Images[0], 1)
				call := func(d promote.Deployer, generation uint64) error {
					if remove {
						return d.Remove(t.Context(), own.at(s.h.Images[0], generation))
					}
					return d.Deploy(t.Context(), own.at(s.h.Images[1], generation))
				}
				whole = call(s.h.CrashAt(t, n), 2) == nil
				own.crash(t)
				s.h = own.h
				switch after {
				case 0, 1:
					if err := call(s.h.Deployer, 2+uint64(after)); err != nil {
						t.Fatalf("the same again after a crash at step %d: %v", n, err)
					}
					if remove {
						own.runs(t)
					} else {
						own.runs(t, s.h.Images[1].Digest)
					}
				case 2:
					own.deploy(t, s.h.Images[0], 3)
					own.fences(t, s.h.Images[1], 2, s.h.Images[0].Digest)
				}
				own.remove(t, 4)
			}
		}
	}
}

// observed compares the word of an observer with the instances that run.
func observed(t *testing.T, s *subject) {
	observer, ok := s.h.Deployer.(promote.Observer)
	if !ok {
		return
	}
	says := func(want promote.Digest, generation uint64) {
		t.Helper()
		got, err := observer.Observe(t.Context(), s.target)
		if err != nil || got.Digest != want || got.Generation != generation ||
			(got.Ready > 0) != (want != promote.None) || got.Ready > got.Instances {
			t.Fatalf("observe: got %+v, %v, want %s under generation %d", got, err, want,
				generation)
		}
	}
	says(promote.None, 0)
	s.deploy(t, s.h.Images[0], 2)
	says(s.h.Images[0].Digest, 2)
	s.deploy(t, s.h.Images[1], 5)
	says(s.h.Images[1].Digest, 5)
	s.fences(t, s.h.Images[0], 4, s.h.Images[1].Digest)
	says(s.h.Images[1].Digest, 5)
	s.remove(t, 7)
	says(promote.None, 7)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	if _, err := observer.Observe(ctx, s.target); !errors.Is(err, errCause) {
		t.Errorf("observe with a cancelled context: got %v, want the context's cause", err)
	}
}
