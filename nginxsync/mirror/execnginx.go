package mirror

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// ExecNginx controls the Nginx of this machine by its binary, its pid file and its error log. Its
// methods are safe for concurrent use.
type ExecNginx struct {
	Binary   string // The default is nginx, found on PATH, else /usr/sbin/nginx.
	Prefix   string // the value of -p that Nginx was started with; empty for its own
	PIDFile  string
	ErrorLog string // the file of the main error log; empty means that it is not watched

	mu     sync.Mutex
	offset int64 // of ErrorLog when Reload was called
}

var _ Nginx = (*ExecNginx)(nil)

func (n *ExecNginx) args(args ...string) []string {
	if n.Prefix != "" {
		args = append(args, "-p", n.Prefix)
	}
	return append(args, "-e", "stderr")
}

// defaultBinary is nginx on PATH. The PATH of Debian's plain users has no /usr/sbin, where Nginx
// is.
func defaultBinary() string {
	if found, err := exec.LookPath("nginx"); err == nil {
		return found
	}
	return "/usr/sbin/nginx"
}

// Test implements Nginx with nginx -t.
func (n *ExecNginx) Test(ctx context.Context, main string) error {
	binary := n.Binary
	if binary == "" {
		binary = defaultBinary()
	}
	out, err := exec.CommandContext(ctx, binary, n.args("-t", "-q", "-c", main)...).CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("nginx -t: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("nginx -t: %w: %s", err, bytes.TrimSpace(out[:min(len(out), 4096)]))
	}
	return nil
}

// Reload implements Nginx with a HUP signal to the process in the pid file.
func (n *ExecNginx) Reload(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("reload: %w", context.Cause(ctx))
	}
	pid, err := n.master()
	if err != nil {
		return err
	}
	n.mark()
	return signal(pid, syscall.SIGHUP)
}

// mark makes Errors begin behind the present end of the error log.
func (n *ExecNginx) mark() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if info, err := os.Stat(n.ErrorLog); n.ErrorLog != "" && err == nil {
		n.offset = info.Size()
	}
}

func (n *ExecNginx) master() (int, error) {
	text, err := os.ReadFile(n.PIDFile)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("%s: %q is not a process ID", n.PIDFile, text)
	}
	return pid, nil
}

// Workers implements Nginx by the titles of the master's children.
func (n *ExecNginx) Workers() (active []int, retired int, err error) {
	pid, err := n.master()
	if err != nil {
		return nil, 0, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		return nil, 0, err
	}
	for _, child := range strings.Fields(string(children)) {
		// a child that has ended counts no more
		title, _ := os.ReadFile("/proc/" + child + "/cmdline")
		switch {
		case strings.Contains(string(title), "is shutting down"):
			retired++
		case strings.HasPrefix(string(title), "nginx: worker process"):
			id, err := strconv.Atoi(child)
			if err != nil {
				return nil, 0, err
			}
			active = append(active, id)
		}
	}
	return active, retired, nil
}

// emergency finds the lines that Nginx logs when it refuses a configuration, of the Lua module when
// the code of an init_by_lua fails, which ends a reload or a start as well, and when a worker
// crashes.
var emergency = regexp.MustCompile(`(?m)^\S+ \S+ \[(?:emerg\] (.*)` +
	`|error\] (?:[0-9#]+: )?(init_by_lua\w* error: .*)|alert\] (.* exited on signal .*))$`)

// Errors implements Nginx by the error log.
func (n *ExecNginx) Errors() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, err := os.Open(n.ErrorLog)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.NewSectionReader(f, n.offset, 1<<20))
	var all []string
	for _, m := range emergency.FindAllSubmatch(text, 5) {
		all = append(all, string(m[1])+string(m[2])+string(m[3]))
	}
	return strings.Join(all, "; ")
}

func signal(pid int, sig syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(sig)
	}
	if err != nil {
		return fmt.Errorf("nginx process %d: %w", pid, err)
	}
	return nil
}
