package rollouttest

import (
	"context"
	"errors"
	"testing"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// RoutesHarness is a rollout.Routes under test. Every field is required.
type RoutesHarness struct {
	Routes rollout.Routes
	// Target returns a target without a route, another one each time.
	Target func() promote.Target
	// Instance starts an instance of the target that answers, with this number.
	Instance func(t *testing.T, target promote.Target, number uint64) rollout.Instance
	// Ask sends a request to the target and returns the id of the instance that answers, or ""
	// where the target has none.
	Ask func(t *testing.T, target promote.Target) string
	// Hold sends a request to the target that an instance answers when release is called, and
	// returns once that instance has the request. done receives the id of the instance.
	Hold func(t *testing.T, target promote.Target) (release func(), done <-chan string)
}

func runRoutes(t *testing.T, h RoutesHarness) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, *router)
	}{
		{"requests go to the instances", routes},
		{"the same assignment again", routesAgain},
		{"a newer assignment replaces the older one", replacesRoutes},
		{"an assignment of none", routesNone},
		{"an older revision changes nothing", fencedRoutes},
		{"targets have routes of their own", routesOfTargets},
		{"a drain without requests", drainsNothing},
		{"a drain waits for the requests in flight", drains},
		{"a cancelled call returns the cause", cancelledRoutes},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, &router{h: &h, target: h.Target()}) })
	}
}

// router is an implementation and the target of one case.
type router struct {
	h        *RoutesHarness
	target   promote.Target
	revision uint64
}

func (r *router) instance(t *testing.T, number uint64) rollout.Instance {
	t.Helper()
	return r.h.Instance(t, r.target, number)
}

func (r *router) apply(t *testing.T, instances ...rollout.Instance) rollout.Assignment {
	t.Helper()
	r.revision += 2
	a := rollout.Assignment{Target: r.target, Revision: r.revision, Instances: instances}
	if err := r.h.Routes.Apply(t.Context(), a); err != nil {
		t.Fatalf("apply %+v: %v", a, err)
	}
	return a
}

// answers checks that each of the instances answers, and no other one.
func (r *router) answers(t *testing.T, instances ...rollout.Instance) {
	t.Helper()
	if len(instances) == 0 {
		if id := r.h.Ask(t, r.target); id != "" {
			t.Fatalf("%s is answered by %s, want none", r.target, id)
		}
		return
	}
	missing := map[string]bool{}
	for _, i := range instances {
		missing[i.ID] = true
	}
	known := len(missing)
	for n := 0; n < 100*known && (len(missing) > 0 || n < 3*known); n++ {
		id := r.h.Ask(t, r.target)
		found := false
		for _, i := range instances {
			found = found || i.ID == id
		}
		if !found {
			t.Fatalf("%s is answered by %q, want one of %v", r.target, id, instances)
		}
		delete(missing, id)
	}
	if len(missing) > 0 {
		t.Fatalf("%s is never answered by %v", r.target, missing)
	}
}

func routes(t *testing.T, r *router) {
	r.answers(t)
	one, two := r.instance(t, 1), r.instance(t, 2)
	r.apply(t, one)
	r.answers(t, one)
	r.apply(t, one, two)
	r.answers(t, one, two)
}

func routesAgain(t *testing.T, r *router) {
	one := r.instance(t, 1)
	a := r.apply(t, one)
	if err := r.h.Routes.Apply(t.Context(), a); err != nil {
		t.Errorf("the same assignment again: %v", err)
	}
	r.apply(t, one) // under a newer revision
	r.answers(t, one)
}

func replacesRoutes(t *testing.T, r *router) {
	one, two := r.instance(t, 1), r.instance(t, 2)
	for range 3 {
		r.apply(t, one)
		r.answers(t, one)
		r.apply(t, two)
		r.answers(t, two)
	}
}

func routesNone(t *testing.T, r *router) {
	one := r.instance(t, 1)
	r.apply(t)
	r.answers(t)
	r.apply(t, one)
	r.answers(t, one)
	r.apply(t)
	r.answers(t)
}

func fencedRoutes(t *testing.T, r *router) {
	one, two := r.instance(t, 1), r.instance(t, 2)
	old := r.apply(t, one)
	r.apply(t, two)
	if err := r.h.Routes.Apply(t.Context(), old); !errors.Is(err, promote.ErrFenced) {
		t.Errorf("apply of an older revision: got %v, want ErrFenced", err)
	}
	r.answers(t, two)
}

func routesOfTargets(t *testing.T, r *router) {
	other := &router{h: r.h, target: r.h.Target()}
	one, two := r.instance(t, 1), other.instance(t, 1)
	r.apply(t, one)
	other.answers(t)
	other.apply(t, two)
	r.answers(t, one)
	other.answers(t, two)
	r.apply(t)
	r.answers(t)
	other.answers(t, two)
}

func drainsNothing(t *testing.T, r *router) {
	one := r.instance(t, 1)
	r.apply(t, one)
	r.answers(t, one)
	r.apply(t)
	for _, list := range [][]rollout.Instance{nil, {one}, {one, r.instance(t, 2)}} {
		if err := r.h.Routes.Drain(t.Context(), list); err != nil {
			t.Errorf("drain of %d instances without requests: %v", len(list), err)
		}
	}
}

func drains(t *testing.T, r *router) {
	one, two := r.instance(t, 1), r.instance(t, 2)
	r.apply(t, one)
	release, done := r.h.Hold(t, r.target)
	defer release()
	r.apply(t, two)
	r.answers(t, two)
	if err := r.h.Routes.Drain(t.Context(), []rollout.Instance{two}); err != nil {
		t.Errorf("drain of an instance without requests: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.h.Routes.Drain(ctx, []rollout.Instance{one}) }()
	r.answers(t, two) // while it drains
	select {
	case err := <-ended:
		t.Fatalf("drain of an instance with a request in flight returned %v", err)
	default:
	}
	cancel(errCause)
	if err := <-ended; !errors.Is(err, errCause) {
		t.Errorf("drain whose context ends: got %v, want the cause", err)
	}
	go func() { ended <- r.h.Routes.Drain(t.Context(), []rollout.Instance{one}) }()
	release()
	if id := <-done; id != one.ID {
		t.Errorf("the request in flight was answered by %q, want %s", id, one.ID)
	}
	if err := <-ended; err != nil {
		t.Errorf("drain: %v", err)
	}
}

func cancelledRoutes(t *testing.T, r *router) {
	one := r.instance(t, 1)
	r.apply(t, one)
	ctx := cancelled(t)
	if err := r.h.Routes.Apply(ctx, rollout.Assignment{Target: r.target, Revision: r.revision + 1,
		Instances: nil}); !errors.Is(err, errCause) {
		t.Errorf("apply with a cancelled context: got %v, want the cause", err)
	}
	if err := r.h.Routes.Drain(ctx, []rollout.Instance{one}); !errors.Is(err, errCause) {
		t.Errorf("drain with a cancelled context: got %v, want the cause", err)
	}
	r.apply(t, one)
	r.answers(t, one)
}
