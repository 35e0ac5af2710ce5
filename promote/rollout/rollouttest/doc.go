// Package rollouttest holds the parts of a rollout to their contracts: a rollout.Records, a
// rollout.Instances, a rollout.Routes and a rollout.Switch. The test of an implementation calls Run
// with the harness of that part. World and
// MemSwitch are these parts in memory, for tests of programs that roll out.
package rollouttest

import (
	"context"
	"errors"
	"testing"

	"github.com/sluice-deploy/sluice/promote/rollout"
)

// Harness names the parts under test. A part that is nil is left out; at least one must be set.
type Harness struct {
	// Records returns a new, empty store each time.
	Records func(t *testing.T) rollout.Records
	// Instances returns the harness of an implementation without an instance.
	Instances func(t *testing.T) InstancesHarness
	// Routes returns the harness of an implementation without a route.
	Routes func(t *testing.T) RoutesHarness
	// Switch returns the harness of an implementation without a share.
	Switch func(t *testing.T) SwitchHarness
}

// Run runs the suites of the parts that h names.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Records == nil && h.Instances == nil && h.Routes == nil && h.Switch == nil {
		t.Fatal("rollouttest: Harness names no part")
	}
	if h.Records != nil {
		t.Run("records", func(t *testing.T) { runRecords(t, h.Records) })
	}
	if h.Instances != nil {
		t.Run("instances", func(t *testing.T) { runInstances(t, h.Instances(t)) })
	}
	if h.Routes != nil {
		t.Run("routes", func(t *testing.T) { runRoutes(t, h.Routes(t)) })
	}
	if h.Switch != nil {
		t.Run("switch", func(t *testing.T) { runSwitch(t, h.Switch(t)) })
	}
}

var errCause = errors.New("the caller's reason")

// cancelled returns a context that has ended.
func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	return ctx
}
