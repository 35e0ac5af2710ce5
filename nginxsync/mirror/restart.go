package mirror

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// ErrNeedsRestart is in the chain of an error of Sync when Nginx takes the tree, but not by a
// reload: the key of a limit or the directory of a cache is another one, which a running Nginx
// cannot change. Nothing but a new Nginx helps.
var ErrNeedsRestart = errors.New("needs a restart")

// Upgrader starts a new Nginx in the place of the running one, without closing its sockets.
// ExecNginx is one, for an Nginx that runs as a daemon. The workers' shared memory (counts of
// limits, routes that are not in the driver's state file) begins empty.
type Upgrader interface {
	// Begin starts the new Nginx and has the old one take no more requests. Nil means that the new
	// one has workers. After an error the old one runs as before.
	Begin(ctx context.Context) error
	// Finish ends the old Nginx, once its requests are done. It does not wait for that.
	Finish(ctx context.Context) error
	// Abort ends the new Nginx, and the old one reads the configuration again and takes requests.
	Abort(ctx context.Context) error
}

// unreloadable finds the messages of Nginx about a change that a reload cannot carry over.
var unreloadable = regexp.MustCompile(
	`[^;]* (?:uses the ".*" (?:key|cache path|value) while previously it used|had previously different levels)[^;]*`)

// needsRestart marks an error of a reload that only a restart can mend.
func needsRestart(err error) (string, error) {
	if err == nil {
		return "", nil
	}
	if why := unreloadable.FindString(err.Error()); why != "" {
		return why, fmt.Errorf("%w: %w", err, ErrNeedsRestart)
	}
	return "", err
}

// restart puts a new Nginx on the tree, verified as a reload is. On an error the old one is back on
// the tree before.
func (m *Mirror) restart(ctx context.Context, id, good string) error {
	begin, cancel := context.WithTimeout(ctx, m.cfg.VerifyTimeout)
	err := m.cfg.Restart.Begin(begin)
	cancel()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	err = m.verify(ctx, id, nil, func() string { return "" })
	if err == nil {
		err = m.watch(ctx)
	}
	if err == nil {
		m.lastReload = m.cfg.Now()
		return m.cfg.Restart.Finish(ctx)
	}
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.VerifyTimeout)
	defer cancel()
	if good != "" {
		if switchErr := m.Switch(good); switchErr != nil {
			return fmt.Errorf("restart: %w; back: %w", err, switchErr)
		}
	}
	if abortErr := m.cfg.Restart.Abort(back); abortErr != nil {
		return fmt.Errorf("restart: %w; back: %w", err, abortErr)
	}
	return fmt.Errorf("restart: %w", err)
}
