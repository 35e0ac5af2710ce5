package rollouttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rollout"
)

// World is rollout.Instances and rollout.Routes in memory, for tests of programs that roll out. It
// outlives the Rollouts that work on it, as a machine outlives the processes of a platform, and it
// writes down each breach of the order in which instances start, serve, drain and end. It is safe
// for concurrent use; make it with NewWorld, and set Fault before the first call.
type World struct {
	// Fault, when set, is called before and after each action: with "start", "stop", "apply",
	// "drain" or "list", with the id of an instance, or the target, and with done false or true.
	// Its error is returned in place of the action, or of its result.
	Fault func(op, subject string, done bool) error

	mu        sync.Mutex
	instances map[string]rollout.Instance
	broken    map[promote.Digest]bool
	routed    map[promote.Target]rollout.Assignment
	drained   map[string]bool
	breaches  []string
	ports     uint16
	held      map[string]int // requests in flight, by instance
	fewer     chan struct{}  // closed and replaced when a request ends
	asked     int
}

var (
	_ rollout.Instances = (*World)(nil)
	_ rollout.Routes    = (*World)(nil)
)

// NewWorld returns a World in which nothing runs. Instances of the broken images do not get ready.
func NewWorld(broken ...promote.Digest) *World {
	w := &World{instances: map[string]rollout.Instance{}, broken: map[promote.Digest]bool{},
		routed: map[promote.Target]rollout.Assignment{}, drained: map[string]bool{}, ports: 1023,
		held: map[string]int{}, fewer: make(chan struct{})}
	for _, digest := range broken {
		w.broken[digest] = true
	}
	return w
}

func (w *World) fault(op, subject string, done bool) error {
	if w.Fault == nil {
		return nil
	}
	return w.Fault(op, subject, done)
}

// do is one action between its two faults.
func (w *World) do(ctx context.Context, op, subject string, action func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := w.fault(op, subject, false); err != nil {
		return err
	}
	w.mu.Lock()
	err := action()
	w.mu.Unlock()
	if err != nil {
		return err
	}
	return w.fault(op, subject, true)
}

// Start implements rollout.Instances.
func (w *World) Start(ctx context.Context, spec rollout.Spec) (i rollout.Instance, err error) {
	err = w.do(ctx, "start", spec.ID, func() error {
		if w.broken[spec.Image.Digest] {
			delete(w.instances, spec.ID)
			return &rollout.InstanceError{ID: spec.ID, Err: errors.New("exit status 1"),
				Lines: []string{"starting", "no such file"}}
		}
		var found bool
		if i, found = w.instances[spec.ID]; !found {
			w.ports++
			i = rollout.Instance{Spec: spec,
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), w.ports)}
		}
		i.State = rollout.Ready
		w.instances[spec.ID] = i
		delete(w.drained, spec.ID)
		return nil
	})
	return i, err
}

// Stop implements rollout.Instances.
func (w *World) Stop(ctx context.Context, id string) error {
	return w.do(ctx, "stop", id, func() error {
		i, found := w.instances[id]
		if !found {
			return nil
		}
		for _, a := range w.routed {
			if slices.ContainsFunc(a.Instances, func(i rollout.Instance) bool {
				return i.ID == id
			}) {
				w.breaches = append(w.breaches, id+" was stopped while it was in the routes")
			}
		}
		if !w.drained[id] && i.State == rollout.Ready {
			w.breaches = append(w.breaches, id+" was stopped before it was drained")
		}
		delete(w.instances, id)
		return nil
	})
}

// List implements rollout.Instances.
func (w *World) List(ctx context.Context) (list []rollout.Instance, err error) {
	err = w.do(ctx, "list", "", func() error {
		list = slices.Collect(maps.Values(w.instances))
		return nil
	})
	return list, err
}

// Apply implements rollout.Routes.
func (w *World) Apply(ctx context.Context, a rollout.Assignment) error {
	return w.do(ctx, "apply", a.Target.String(), func() error {
		if last := w.routed[a.Target].Revision; a.Revision < last {
			return fmt.Errorf("revision %d: revision %d was applied: %w", a.Revision, last,
				promote.ErrFenced)
		}
		for _, i := range a.Instances {
			if _, found := w.instances[i.ID]; !found {
				w.breaches = append(w.breaches, i.ID+" was routed and does not run")
			}
			if w.drained[i.ID] {
				w.breaches = append(w.breaches, i.ID+" was routed after it had been drained")
			}
		}
		a.Instances = slices.Clone(a.Instances)
		w.routed[a.Target] = a
		return nil
	})
}

// Drain implements rollout.Routes.
func (w *World) Drain(ctx context.Context, instances []rollout.Instance) error {
	var ids []string
	for _, i := range instances {
		ids = append(ids, i.ID)
	}
	for {
		var left []string
		var fewer chan struct{}
		err := w.do(ctx, "drain", strings.Join(ids, " "), func() error {
			fewer = w.fewer
			for _, id := range ids {
				if n := w.held[id]; n > 0 {
					left = append(left, fmt.Sprintf("%s has %d in flight", id, n))
				}
			}
			for _, id := range ids {
				w.drained[id] = w.drained[id] || left == nil
			}
			return nil
		})
		if err != nil || left == nil {
			return err
		}
		select {
		case <-fewer:
		case <-ctx.Done():
			return fmt.Errorf("drain: %s: %w", strings.Join(left, ", "), context.Cause(ctx))
		}
	}
}

// Ask sends a request to the target and returns the id of the instance that answers, "" for none.
func (w *World) Ask(target promote.Target) string {
	id, release := w.Hold(target)
	release()
	return id
}

// Hold sends a request that is in flight until release is called, and returns the id of the
// instance that has it, "" for none.
func (w *World) Hold(target promote.Target) (id string, release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	routed := w.routed[target].Instances
	if len(routed) == 0 {
		return "", func() {}
	}
	w.asked++
	id = routed[w.asked%len(routed)].ID
	w.held[id]++
	return id, sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held[id]--
		close(w.fewer)
		w.fewer = make(chan struct{})
	})
}

// Break puts an instance into another state, as when its process ends or is started again. An
// unknown id changes nothing.
func (w *World) Break(id string, state rollout.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i, found := w.instances[id]; found {
		i.State = state
		w.instances[id] = i
	}
}

// Routed returns the instances that the routes of the target name, as they are now.
func (w *World) Routed(target promote.Target) (list []rollout.Instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.routed[target].Instances {
		if now, found := w.instances[i.ID]; found {
			list = append(list, now)
		}
	}
	return list
}

// Instances returns the instances of the target, in the order of their ids.
func (w *World) Instances(target promote.Target) (list []rollout.Instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.instances {
		if i.Target == target {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(a, b rollout.Instance) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Breaches returns each act in a wrong order: an instance that was stopped while it was in the
// routes or before it was drained, or that was routed and did not run.
func (w *World) Breaches() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.breaches)
}
