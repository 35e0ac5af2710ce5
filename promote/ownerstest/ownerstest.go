// Package ownerstest holds a promote.Owners to its contract.
package ownerstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/promote"
)

// patience is how long an end of a tenure may take to be seen.
const patience = time.Minute

// Harness is what the suite needs of an implementation.
type Harness struct {
	// Owners are two handles, of two processes say, on the same owners, none of whom lives. They
	// may be the same.
	Owners, Other promote.Owners
}

// Run runs the suite. open returns a new harness each time, and cleans up after itself with
// t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Harness){
		"an owner lives from join to leave":          joinAndLeave,
		"owners do not depend on each other":         apart,
		"a second join ends the first tenure":        again,
		"the end of a call's context ends no tenure": outlives,
		"cancelled calls return the cause":           cancelled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

func join(t *testing.T, o promote.Owners, owner string) context.Context {
	t.Helper()
	tenure, err := o.Join(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Leave(context.WithoutCancel(t.Context()), owner) })
	return tenure
}

// lives checks that both handles say whether the owner lives.
func (h Harness) lives(t *testing.T, owner string, want bool) {
	t.Helper()
	for _, o := range []promote.Owners{h.Owners, h.Other} {
		if got, err := o.Lives(t.Context(), owner); err != nil || got != want {
			t.Errorf("owner %s lives: got %t, %v, want %t", owner, got, err, want)
		}
	}
}

// ended checks that a tenure ends with a cause of its own.
func ended(t *testing.T, tenure context.Context) {
	t.Helper()
	select {
	case <-tenure.Done():
	case <-time.After(patience):
		t.Fatal("the tenure has not ended")
	}
	if cause := context.Cause(tenure); cause == nil || errors.Is(cause, context.Canceled) {
		t.Errorf("the tenure has ended for the cause %v, want one that says why", cause)
	}
}

func joinAndLeave(t *testing.T, h Harness) {
	h.lives(t, "a", false)
	if err := h.Owners.Leave(t.Context(), "a"); err != nil {
		t.Errorf("leave without a tenure: %v", err)
	}
	tenure := join(t, h.Owners, "a")
	if tenure.Err() != nil {
		t.Fatalf("the tenure has ended at once: %v", context.Cause(tenure))
	}
	h.lives(t, "a", true)
	if err := h.Owners.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	ended(t, tenure)
	h.lives(t, "a", false)
	if tenure := join(t, h.Owners, "a"); tenure.Err() != nil {
		t.Errorf("the second tenure has ended at once: %v", context.Cause(tenure))
	}
	h.lives(t, "a", true)
}

func apart(t *testing.T, h Harness) {
	a, b := join(t, h.Owners, "a"), join(t, h.Other, "b")
	h.lives(t, "a", true)
	h.lives(t, "b", true)
	if err := h.Owners.Leave(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	ended(t, a)
	h.lives(t, "a", false)
	h.lives(t, "b", true)
	if b.Err() != nil {
		t.Errorf("b's tenure has ended with a's: %v", context.Cause(b))
	}
}

func again(t *testing.T, h Harness) {
	first := join(t, h.Owners, "a")
	second := join(t, h.Other, "a")
	ended(t, first)
	h.lives(t, "a", true)
	if second.Err() != nil {
		t.Errorf("the second tenure has ended, too: %v", context.Cause(second))
	}
}

func outlives(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	tenure, err := h.Owners.Join(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	h.lives(t, "a", true)
	if tenure.Err() != nil {
		t.Errorf("the tenure has ended: %v", context.Cause(tenure))
	}
	if err := h.Owners.Leave(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

func cancelled(t *testing.T, h Harness) {
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, joinErr := h.Owners.Join(ctx, "a")
	_, livesErr := h.Owners.Lives(ctx, "a")
	for name, err := range map[string]error{"join": joinErr, "lives": livesErr,
		"leave": h.Owners.Leave(ctx, "a")} {
		if !errors.Is(err, cause) {
			t.Errorf("%s: got %v, want the context's cause", name, err)
		}
	}
	h.lives(t, "a", false)
}
