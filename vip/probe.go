package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// errInUse ends an allocation round whose addresses are in use outside the allocator.
var errInUse = errors.New("in use")

// inUseError names those addresses.
type inUseError struct{ found []*entry }

func (*inUseError) Error() string { return errInUse.Error() }

func (*inUseError) Is(target error) bool { return target == errInUse }

// probe asks Config.Probe about the picked addresses, which are busy meanwhile: all but the ones
// that go back to the owner that had them last. The error is an *inUseError, or of the probe.
func (a *Allocator) probe(ctx context.Context, owner *Owner, picked []*entry) error {
	var asked []*entry
	for _, e := range picked {
		if e.rev == 0 || !e.last().wasOf(owner) {
			asked = append(asked, e)
		}
		e.busy = true
	}
	used, errs := make([]bool, len(asked)), make([]error, len(asked))
	a.unlocked(func() {
		var probes sync.WaitGroup
		for i, e := range asked {
			probes.Go(func() { used[i], errs[i] = probeOne(ctx, a.cfg.Probe, e.addr) })
		}
		probes.Wait()
	})
	for _, e := range picked {
		a.setIdle(e)
	}
	var found []*entry
	for i, e := range asked {
		if used[i] && errs[i] == nil {
			found = append(found, e)
		}
	}
	if len(found) > 0 {
		return &inUseError{found}
	}
	return errors.Join(errs...)
}

// probeOne prefers the cause of ctx to the error of a probe that ctx has cut short.
func probeOne(
	ctx context.Context, probe func(context.Context, netip.Addr) (bool, error), addr netip.Addr,
) (used bool, err error) {
	used, err = probe(ctx, addr)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("probe %s: %w", addr, err)
	}
	return used, err
}

// probed sets aside the addresses that are in use, and returns the error of the allocation round.
// The addresses are idle.
func (a *Allocator) probed(ctx context.Context, task string, err error) error {
	var inUse *inUseError
	if !errors.As(err, &inUse) {
		return fmt.Errorf("allocate for task %q: %w", task, err)
	}
	for _, e := range inUse.found {
		if asideErr := a.setAsideUsed(ctx, e); asideErr != nil {
			return fmt.Errorf("allocate for task %q: address %s is in use, by the probe's word: %w",
				task, e.addr, asideErr)
		}
	}
	return err
}

func (a *Allocator) setAsideUsed(ctx context.Context, e *entry) error {
	// another call was faster
	if e.busy || e.uncertain || e.state != Free && e.state != Cooling {
		return nil
	}
	now := a.cfg.Now()
	c := a.newCommit()
	next := &c.add(e).next
	if *next = *e.last(); e.rev == 0 {
		*next = tenure{Lease: Lease{Addr: e.addr, Pool: e.pool.Name}}
	}
	if err := a.setAside(e, next, now, "in use, by the word of Config.Probe",
		a.cfg.ProbeRest); err != nil {
		a.recycle(c)
		return err
	}
	e.pool.dequeue(e)
	if err := a.commit(ctx, now, c); err != nil && !errors.Is(err, ErrRevision) {
		return err
	}
	return nil
}
