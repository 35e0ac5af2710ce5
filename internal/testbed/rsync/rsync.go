//go:build linux

// Package rsync runs an rsync daemon for tests.
package rsync

import (
	"fmt"
	"math/rand/v2"
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
	return start(t, directory, dir, addr, "")
}

// StartSecured is Start for a module that only a user with a password may read.
func StartSecured(t testing.TB, directory, user, password string) *Server {
	t.Helper()
	dir, addr := testbed.Endpoint(t, "rsyncd", nil)
	secrets := filepath.Join(dir, "secrets")
	if err := os.WriteFile(secrets, []byte(user+":"+password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, directory, dir, addr, "auth users = "+user+"\nsecrets file = "+secrets+"\n")
}

// StartStandard is Start on the port of the protocol, 873, of an address that no other test has,
// under the names "code" and "root" of modules. It needs root.
func StartStandard(t testing.TB, directory string) *Server {
	t.Helper()
	testbed.NeedRoot(t, "an rsync daemon on port 873")
	dir := testbed.Own(t).TestDir(t, "rsyncd")
	for _, n := range rand.Perm(250) {
		addr := fmt.Sprintf("127.0.10.%d:873", n+1)
		// of this machine's tests one has it, and of its other programs none
		held, err := net.Listen("unix", "@sluice-testbed/"+addr)
		if err != nil {
			continue
		}
		if free, err := net.Listen("tcp", addr); err == nil {
			free.Close()
			t.Cleanup(func() { held.Close() })
			return start(t, directory, dir, addr, "[root]\npath = "+directory+"\n")
		}
		held.Close()
	}
	t.Fatal("no free address in 127.0.10.0/24")
	return nil
}

// start runs a daemon whose module has more lines in its configuration.
func start(t testing.TB, directory, dir, addr, more string) *Server {
	t.Helper()
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
	if err := os.WriteFile(file, []byte(config+more), 0o644); err != nil {
		t.Fatal(err)
	}
	return &Server{Addr: addr, URL: "rsync://" + addr + "/code", Process: testbed.Start(t, dir,
		testbed.Command{
			Name: "rsyncd", Path: path, Args: []string{"--daemon", "--no-detach", "--config=" +
				file},
			Ready: testbed.Listens(addr),
		})}
}
