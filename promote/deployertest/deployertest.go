// Package deployertest holds a [promote.Deployer] to its contract: fencing, idempotence, giving up
// when the context ends, and going on after a failure and after a crash. A deployer's test calls
// [Run] with a way to open it over the thing that it deploys to.
package deployertest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/promote"
)

// Harness is a deployer under test. Every field but CrashAt is required.
type Harness struct {
	Deployer promote.Deployer
	// Images are two different images that the deployer can deploy to any target that Target
	// returns. Version, Digest and Repository are set.
	Images [2]promote.Deployment
	// Broken is an image that the deployer cannot deploy, such as one that the registry does not
	// have.
	Broken promote.Deployment
	// Target returns a target to which nothing was ever deployed, another one each time.
	Target func() promote.Target
	// Running returns the digests that the target runs now, in any order: two instances of one
	// image are one digest.
	Running func(t *testing.T, target promote.Target) []promote.Digest
	// Crash forgets Deployer as a crash of its process would and returns the deployer of the
	// process after it, which finds the files, records and running
	// deployments of the first one.
	Crash func(t *testing.T) promote.Deployer
	// CrashAt, which may be nil, returns the deployer of a further process that is killed at its
	// n-th step, counted from 0: the call at work then returns an error, before or after the step
	// as the harness likes, and no step follows. Without it the suite ends contexts at growing
	// times in place of it.
	CrashAt func(t *testing.T, n int) promote.Deployer
}

// Run runs the suite. A Deployer that is a promote.Observer is held to that contract, too. It calls
// open once; cases run side by side on targets of their own, those
// with a crash after all others.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	h := open(t)
	if h.Deployer == nil || h.Target == nil || h.Running == nil || h.Crash == nil {
		t.Fatal("deployertest: every field of Harness but CrashAt is required")
	}
	t.Run("without a crash", func(t *testing.T) {
		for _, c := range []struct {
			name string
			run  func(*testing.T, *subject)
		}{
			{"deploy runs the image", deploys},
			{"deploy replaces the older image", replaces},
			{"the same call again changes nothing", again},
			{"the same image under a newer generation stays", renewed},
			{"an older generation changes nothing", fenced},
			{"an older generation changes nothing after remove", fencedAfterRemove},
			{"remove ends the target", removes},
			{"remove of an unknown target", removesNothing},
			{"targets have generations of their own", targets},
			{"tasks are targets of their own", tasks},
			{"targets side by side", sideBySide},
			{"a failed deploy is put back", putBack},
			{"a failed first deploy is removed", putBackNothing},
			{"a cancelled call returns the cause", cancelled},
			{"a cancelled call changes nothing", cancelledChangesNothing},
			{"a call cancelled half way is put back", cancelledHalfWay},
			{"a call cancelled at any time goes on", cancelledAtAnyTime},
			{"an observer says what runs", observed},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, &subject{h: &h, target: h.Target()})
			})
		}
	})
	for _, c := range []struct {
		name string
		run  func(*testing.T, *subject)
	}{
		{"a crash forgets no generation", crashKeepsFence},
		{"a change goes on after a crash", crashGoesOn},
		{"a failed deploy is put back after a crash", crashPutsBack},
		{"a crash at any step", crashAtEveryStep},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, &subject{h: &h, target: h.Target()}) })
	}
}

// subject is a deployer and the target of one case.
type subject struct {
	h      *Harness
	target promote.Target
}

// at returns the deployment of an image at the case's target.
func (s *subject) at(image promote.Deployment, generation uint64) promote.Deployment {
	image.Target, image.Generation, image.Actor = s.target, generation, "deployertest"
	return image
}

func (s *subject) deploy(t *testing.T, image promote.Deployment, generation uint64) {
	t.Helper()
	if err := s.h.Deployer.Deploy(t.Context(), s.at(image, generation)); err != nil {
		t.Fatalf("deploy %s as generation %d: %v", image.Version, generation, err)
	}
	s.runs(t, image.Digest)
}

