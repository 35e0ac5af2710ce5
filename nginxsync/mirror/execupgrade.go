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

// foreground is what to do where Nginx runs in the foreground.
const foreground = "in the foreground (daemon off) nginx cannot be upgraded: run it in the " +
	"background, as package supervisor does, with \"daemon\": \"\" under main in the rules; or " +
	"stop it, call Mirror.Stage and Mirror.Switch, and start it"

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
	// The title of a master ends with the arguments that it was started with.
	title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", old))
	if strings.Contains(string(title), "daemon off") {
		return fmt.Errorf("upgrade: %s", foreground)
	}
	n.mark()
	if err := n.takeNotice(ctx, old); err != nil {
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
			failed = fmt.Errorf("upgrade: no new nginx with workers in %s: %w", n.PIDFile, err)
		}
		if failed != nil {
			if pid, err := n.master(); err == nil && pid != old {
				failed = errors.Join(failed, signal(pid, syscall.SIGTERM))
			}
			return errors.Join(failed, n.alone(context.WithoutCancel(ctx), old))
		}
	}
}

// takeNotice sends USR2 until Nginx begins: it renames its pid file then. It ignores the signal in
// the foreground, and while the process that made it a daemon lives.
func (n *ExecNginx) takeNotice(ctx context.Context, old int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for tries := (retry.Backoff{}); ; {
		if pid, err := n.old(); err == nil && pid == old {
			return nil
		}
		if n.Errors() != "" { // it began and failed
			return nil
		}
		if err := signal(old, syscall.SIGUSR2); err != nil {
			return err
		}
		if err := retry.Sleep(ctx, tries.Next(5*time.Millisecond,
			200*time.Millisecond)); err != nil {
			return fmt.Errorf("upgrade: nginx takes no notice of USR2; %s: %w", foreground, err)
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
