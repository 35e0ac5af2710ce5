package mirror

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// activate reloads, waits until every worker is a new one and runs on the tree, and watches the
// error log.
func (m *Mirror) activate(ctx context.Context, id string) error {
	before, err := m.reload(ctx)
	if err != nil {
		return err
	}
	if err := m.verify(ctx, id, before, m.cfg.Nginx.Errors); err != nil {
		return err
	}
	return m.watch(ctx)
}

// restore is activate for the tree that was verified before. The error log may still hold errors of
// the reload that failed, so it is not read.
func (m *Mirror) restore(ctx context.Context, id string) error {
	before, err := m.reload(ctx)
	if err != nil {
		return err
	}
	return m.verify(ctx, id, before, func() string { return "" })
}

// reload waits until a reload may begin, signals Nginx to reload, and returns the workers of
// before.
func (m *Mirror) reload(ctx context.Context) (before []int, err error) {
	defer m.update(func(st *Status) { st.Waiting = "" })
	for {
		active, retired, err := m.cfg.Nginx.Workers()
		if err != nil {
			return nil, fmt.Errorf("reload: %w", err)
		}
		early := m.cfg.MinInterval - m.cfg.Now().Sub(m.lastReload)
		if retired < m.cfg.MaxRetired && early <= 0 {
			before = active
			break
		}
		if early <= 0 {
			m.update(func(st *Status) {
				st.Waiting = fmt.Sprintf("%d retired workers finish old requests", retired)
			})
		}
		if err := retry.Sleep(ctx, max(early, 50*time.Millisecond)); err != nil {
			return nil, fmt.Errorf("reload: %d retired workers: %w", retired, err)
		}
	}
	if err := m.cfg.Nginx.Reload(ctx); err != nil {
		return nil, fmt.Errorf("reload: %w", err)
	}
	m.lastReload = m.cfg.Now()
	return before, nil
}

// watch looks at the error log for a while: a tree that Nginx accepts may still make its workers
// crash.
func (m *Mirror) watch(ctx context.Context) error {
	for start := m.cfg.Now(); ; {
		if text := m.cfg.Nginx.Errors(); text != "" {
			return fmt.Errorf("after the reload: nginx: %s", text)
		}
		left := m.cfg.Watch - m.cfg.Now().Sub(start)
		if left <= 0 {
			return nil
		}
		if err := retry.Sleep(ctx, min(left, 100*time.Millisecond)); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
}

// verify waits until every worker is a new one and runs on the tree, or until logged returns an
// error of Nginx.
func (m *Mirror) verify(ctx context.Context, id string, before []int, logged func() string) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.VerifyTimeout)
	defer cancel()
	tries := retry.Backoff{}
	for {
		state, err := m.cfg.Driver.State(ctx)
		if err == nil {
			var done bool
			if done, err = m.runs(state, id, before); done {
				return nil
			}
		}
		if text := logged(); text != "" {
			return fmt.Errorf("reload: nginx: %s", text)
		}
		if sleepErr := retry.Sleep(ctx, tries.Next(2*time.Millisecond,
			200*time.Millisecond)); sleepErr != nil {
			return fmt.Errorf("verify: workers %+v, last error %v: %w", state.Workers, err,
				sleepErr)
		}
	}
}

// runs reports whether every worker that takes new requests runs on the tree and is none of those
// before. For a moment after a reload workers of the tree before still take some.
func (m *Mirror) runs(state nginxsync.DriverState, id string, before []int) (bool, error) {
	active, _, err := m.cfg.Nginx.Workers()
	if err != nil || !state.Runs(id) {
		return false, err
	}
	for _, pid := range active {
		if slices.Contains(before, pid) || !slices.ContainsFunc(state.Workers,
			func(w nginxsync.Worker) bool {
				return w.PID == pid
			}) {
			return false, nil
		}
	}
	return true, nil
}