func (s *subject) remove(t *testing.T, generation uint64) {
	t.Helper()
	if err := s.h.Deployer.Remove(t.Context(), s.at(promote.Deployment{}, generation)); err != nil {
		t.Fatalf("remove as generation %d: %v", generation, err)
	}
	s.runs(t)
}

// runs checks that the target runs these digests and no others.
func (s *subject) runs(t *testing.T, want ...promote.Digest) {
	t.Helper()
	got := slices.Clone(s.h.Running(t, s.target))
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Fatalf("%s runs %v, want %v", s.target, got, want)
	}
}

// fences checks that neither method does anything for a generation.
func (s *subject) fences(t *testing.T, image promote.Deployment, generation uint64,
	still ...promote.Digest) {
	t.Helper()
	if err := s.h.Deployer.Deploy(t.Context(), s.at(image, generation)); !errors.Is(err,
		promote.ErrFenced) {
		t.Errorf("deploy as generation %d, older than the newest: got %v, want ErrFenced",
			generation, err)
	}
	s.runs(t, still...)
	if err := s.h.Deployer.Remove(t.Context(), s.at(image, generation)); !errors.Is(err,
		promote.ErrFenced) {
		t.Errorf("remove as generation %d, older than the newest: got %v, want ErrFenced",
			generation, err)
	}
	s.runs(t, still...)
}

func deploys(t *testing.T, s *subject) {
	s.runs(t)
	s.deploy(t, s.h.Images[0], 1)
}

func replaces(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	s.deploy(t, s.h.Images[1], 2)
	s.deploy(t, s.h.Images[0], 9) // generations have gaps
}

func again(t *testing.T, s *subject) {
	for range 2 {
		s.deploy(t, s.h.Images[0], 1)
	}
	for range 2 {
		s.remove(t, 2)
	}
	s.deploy(t, s.h.Images[1], 3)
}

func renewed(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	s.deploy(t, s.h.Images[0], 2)
	s.fences(t, s.h.Images[1], 1, s.h.Images[0].Digest)
}

func fenced(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 5)
	s.deploy(t, s.h.Images[1], 7)
	for _, generation := range []uint64{1, 5, 6} {
		s.fences(t, s.h.Images[0], generation, s.h.Images[1].Digest)
	}
	s.deploy(t, s.h.Images[1], 7) // the newest one still may
}

func fencedAfterRemove(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	s.remove(t, 3)
	s.fences(t, s.h.Images[0], 1)
	s.fences(t, s.h.Images[1], 2)
	s.deploy(t, s.h.Images[1], 4)
}

func removes(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	if err := s.h.Deployer.Remove(t.Context(), s.at(s.h.Images[0], 2)); err != nil {
		t.Fatalf("remove: %v", err)
	}
	s.runs(t)
	s.remove(t, 3)
}

func removesNothing(t *testing.T, s *subject) {
	s.remove(t, 4)
	s.fences(t, s.h.Images[0], 3)
}

func targets(t *testing.T, s *subject) {
	other := &subject{h: s.h, target: s.h.Target()}
	s.deploy(t, s.h.Images[0], 8)
	other.deploy(t, s.h.Images[1], 2)
	other.remove(t, 3)
	s.runs(t, s.h.Images[0].Digest)
}

func tasks(t *testing.T, s *subject) {
	first, second := *s, *s
	first.target.Task, second.target.Task = s.target.Task+"a", s.target.Task+"b"
	first.deploy(t, s.h.Images[0], 5)
	second.deploy(t, s.h.Images[1], 4)
	first.runs(t, s.h.Images[0].Digest)
	first.remove(t, 6)
	second.runs(t, s.h.Images[1].Digest)
	second.remove(t, 7)
}

func sideBySide(t *testing.T, s *subject) {
	var wg sync.WaitGroup
	for i := range 4 {
		own := &subject{h: s.h, target: s.h.Target()}
		wg.Go(func() {
			for generation := range uint64(3) {
				image := s.h.Images[(uint64(i)+generation)%2]
				if err := s.h.Deployer.Deploy(t.Context(),
					own.at(image, generation+1)); err != nil {
					t.Errorf("deploy to %s beside others: %v", own.target, err)
					return
				}
			}
		})
		defer func() { own.runs(t, s.h.Images[i%2].Digest) }()
	}
	wg.Wait()
}

