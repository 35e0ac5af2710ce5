//go:build linux

// Package nginx runs Nginx, with Debian's Lua module at hand, for tests.
package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Modules is the directory of Nginx's modules, for load_module: ndk_http_module.so and
// ngx_http_lua_module.so are there.
const Modules = "/usr/lib/nginx/modules"

// Server is one Nginx with its own prefix and log.
type Server struct {
	*testbed.Process
	Prefix string
	Conf   string // path of the main file, read by Start
}

// Start runs Nginx on a main file, which says "daemon off", with a directory as its prefix. It
// serves when this returns. Debian's Lua module is at hand.
func Start(t testing.TB, prefix, conf string) *Server {
	t.Helper()
	path := testbed.NeedProgram(t, "nginx", "nginx")
	testbed.NeedFile(t, filepath.Join(Modules, "ngx_http_lua_module.so"), "libnginx-mod-http-lua")
	n := &Server{Prefix: prefix, Conf: conf}
	n.Process = testbed.Prepare(t, testbed.Own(t).TestDir(t, "nginx"), testbed.Command{
		Name: "nginx", Path: path, Logs: []string{n.ErrorLog()},
		Ready: func(context.Context) error {
			if len(n.Workers()) == 0 { // which it starts once its sockets are bound
				return errors.New("it has no worker")
			}
			return nil
		},
	})
	n.Start()
	return n
}

// Start runs Nginx again.
func (n *Server) Start() {
	n.Process.StartWith("-p", n.Prefix, "-c", n.Conf, "-e", n.ErrorLog())
}

// ErrorLog is the path of the log.
func (n *Server) ErrorLog() string { return filepath.Join(n.Prefix, "error.log") }

// Errors returns the text of the error log.
func (n *Server) Errors() string {
	text, _ := os.ReadFile(n.ErrorLog())
	return string(text)
}

// Workers are the process ids of the workers.
func (n *Server) Workers() []int {
	pid := n.Pid()
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
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
