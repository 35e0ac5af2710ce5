//go:build linux

package rsyncbundle_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/bundletest"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/rsyncbundle"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// daemon is an rsync daemon with the module "tree", and "secret", which asks for a password.
type daemon struct {
	t    *testing.T
	dir  string // of the module
	conf string
	port int
	cmd  *exec.Cmd
}

func startDaemon(t *testing.T) *daemon {
	base := t.TempDir()
	d := &daemon{t: t, dir: filepath.Join(base, "tree"), conf: filepath.Join(base, "rsyncd.conf"),
		port: nginxtest.Port(t)}
	require.NoError(t, os.Mkdir(d.dir, 0o755))
	secrets := filepath.Join(base, "secrets")
	require.NoError(t, os.WriteFile(secrets, []byte("sluice:geheim\n"), 0o600))
	// without uid and gid a daemon of root serves as a user that may not reach the test's directory
	require.NoError(t, os.WriteFile(d.conf, fmt.Appendf(nil, `use chroot = no
uid = %d
gid = %d
port = %d
address = 127.0.0.1
[tree]
path = %s
read only = yes
[secret]
path = %s
read only = yes
auth users = sluice
secrets file = %s
`, os.Geteuid(), os.Getegid(), d.port, d.dir, d.dir, secrets), 0o600))
	d.start()
	t.Cleanup(d.stop)
	return d
}

func (d *daemon) start() {
	d.cmd = exec.Command("rsync", "--daemon", "--no-detach", "--config="+d.conf)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(d.t, d.cmd.Start())
	nginxtest.Poll(d.t, "rsync daemon", func() error {
		c, err := net.Dial("tcp", d.addr())
		if err == nil {
			c.Close()
		}
		return err
	})
}

func (d *daemon) stop() {
	if d.cmd != nil {
		syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		d.cmd.Wait()
		d.cmd = nil
	}
}

func (d *daemon) addr() string { return fmt.Sprintf("127.0.0.1:%d", d.port) }

func (d *daemon) source(cfg rsyncbundle.Config) *rsyncbundle.Source {
	if cfg.URL == "" {
		cfg.URL = "rsync://" + d.addr() + "/tree"
	}
	cfg.Dir, cfg.Every = filepath.Join(d.t.TempDir(), "copy"), 200*time.Millisecond
	source, err := rsyncbundle.New(cfg)
	require.NoError(d.t, err)
	return source
}

func TestContract(t *testing.T) {
	t.Parallel()
	bundletest.Run(t, func(t *testing.T) *bundletest.Harness {
		d := startDaemon(t)
		return &bundletest.Harness{
			Source: d.source(rsyncbundle.Config{Limits: bundletest.Limits}),
			Set:    func(f bundletest.Files) { bundletest.Write(t, d.dir, f) },
			Away:   d.stop,
			Back:   d.start,
		}
	})
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		change     func(dir string) error
	}{
		{"link out", "it leads out of the tree", func(dir string) error {
			return os.Symlink("/etc/passwd", filepath.Join(dir, "x"))
		}},
		{"link to a directory out", "it leads out of the tree", func(dir string) error {
			return os.Symlink("../..", filepath.Join(dir, "x"))
		}},
		{"fifo", "want regular files", func(dir string) error {
			return syscall.Mkfifo(filepath.Join(dir, "x"), 0o644)
		}},
	} {
		d := startDaemon(t)
		bundletest.Write(t, d.dir, bundletest.Files{"nginx.conf": "1"})
		source := d.source(rsyncbundle.Config{})
		b, err := source.Fetch(t.Context(), "")
		require.NoError(t, err)
		require.NoError(t, c.change(d.dir))
		_, err = source.Fetch(t.Context(), b.Digest)
		require.ErrorIs(t, err, bundle.ErrInvalid, c.name)
		require.ErrorContains(t, err, c.want, c.name)
		require.NoError(t, os.Remove(filepath.Join(d.dir, "x")))
		_, err = source.Fetch(t.Context(), "")
		require.NoError(t, err, c.name)
	}
}

// A change that keeps size and time of a file is seen; a file and a directory may change places; a
// link inside comes as its target.
func TestCopy(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	at := time.Unix(1_700_000_000, 0)
	write := func(text string) {
		bundletest.Write(t, d.dir, bundletest.Files{"nginx.conf": text, "d": "file"})
		require.NoError(t, os.Chtimes(filepath.Join(d.dir, "nginx.conf"), at, at))
	}
	write("1")
	source := d.source(rsyncbundle.Config{})
	first, err := source.Fetch(t.Context(), "")
	require.NoError(t, err)
	write("2")
	second, err := source.Fetch(t.Context(), first.Digest)
	require.NoError(t, err)
	require.Equal(t, "2", second.Files["nginx.conf"].Text)
	require.NoError(t, os.Remove(filepath.Join(d.dir, "d")))
	bundletest.Write(t, d.dir, bundletest.Files{"nginx.conf": "2", "d/e": "directory"})
	require.NoError(t, os.Symlink("../nginx.conf", filepath.Join(d.dir, "d", "link")))
	third, err := source.Fetch(t.Context(), second.Digest)
	for err == nil && third.Files["d/link"].Text == "" { // the change took more than one step
		third, err = source.Fetch(t.Context(), third.Digest)
	}
	require.NoError(t, err)
	require.Equal(t, "directory", third.Files["d/e"].Text)
	require.Equal(t, "2", third.Files["d/link"].Text)
}

func TestPassword(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	bundletest.Write(t, d.dir, bundletest.Files{"etc/nginx.conf": "1"})
	file := filepath.Join(t.TempDir(), "password")
	for _, c := range []struct{ password, want string }{{"geheim", ""}, {"falsch", "auth failed"}} {
		require.NoError(t, os.WriteFile(file, []byte(c.password+"\n"), 0o600))
		b, err := d.source(rsyncbundle.Config{URL: "rsync://sluice@" + d.addr() + "/secret/etc/",
			PasswordFile: file}).Fetch(t.Context(), "")
		if c.want != "" {
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), c.password)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "1", b.Files["nginx.conf"].Text)
	}
}

// The environment of the process cannot make rsync start a program. It is set for the whole
// process, so this test runs alone.
func TestNothingOfTheEnvironmentRuns(t *testing.T) {
	d := startDaemon(t)
	bundletest.Write(t, d.dir, bundletest.Files{"nginx.conf": "1"})
	hit := filepath.Join(t.TempDir(), "hit")
	t.Setenv("RSYNC_CONNECT_PROG", "touch "+hit)
	t.Setenv("RSYNC_RSH", "touch "+hit)
	t.Setenv("RSYNC_PROXY", "127.0.0.1:1")
	_, err := d.source(rsyncbundle.Config{}).Fetch(t.Context(), "")
	require.NoError(t, err)
	require.NoFileExists(t, hit)
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "host:path", "host::module", "rsync://host", "rsync://host/",
		"--rsh=x", "ssh://host/x", "rsync://u:p@host/m", "/etc"} {
		_, err := rsyncbundle.New(rsyncbundle.Config{URL: url, Dir: "x"})
		require.ErrorContains(t, err, "rsyncbundle: Config.URL", url)
	}
	_, err := rsyncbundle.New(rsyncbundle.Config{URL: "rsync://h/m"})
	require.ErrorContains(t, err, "Config.Dir: is required")
}

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/nginxsync/bundle/rsyncbundle")
}
