package rollouttest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// InstancesHarness is a rollout.Instances under test. Every field but Crash is required.
type InstancesHarness struct {
	Instances rollout.Instances
	// Images are two different images that run at any target that Target returns.
	Images [2]rollout.Image
	// Broken is an image of which no instance gets ready.
	Broken rollout.Image
	// Target returns a target that has no instance, another one each time.
	Target func() promote.Target
	// Crash forgets Instances as a crash of its process would and returns that of the process
	// after it. Nil leaves the cases with a crash out: for instances that end with their process.
	Crash func(t *testing.T) rollout.Instances
}

func runInstances(t *testing.T, h InstancesHarness) {
	t.Helper()
	t.Run("without a crash", func(t *testing.T) {
		for _, c := range []struct {
			name string
			run  func(*testing.T, *starter)
		}{
			{"start returns a ready instance", starts},
			{"start of an id that runs", startsAgain},
			{"several instances of a target", startsSeveral},
			{"stop ends one instance", stops},
			{"an image that does not get ready", startsBroken},
			{"a cancelled call returns the cause", cancelledInstances},
			{"the caller owns the list", ownsList},
			{"calls side by side", startsSideBySide},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, &starter{h: &h, target: h.Target()})
			})
		}
	})
	if h.Crash != nil {
		t.Run("instances outlive a crash", func(t *testing.T) {
			instancesOutlive(t, &starter{h: &h, target: h.Target()})
		})
	}
}

// starter is an implementation and the target of one case.
type starter struct {
	h      *InstancesHarness
	target promote.Target
}

func (s *starter) spec(n uint64, image rollout.Image) rollout.Spec {
	return rollout.Spec{ID: rollout.InstanceID(s.target, 7, n), Target: s.target, Image: image,
		Generation: 7, Number: n}
}

func (s *starter) start(t *testing.T, n uint64, image rollout.Image) rollout.Instance {
	t.Helper()
	spec := s.spec(n, image)
	i, err := s.h.Instances.Start(t.Context(), spec)
	if err != nil {
		t.Fatalf("start %s: %v", spec.ID, err)
	}
	if i.Spec != spec || i.State != rollout.Ready {
		t.Fatalf("start returned %+v, want %+v, ready", i, spec)
	}
	return i
}

// lists checks that the target has these instances and no others.
func (s *starter) lists(t *testing.T, want ...rollout.Instance) {
	t.Helper()
	list, err := s.h.Instances.List(t.Context())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	got := slices.DeleteFunc(list, func(i rollout.Instance) bool { return i.Target != s.target })
	slices.SortFunc(got, func(a, b rollout.Instance) int { return int(a.Number) - int(b.Number) })
	if !slices.Equal(got, want) {
		t.Fatalf("list has %+v, want %+v", got, want)
	}
}

func starts(t *testing.T, s *starter) {
	s.lists(t)
	s.lists(t, s.start(t, 1, s.h.Images[0]))
}

func startsAgain(t *testing.T, s *starter) {
	first := s.start(t, 1, s.h.Images[0])
	if second := s.start(t, 1, s.h.Images[0]); second != first {
		t.Errorf("start of an id that runs returned %+v, want %+v", second, first)
	}
	s.lists(t, first)
}

func startsSeveral(t *testing.T, s *starter) {
	s.lists(t, s.start(t, 1, s.h.Images[0]), s.start(t, 2, s.h.Images[0]),
		s.start(t, 3, s.h.Images[1]))
}

func stops(t *testing.T, s *starter) {
	first, second := s.start(t, 1, s.h.Images[0]), s.start(t, 2, s.h.Images[1])
	for range 2 { // the second time the id is unknown
		if err := s.h.Instances.Stop(t.Context(), first.ID); err != nil {
			t.Fatalf("stop: %v", err)
		}
		s.lists(t, second)
	}
}

func startsBroken(t *testing.T, s *starter) {
	spec := s.spec(1, s.h.Broken)
	_, err := s.h.Instances.Start(t.Context(), spec)
	var failed *rollout.InstanceError
	if !errors.As(err, &failed) || failed.ID != spec.ID || failed.Err == nil {
		t.Errorf("start of an image that does not get ready: got %v, want an InstanceError of %s",
			err, spec.ID)
	}
	s.lists(t)
}

func cancelledInstances(t *testing.T, s *starter) {
	first := s.start(t, 1, s.h.Images[0])
	ctx := cancelled(t)
	for name, call := range map[string]func(context.Context) error{
		"start": func(ctx context.Context) error {
			_, err := s.h.Instances.Start(ctx, s.spec(2, s.h.Images[0]))
			return err
		},
		"stop": func(ctx context.Context) error { return s.h.Instances.Stop(ctx, first.ID) },
		"list": func(ctx context.Context) error { _, err := s.h.Instances.List(ctx); return err },
	} {
		if err := call(ctx); !errors.Is(err, errCause) {
			t.Errorf("%s with a cancelled context: got %v, want the cause", name, err)
		}
	}
	s.lists(t, first)
}

func ownsList(t *testing.T, s *starter) {
	first := s.start(t, 1, s.h.Images[0])
	list, err := s.h.Instances.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := range list {
		list[n] = rollout.Instance{}
	}
	s.lists(t, first)
}

func startsSideBySide(t *testing.T, s *starter) {
	var wg sync.WaitGroup
	for n := range uint64(4) {
		own := &starter{h: s.h, target: s.h.Target()}
		wg.Go(func() {
			spec := own.spec(n+1, s.h.Images[n%2])
			if _, err := s.h.Instances.Start(t.Context(), spec); err != nil {
				t.Errorf("start %s beside others: %v", spec.ID, err)
			}
			if err := s.h.Instances.Stop(t.Context(), spec.ID); err != nil {
				t.Errorf("stop %s beside others: %v", spec.ID, err)
			}
		})
	}
	wg.Wait()
	s.lists(t)
}

func instancesOutlive(t *testing.T, s *starter) {
	first := s.start(t, 1, s.h.Images[0])
	if s.h.Instances = s.h.Crash(t); s.h.Instances == nil {
		t.Fatal("rollouttest: InstancesHarness.Crash returned nil")
	}
	s.lists(t, first)
	if again := s.start(t, 1, s.h.Images[0]); again != first {
		t.Errorf("start after a crash returned %+v, want %+v", again, first)
	}
	second := s.start(t, 2, s.h.Images[1])
	s.lists(t, first, second)
	for _, i := range []rollout.Instance{first, second} {
		if err := s.h.Instances.Stop(t.Context(), i.ID); err != nil {
			t.Fatalf("stop after a crash: %v", err)
		}
	}
	s.lists(t)
}