// fails deploys the broken image and wants an error that fences nothing off.
func (s *subject) fails(t *testing.T, generation uint64) {
	t.Helper()
	err := s.h.Deployer.Deploy(t.Context(), s.at(s.h.Broken, generation))
	if err == nil || errors.Is(err, promote.ErrFenced) {
		t.Fatalf("deploy of an image that does not work: got %v, want an error other than ErrFenced", err)
	}
}

func putBack(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	s.fails(t, 2)
	s.deploy(t, s.h.Images[0], 3)
	s.fences(t, s.h.Broken, 2, s.h.Images[0].Digest)
}

func putBackNothing(t *testing.T, s *subject) {
	s.fails(t, 1)
	s.remove(t, 2)
}

var errCause = errors.New("the caller's reason")

func cancelled(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	if err := s.h.Deployer.Deploy(ctx, s.at(s.h.Images[1], 2)); !errors.Is(err, errCause) {
		t.Errorf("deploy with a cancelled context: got %v, want the context's cause", err)
	}
	s.deploy(t, s.h.Images[0], 3)
	if err := s.h.Deployer.Remove(ctx, s.at(s.h.Images[0], 4)); !errors.Is(err, errCause) {
		t.Errorf("remove with a cancelled context: got %v, want the context's cause", err)
	}
	s.deploy(t, s.h.Images[0], 5)
}

// cancelledChangesNothing cancels before the call: the older generation is not even fenced off.
func cancelledChangesNothing(t *testing.T, s *subject) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	s.deploy(t, s.h.Images[0], 1)
	_ = s.h.Deployer.Deploy(ctx, s.at(s.h.Images[1], 3))
	s.runs(t, s.h.Images[0].Digest)
	_ = s.h.Deployer.Remove(ctx, s.at(s.h.Images[0], 4))
	s.runs(t, s.h.Images[0].Digest)
	s.deploy(t, s.h.Images[1], 2)
}

// cancelledHalfWay ends the context at some moment of the call: it may have been too late.
func cancelledHalfWay(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	go func() { ended <- s.h.Deployer.Deploy(ctx, s.at(s.h.Images[1], 2)) }()
	cancel(errCause)
	if err := <-ended; err != nil && !errors.Is(err, errCause) {
		t.Errorf("deploy whose context ends: got %v, want nil or the context's cause", err)
	}
	s.deploy(t, s.h.Images[0], 3)
}

// crash goes on with the deployer of the process after the crash.
func (s *subject) crash(t *testing.T) {
	t.Helper()
	if s.h.Deployer = s.h.Crash(t); s.h.Deployer == nil {
		t.Fatal("deployertest: Harness.Crash returned nil")
	}
}

func crashKeepsFence(t *testing.T, s *subject) {
	removed := &subject{h: s.h, target: s.h.Target()}
	s.deploy(t, s.h.Images[0], 5)
	removed.remove(t, 5)
	s.crash(t)
	s.runs(t, s.h.Images[0].Digest)
	s.fences(t, s.h.Images[1], 4, s.h.Images[0].Digest)
	removed.fences(t, s.h.Images[1], 4)
	s.deploy(t, s.h.Images[1], 6)
	s.remove(t, 7)
}

// crashGoesOn asks for an interrupted change again under a newer generation, as Promoter.Recover
// does.
func crashGoesOn(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	_ = s.h.Deployer.Deploy(ctx, s.at(s.h.Images[1], 2)) // left half way
	s.crash(t)
	s.deploy(t, s.h.Images[1], 3)
	s.crash(t)
	s.deploy(t, s.h.Images[1], 4) // it had been done: its end was not written down
	s.remove(t, 5)
}

func crashPutsBack(t *testing.T, s *subject) {
	s.deploy(t, s.h.Images[0], 1)
	s.fails(t, 2)
	s.crash(t)
	s.deploy(t, s.h.Images[0], 3)
	s.remove(t, 4)
}
