package rollouttest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// SwitchHarness is a rollout.Switch under test. Every field is required.
type SwitchHarness struct {
	Switch rollout.Switch
	// Target returns a target whose share was never set, another one each time.
	Target func() promote.Target
	// Crash forgets Switch as a crash of its process would and returns that of the process after
	// it.
	Crash func(t *testing.T) rollout.Switch
}

func runSwitch(t *testing.T, h SwitchHarness) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, *SwitchHarness)
	}{
		{"a share that was never set", neverSet},
		{"get returns the share of set", setAndGet},
		{"targets have shares of their own", sharesOfTargets},
		{"a cancelled call returns the cause", cancelledSwitch},
		{"a share survives a crash", shareSurvives},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, &h) })
	}
}

func (h *SwitchHarness) set(t *testing.T, target promote.Target, share rollout.Share) {
	t.Helper()
	if err := h.Switch.Set(t.Context(), target, share); err != nil {
		t.Fatalf("set %s: %v", share, err)
	}
	h.has(t, target, share)
}

func (h *SwitchHarness) has(t *testing.T, target promote.Target, want rollout.Share) {
	t.Helper()
	if got, err := h.Switch.Get(t.Context(), target); err != nil || got != want {
		t.Fatalf("get: got %s, %v, want %s", got, err, want)
	}
}

func neverSet(t *testing.T, h *SwitchHarness) { h.has(t, h.Target(), 0) }

func setAndGet(t *testing.T, h *SwitchHarness) {
	target := h.Target()
	for _, share := range []rollout.Share{1, 10_000, 10_000, 50_000, rollout.All, 0, 0, 1} {
		h.set(t, target, share)
	}
}

func sharesOfTargets(t *testing.T, h *SwitchHarness) {
	one, two := h.Target(), h.Target()
	h.set(t, one, 10_000)
	h.has(t, two, 0)
	h.set(t, two, rollout.All)
	h.has(t, one, 10_000)
}

func cancelledSwitch(t *testing.T, h *SwitchHarness) {
	target := h.Target()
	h.set(t, target, 10_000)
	ctx := cancelled(t)
	if err := h.Switch.Set(ctx, target, rollout.All); !errors.Is(err, errCause) {
		t.Errorf("set with a cancelled context: got %v, want the cause", err)
	}
	if _, err := h.Switch.Get(ctx, target); !errors.Is(err, errCause) {
		t.Errorf("get with a cancelled context: got %v, want the cause", err)
	}
	h.has(t, target, 10_000)
}

func shareSurvives(t *testing.T, h *SwitchHarness) {
	target := h.Target()
	h.set(t, target, 50_000)
	if h.Switch = h.Crash(t); h.Switch == nil {
		t.Fatal("rollouttest: SwitchHarness.Crash returned nil")
	}
	h.has(t, target, 50_000)
}

// MemSwitch is a rollout.Switch in memory. It is safe for concurrent use; the zero value is ready.
type MemSwitch struct {
	// Fault, when set, is called before each Set with its share, and after it. Its error is
	// returned in place of the action, or of its result.
	Fault func(share rollout.Share, done bool) error

	mu     sync.Mutex
	shares map[promote.Target]rollout.Share
}

var _ rollout.Switch = (*MemSwitch)(nil)

// Set implements rollout.Switch.
func (m *MemSwitch) Set(ctx context.Context, target promote.Target, share rollout.Share) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if m.Fault != nil {
		if err := m.Fault(share, false); err != nil {
			return err
		}
	}
	m.mu.Lock()
	if m.shares == nil {
		m.shares = map[promote.Target]rollout.Share{}
	}
	m.shares[target] = share
	m.mu.Unlock()
	if m.Fault != nil {
		return m.Fault(share, true)
	}
	return nil
}

// Get implements rollout.Switch.
func (m *MemSwitch) Get(ctx context.Context, target promote.Target) (rollout.Share, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shares[target], nil
}
