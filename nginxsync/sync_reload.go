package nginxsync

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// activate reloads, waits until every worker is a new one and runs on the tree, and watches the error log.
func (s *Syncer) activate(ctx context.Context, id string, errorsEnd bool) error {
	defer s.update(func(st *SyncStatus) { st.Waiting = "" })
	var before []int
	for {
		active, retired, err := s.cfg.Nginx.Workers()
		if err != nil {
			return fmt.Errorf("reload: %w", err)
		}
		early := s.cfg.MinInterval - time.Since(s.lastReload)
		if retired < s.cfg.MaxRetired && early <= 0 {
			before = active
			break
		}
		if early <= 0 {
			s.update(func(st *SyncStatus) { st.Waiting = fmt.Sprintf("%d retired workers finish old requests", retired) })
		}
		if err := sleep(ctx, max(early, 50*time.Millisecond)); err != nil {
			return fmt.Errorf("reload: %d retired workers: %w", retired, err)
		}
	}
	s.update(func(st *SyncStatus) { st.Waiting = "" })
	if err := s.cfg.Nginx.Reload(ctx); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	s.lastReload = time.Now()
	if err := s.verify(ctx, id, before, errorsEnd); err != nil || !errorsEnd {
		return err
	}
	return s.watch(ctx)
}

// watch looks at the error log for a while: a tree that Nginx accepts may still make its workers crash.
func (s *Syncer) watch(ctx context.Context) error {
	for end := time.Now().Add(s.cfg.Watch); ; {
		if text := s.cfg.Nginx.Errors(); text != "" {
			return fmt.Errorf("after the reload: nginx: %s", text)
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if err := sleep(ctx, min(left, 100*time.Millisecond)); err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	}
}

// verify waits until every worker is a new one and runs on the tree, or until Nginx logs an error.
func (s *Syncer) verify(ctx context.Context, id string, before []int, errorsEnd bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.VerifyTimeout)
	defer cancel()
	retry := backoff{}
	for {
		state, err := s.cfg.Driver.State(ctx)
		if err == nil {
			var done bool
			if done, err = s.runs(state, id, before); done {
				return nil
			}
		}
		if text := s.cfg.Nginx.Errors(); text != "" && errorsEnd {
			return fmt.Errorf("reload: nginx: %s", text)
		}
		if sleepErr := sleep(ctx, retry.next(2*time.Millisecond, 200*time.Millisecond)); sleepErr != nil {
			return fmt.Errorf("verify: workers %+v, last error %v: %w", state.Workers, err, sleepErr)
		}
	}
}

// runs reports whether every worker that takes new requests runs on the tree and is none of those before. For a moment after
// a reload workers of the tree before still take some.
func (s *Syncer) runs(state DriverState, id string, before []int) (bool, error) {
	active, _, err := s.cfg.Nginx.Workers()
	if err != nil || !state.Runs(id) {
		return false, err
	}
	for _, pid := range active {
		if slices.Contains(before, pid) || !slices.ContainsFunc(state.Workers, func(w Worker) bool { return w.PID == pid }) {
			return false, nil
		}
	}
	return true, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
