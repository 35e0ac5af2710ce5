package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// NginxModules is the folder of Nginx's modules, for load_module: ndk_http_module.so and ngx_http_lua_module.so are there.
const NginxModules = "/usr/lib/nginx/modules"

// NginxServer is one Nginx with its own prefix and log.
type NginxServer struct {
	*Process
	Prefix string
	Conf   string // path of the main file, read by Start
}

// Folder is a temporary folder that every user may enter, such as Nginx's workers, which run as another one.
func Folder(t testing.TB) string {
	t.Helper()
	return own(t).folder(t, "files")
}

// Nginx runs Nginx on a main file, which says "daemon off", with a folder as its prefix. It serves when this returns. Debian's
// Lua module is at hand.
func Nginx(t testing.TB, prefix, conf string) *NginxServer {
	t.Helper()
	path := program(t, "nginx", "nginx")
	file(t, filepath.Join(NginxModules, "ngx_http_lua_module.so"), "libnginx-mod-http-lua")
	n := &NginxServer{Prefix: prefix, Conf: conf}
	n.Process = prepare(t, own(t).folder(t, "nginx"), command{
		name: "nginx", path: path, logs: []string{n.ErrorLog()},
		ready: func(context.Context) error {
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
func (n *NginxServer) Start() {
	n.t.Helper()
	n.c.args = []string{"-p", n.Prefix, "-c", n.Conf, "-e", n.ErrorLog()}
	n.Process.Start()
}

// ErrorLog is the path of the log.
func (n *NginxServer) ErrorLog() string { return filepath.Join(n.Prefix, "error.log") }

// Errors is what the log says.
func (n *NginxServer) Errors() string {
	text, _ := os.ReadFile(n.ErrorLog())
	return string(text)
}

// Workers are the process ids of the workers.
func (n *NginxServer) Workers() []int {
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
