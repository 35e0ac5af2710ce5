// Package nginxtest runs a real Nginx and small HTTP backends for tests, on loopback addresses only.
package nginxtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Nginx is one private Nginx: its own prefix, pid file, logs and ports.
type Nginx struct {
	Prefix string // a folder that every user may enter
	Conf   string // path of the main file
	t      testing.TB
	cmd    *exec.Cmd
	done   chan struct{}
}

// Dir is a temporary folder that the workers, which run as another user, may enter.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-nginx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Port is a TCP port that was free on every address a moment ago.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Start runs Nginx in the foreground on a configuration that says "daemon off". It ends with the test.
func Start(t testing.TB, prefix, conf string) *Nginx {
	t.Helper()
	n := &Nginx{Prefix: prefix, Conf: conf, t: t}
	n.Start()
	t.Cleanup(n.Kill)
	return n
}

// Start runs Nginx again after Kill or Quit.
func (n *Nginx) Start() {
	n.t.Helper()
	n.cmd = exec.Command("nginx", "-p", n.Prefix, "-c", n.Conf, "-e", n.ErrorLog())
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that Kill reaches the workers, those of a reload too
	out, err := os.Create(filepath.Join(n.Prefix, "output"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	n.cmd.Stdout, n.cmd.Stderr = out, out
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.done = make(chan struct{})
	go func() {
		n.cmd.Wait()
		close(n.done)
	}()
	// Nginx has bound its sockets when it starts workers.
	Poll(n.t, "nginx has workers", func() error {
		select {
		case <-n.done:
			text, _ := os.ReadFile(out.Name())
			n.t.Fatalf("nginx ended: %s\n%s", text, n.Errors())
		default:
		}
		if len(n.Workers()) == 0 {
			return fmt.Errorf("no worker yet")
		}
		return nil
	})
}

// ErrorLog is the path of the log.
func (n *Nginx) ErrorLog() string { return filepath.Join(n.Prefix, "error.log") }

// Errors is what the log says.
func (n *Nginx) Errors() string {
	text, _ := os.ReadFile(n.ErrorLog())
	return string(text)
}

// Signal sends a signal to the master.
func (n *Nginx) Signal(sig syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(sig); err != nil {
		n.t.Fatal(err)
	}
}

// Workers are the process ids of the master's children.
func (n *Nginx) Workers() []int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", n.cmd.Process.Pid, n.cmd.Process.Pid))
	var pids []int
	for _, f := range strings.Fields(string(text)) {
		pid, _ := strconv.Atoi(f)
		title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.HasPrefix(string(title), "nginx: worker process") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Kill ends the master and its workers hard, as a crash would.
func (n *Nginx) Kill() {
	workers := n.Workers()
	syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL)
	<-n.done
	for _, pid := range workers {
		Poll(n.t, "worker is gone", func() error {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if _, state, _ := strings.Cut(string(stat), ") "); err == nil && !strings.HasPrefix(state, "Z") {
				return fmt.Errorf("process %d is there", pid)
			}
			return nil
		})
	}
}

// Poll tries until f is content, for at most 20 seconds.
func Poll(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// Backend is an HTTP server on 127.0.0.1 that answers with its name and the request as it saw it, when "hold" is in the query
// once the request is cancelled.
func Backend(t testing.TB, name string) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("hold") {
			<-r.Context().Done()
		}
		fmt.Fprintf(w, "%s %s host=%s vip=%s", name, r.RequestURI, r.Host, r.Header.Get("X-Env-VIP"))
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// Get asks an address for a path under a host name, on a connection of its own.
func Get(ctx context.Context, addr netip.AddrPort, host, path string) (status int, header http.Header, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr.String()+path, nil)
	if err != nil {
		return 0, nil, "", err
	}
	req.Host, req.Close = host, true
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(text), err
}
