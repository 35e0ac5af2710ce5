//go:build unix

package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

var _ Upgrader = (*ExecNginx)(nil)

// Begin implements Upgrader with the signals of Nginx's upgrade on the fly: USR2 starts a new Nginx
// on the sockets of the old one, WINCH has the workers of the old one end. Nginx takes neither when
// it runs in the foreground ("daemon off").
func (n *ExecNginx) Begin(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("upgrade: %w", context.Cause(ctx))
	}
	old, err := n.master()
	if err != nil {
		return err
	}
	n.mark()
	if err := signal(old, syscall.SIGUSR2); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for tries := (retry.Backoff{}); ; {
		active, _, err := n.Workers()
		if pid, pidErr := n.master(); pidErr == nil && pid != old && err == nil && len(active) > 0 {
			return signal(old, syscall.SIGWINCH)
		}
		failed := error(nil)
		if text := n.Errors(); text != "" {
			failed = fmt.Errorf("upgrade: nginx: %s", text)
		} else if err := retry.Sleep(wait, tries.Next(5*time.Millisecond,
			200*time.Millisecond)); err != nil {
			failed = fmt.Errorf("upgrade: no new nginx with workers in %s; in the foreground "+
				"(daemon off) nginx cannot be upgraded: run it in the background, or stop it, "+
				"call Mirror.Stage and Mirror.Switch, and start it: %w", n.PIDFile, err)
		}
		if failed != nil {
			if pid, err := n.master(); err == nil && pid != old {
				failed = errors.Join(failed, signal(pid, syscall.SIGTERM))
			}
			return errors.Join(failed, n.alone(context.WithoutCancel(ctx), old))
		}
	}
}

// alone waits until the new Nginx has ended, and the file has the process of the old one again.
func (n *ExecNginx) alone(ctx context.Context, old int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for tries := (retry.Backoff{}); ; {
		if pid, err := n.master(); err == nil && pid == old {
			return nil
		}
		if err := retry.Sleep(ctx, tries.Next(5*time.Millisecond,
			200*time.Millisecond)); err != nil {
			return fmt.Errorf("upgrade: the new nginx in %s does not end: %w", n.PIDFile, err)
		}
	}
}

// Finish implements Upgrader: QUIT ends the old Nginx.
func (n *ExecNginx) Finish(context.Context) error {
	old, err := n.old()
	if err != nil {
		return err
	}
	return signal(old, syscall.SIGQUIT)
}

// Abort implements Upgrader: HUP gives the old Nginx workers again, TERM ends the new one.
func (n *ExecNginx) Abort(ctx context.Context) error {
	old, err := n.old()
	if err != nil {
		return err
	}
	fresh, err := n.master()
	if err != nil {
		return err
	}
	if err := signal(old, syscall.SIGHUP); err != nil {
		return err
	}
	if err := signal(fresh, syscall.SIGTERM); err != nil {
		return err
	}
	return n.alone(ctx, old)
}

// old is the process that is upgraded.
func (n *ExecNginx) old() (int, error) {
	text, err := os.ReadFile(n.PIDFile + ".oldbin")
	if err != nil {
		return 0, fmt.Errorf("upgrade: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("%s.oldbin: %q is not a process ID", n.PIDFile, text)
	}
	return pid, nil
}
