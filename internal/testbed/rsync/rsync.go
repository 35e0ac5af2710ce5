//go:build linux

// Package rsync runs an rsync daemon for tests.
package rsync

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Server is an rsync daemon.
type Server struct {
	Addr    string // host:port
	URL     string // of its module, without a slash at the end: rsync://host:port/code
	Process *testbed.Process
}

// Start serves a directory, which it only reads, as the module "code" of an rsync daemon on a free
// port of an address of this machine; 127.0.0.1 without one.
func Start(t testing.TB, directory string, host ...string) *Server {
	t.Helper()
	dir, addr := testbed.Endpoint(t, "rsyncd", host)
	path := testbed.NeedProgram(t, "rsync", "rsync")
	ip, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("pid file = %[1]s/pid\nuse chroot = no\nread only = yes\naddress = "+
		"%[2]s\nport = %[3]s\n[code]\npath = %[4]s\n", dir, ip, port, directory)
	if os.Geteuid() == 0 {
		config = "uid = 0\ngid = 0\n" + config // the directory may be closed to nobody
	}
	file := filepath.Join(dir, "rsyncd.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return &Server{Addr: addr, URL: "rsync://" + addr + "/code", Process: testbed.Start(t, dir,
		testbed.Command{
			Name: "rsyncd", Path: path, Args: []string{"--daemon", "--no-detach", "--config=" +
				file},
			Ready: testbed.Listens(addr),
		})}
}
