package hosts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Plan is a change of all hosts, one after another. Change is required.
type Plan struct {
	// Change makes the change on one host, such as by mirror.Mirror: stage, nginx -t, switch,
	// reload, verify. The host gets no new requests meanwhile. An error means that the host works
	// as before.
	Change func(ctx context.Context, host Host) error
	// By names the caller in the agents' logs.
	By string
	// Settle is how long a host is left alone after its requests have ended, so that the load
	// balancer has seen its health. The default is 3 seconds.
	Settle time.Duration
	// DrainFor is how long a drain waits for requests in flight, and Patience how long a host may
	// take to be healthy after its change. The defaults are 1 minute.
	DrainFor, Patience time.Duration
}

// RollError says where a Roll has stopped.
type RollError struct {
	Host string
	Step string   // "ready", "drain", "change", "verify" or "undrain"
	Done []string // hosts that have the change
	// Drained says that the host was left out of the load balancer: it is not known to work.
	Drained bool
	Err     error
}

// Error names host and step.
func (e *RollError) Error() string {
	state := "it gets requests"
	if e.Drained {
		state = "it stays drained"
	}
	return fmt.Sprintf("host %s: %s: %v: %s, %d hosts before it have the change", e.Host, e.Step,
		e.Err, state, len(e.Done))
}

// Unwrap returns Err.
func (e *RollError) Unwrap() error { return e.Err }

// Roll makes a change on one host after another: drain, wait until no request is in flight, change,
// verify, undrain. It stops at the first failure with a *RollError. Before a host is drained, it
// and as many others as the quorum asks for are healthy; with fewer hosts than that, all others
// are. A host whose change failed and that works as before is put back; one that does not become
// healthy stays drained.
func (h *Hosts) Roll(ctx context.Context, plan Plan) error {
	if plan.Change == nil || plan.Settle < 0 || plan.DrainFor < 0 || plan.Patience < 0 {
		return fmt.Errorf("roll: want Change, and no negative times: %w", nginxsync.ErrInvalid)
	}
	for _, d := range []struct {
		v  *time.Duration
		or time.Duration
	}{{&plan.Settle, 3 * time.Second}, {&plan.DrainFor, time.Minute},
		{&plan.Patience, time.Minute}} {
		if *d.v == 0 {
			*d.v = d.or
		}
	}
	var done []string
	for _, host := range h.cfg.Hosts {
		if err := h.roll(ctx, plan, host); err != nil {
			err.Done = done
			h.cfg.Logger.Error("roll stops", "err", err)
			return err
		}
		done = append(done, host.Name)
		h.cfg.Logger.Info("roll", "host", host.Name, "done", len(done), "of", len(h.cfg.Hosts))
	}
	return nil
}

func (h *Hosts) roll(ctx context.Context, plan Plan, host Host) *RollError {
	fail := func(step string, drained bool, err error) *RollError {
		return &RollError{Host: host.Name, Step: step, Drained: drained, Err: err}
	}
	if err := h.spare(ctx, plan, host); err != nil {
		return fail("ready", false, err)
	}
	// The way back ignores the end of the caller's context: a host must not stay drained.
	back := context.WithoutCancel(ctx)
	if err := h.step("drain", func() error { return drain(ctx, plan, host) }); err != nil {
		return h.back(back, plan, host, fail("drain", true, err))
	}
	if err := h.step("change", func() error { return plan.Change(ctx, host) }); err != nil {
		return h.back(back, plan, host, fail("change", true, err))
	}
	if err := wait(ctx, plan.Patience, func(ctx context.Context) error {
		return settled(ctx, host)
	}); err != nil {
		return fail("verify", true, err)
	}
	if err := h.undrain(back, plan, host); err != nil {
		return fail("undrain", true, err)
	}
	if err := wait(back, plan.Patience, host.healthy); err != nil {
		return fail("undrain", false, err)
	}
	return nil
}

// step observes one step.
func (h *Hosts) step(op string, f func() error) error {
	start := h.cfg.Now()
	err := f()
	h.cfg.Observe(op, h.cfg.Now().Sub(start), err)
	return err
}

// spare waits until the host and enough others are healthy.
func (h *Hosts) spare(ctx context.Context, plan Plan, host Host) error {
	need := min(h.cfg.Quorum+1, len(h.cfg.Hosts))
	return wait(ctx, plan.Patience, func(ctx context.Context) error {
		report := h.each(ctx, func(ctx context.Context, h Host) error { return h.healthy(ctx) })
		if report[host.Name] != "" || report.Ready() < need {
			return fmt.Errorf("want %d with this one: %s", need, report)
		}
		return nil
	})
}

// drain takes the host out and waits for its requests.
func drain(ctx context.Context, plan Plan, host Host) error {
	if _, err := host.Agent.Drain(ctx, plan.By); err != nil {
		return err
	}
	if err := retry.Sleep(ctx, plan.Settle); err != nil {
		return err
	}
	return wait(ctx, plan.DrainFor, func(ctx context.Context) error {
		flight, err := host.Agent.InFlight(ctx)
		if err == nil && (flight.Requests > 0 || len(flight.Unknown) > 0) {
			err = fmt.Errorf("%d requests in flight, not known: %q", flight.Requests,
				flight.Unknown)
		}
		return err
	})
}

// settled returns an error unless the drain is all that keeps the host from requests.
func settled(ctx context.Context, host Host) error {
	health, err := host.Agent.Health(ctx)
	if err != nil {
		return err
	}
	for _, why := range health.Reasons {
		if !strings.HasPrefix(why, "drained") {
			return errors.New(why)
		}
	}
	return nil
}

// back puts a host back that works as before a step failed.
func (h *Hosts) back(ctx context.Context, plan Plan, host Host, failed *RollError) *RollError {
	err := wait(ctx, plan.Patience, func(ctx context.Context) error { return settled(ctx, host) })
	if err == nil {
		err = h.undrain(ctx, plan, host)
	}
	if err == nil {
		failed.Drained = false
	} else {
		failed.Err = errors.Join(failed.Err, err)
	}
	return failed
}

func (h *Hosts) undrain(ctx context.Context, plan Plan, host Host) error {
	return h.step("undrain", func() error {
		return wait(ctx, plan.Patience, func(ctx context.Context) error {
			_, err := host.Agent.Undrain(ctx, plan.By)
			return err
		})
	})
}

// wait calls ask until it returns nil, at most for that long.
func wait(ctx context.Context, most time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("not within %s", most))
	defer cancel()
	tries := retry.Backoff{}
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if cause := retry.Sleep(ctx, tries.Next(20*time.Millisecond, time.Second)); cause != nil {
			return fmt.Errorf("%w: %w", err, cause)
		}
	}
}
