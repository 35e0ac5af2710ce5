//go:build linux

package mirror_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// synced is an Nginx that follows a production tree.
type synced struct {
	*nginxtest.Nginx
	driver   *luadriver.Driver
	cfg      luadriver.SnippetConfig
	port     int
	mirror   *mirror.Mirror
	settings mirror.Config
	dir      string
	taken    int // the test port of production's 81, on which another process listens
}

func site(body string) map[string]string {
	return map[string]string{
		"nginx.conf": "user www-data;\nevents { worker_connections 128; }\nhttp { include " +
			"conf.d/*.conf; }\n",
		"conf.d/site.conf": "upstream a { server 10.9.9.1:80; }\nserver {\n    listen 80;\n    " +
			body + "\n}\n",
		"secret.key":        "-----BEGIN PRIVATE KEY-----",
		"htpasswd":          "u:p",
		"conf.d/site.conf~": "server { listen 80; }",
	}
}

func bundleOf(t *testing.T, files map[string]string) *bundle.Bundle {
	t.Helper()
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o640}
	}
	b, err := bundle.Read(m, bundle.Limits{})
	require.NoError(t, err)
	return b
}

func startSynced(t *testing.T, source bundle.Source, body string) *synced {
	dir := nginxtest.Dir(t)
	l, err := net.Listen("tcp4", ":0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	s := &synced{port: nginxtest.Port(t), dir: filepath.Join(dir, "trees"),
		taken: l.Addr().(*net.TCPAddr).Port}
	require.NoError(t, os.Mkdir(s.dir, 0o755))
	s.cfg = luadriver.SnippetConfig{Socket: filepath.Join(dir, "admin.sock"), Memory: 1 << 20}
	s.driver, err = luadriver.New(luadriver.Config{Socket: s.cfg.Socket})
	require.NoError(t, err)
	s.settings = syncSettings(s.dir, dir, filepath.Join(dir, "nginx.pid"), s.cfg.Socket, s.port,
		s.taken)
	s.settings.Source, s.settings.Driver = source, s.driver
	s.mirror, err = mirror.New(s.settings)
	require.NoError(t, err)
	id, err := s.mirror.Stage(t.Context(), bundleOf(t, site(body)))
	require.NoError(t, err)
	require.NoError(t, s.mirror.Switch(id))
	s.Nginx = nginxtest.Start(t, dir, filepath.Join(s.dir, "current", "nginx.conf"))
	s.ready(t)
	return s
}

// syncSettings are all but Source and Driver.
func syncSettings(dir, prefix, pid, socket string, port, taken int) mirror.Config {
	return mirror.Config{
		Dir: dir, MinInterval: time.Millisecond, Watch: time.Millisecond,
		Nginx: &mirror.ExecNginx{Prefix: prefix, PIDFile: pid, ErrorLog: filepath.Join(prefix,
			"error.log")},
		Rules: transform.Rules{
			Listen: map[int]int{80: port, 81: taken}, TempDir: prefix,
			Snippets: luadriver.Snippets(luadriver.SnippetConfig{Socket: socket, Memory: 1 << 20}),
			Main: map[string]string{"user": "", "pid": pid, "daemon": "off",
				"worker_processes": "2", "error_log": filepath.Join(prefix, "error.log")},
		},
	}
}

// ready polls until every worker has reported.
func (s *synced) ready(t *testing.T) {
	t.Helper()
	nginxtest.Poll(t, "workers report", func() error {
		state, err := s.driver.State(t.Context())
		for _, w := range state.Workers {
			if w.PID == 0 {
				err = fmt.Errorf("slot %d is empty", w.Slot)
			}
		}
		if pids := s.Workers(); err == nil && len(pids) != len(state.Workers) {
			err = fmt.Errorf("%d slots, processes %d", len(state.Workers), pids)
		}
		return err
	})
}

// answers checks the version that an address answers with.
func (s *synced) answers(t *testing.T, to netip.Addr, version string) {
	t.Helper()
	status, header, body, err := nginxtest.Get(t.Context(), netip.AddrPortFrom(to, uint16(s.port)),
		"x", "/")
	require.NoError(t, err)
	require.Equal(t, version, header.Get("X-Sluice-Version"), "status %d %s", status, body)
}

var (
	plain  = netip.MustParseAddr("127.0.0.1")
	tested = netip.MustParseAddr("127.58.0.2")
)

func one(id, version string, addr netip.AddrPort) []nginxsync.Instance {
	return []nginxsync.Instance{{ID: id, Addr: addr, Version: version}}
}

func (s *synced) status(t *testing.T, path string) int {
	t.Helper()
	status, _, _, err := nginxtest.Get(t.Context(), netip.AddrPortFrom(plain, uint16(s.port)), "x",
		path)
	require.NoError(t, err)
	return status
}

func TestSyncFollowsTheProductionTree(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	require.Equal(t, 204, s.status(t, "/"))
	require.NoError(t, s.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{tested: {"a": one("a2", "v2",
			nginxtest.Backend(t, "v2"))}},
	}).All()))
	for i := range 5 {
		require.NoError(t, s.mirror.Sync(t.Context(),
			bundleOf(t, site(fmt.Sprintf("location /%d { return 404; }\nlocation / { proxy_pass "+
				"http://a; }", i)))))
		require.Equal(t, 404, s.status(t, fmt.Sprintf("/%d", i)))
		s.answers(t, tested, "v2") // the routes outlive the reload
	}
	status := s.mirror.Status()
	require.Equal(t, status.Bundle, status.TreeOf)
	require.Empty(t, status.LastError)
	entries, err := filepath.Glob(filepath.Join(s.dir, "????????????????????????????????"))
	require.NoError(t, err)
	require.Len(t, entries, 4, "the current tree and three before it")

	// Files that are no configuration come along, private keys stay at home.
	require.FileExists(t, filepath.Join(s.dir, "current", "htpasswd"))
	require.NoFileExists(t, filepath.Join(s.dir, "current", "conf.d", "site.conf~"))
	require.NoFileExists(t, filepath.Join(s.dir, "current", "secret.key"))
}

// A production tree with an error of any kind leaves Nginx on the tree that it runs on, and the
// status has the reason.
func TestSyncKeepsTheOldTree(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	before := s.Workers()
	for _, c := range []struct {
		name, body, want string
		reloaded         bool
	}{
		{"half a file", "location / {",
			`conf.d/site.conf:6:1: unexpected end of file, expecting "}"`, false},
		{"not covered by the rules", "location / { proxy_pass http://10.0.0.1; }",
			"conf.d/site.conf:4:18: proxy_pass http://10.0.0.1", false},
		{"nginx -t refuses it", "location / { no_such_directive; }",
			`unknown directive "no_such_directive" in`, false},
		{"nginx -t accepts it and the reload fails", "listen 81; location / { return 201; }",
			"bind() to 0.0.0.0:", true},
	} {
		b := bundleOf(t, site(c.body))
		err := s.mirror.Sync(t.Context(), b)
		require.ErrorContains(t, err, c.want, c.name)
		require.Equal(t, 204, s.status(t, "/"), c.name)
		status := s.mirror.Status()
		require.Equal(t, b.Digest, status.Bundle, c.name)
		require.ErrorContains(t, errors.New(status.LastError), c.want, c.name)
		if !c.reloaded {
			require.Equal(t, before, s.Workers(), c.name)
		} else {
			require.ErrorContains(t, err, "back on ", c.name)
			require.Equal(t, 1, status.Rollbacks)
		}
	}
	require.NoError(t, s.mirror.Sync(t.Context(), bundleOf(t, site("location / { return 202; }"))))
	require.Equal(t, 202, s.status(t, "/"))
}

// At whichever step a sync's process crashed, the next sync ends on the right tree and removes the
// remains.
func TestSyncAfterACrash(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	next := bundleOf(t, site("location / { return 202; }"))

	// Died while staging.
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "staging", "conf.d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "staging", "nginx.conf"), []byte("half"),
		0o600))
	// Died after the switch, before the reload.
	id, err := s.mirror.Stage(t.Context(), next)
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(s.dir, "staging"))
	require.NoError(t, s.mirror.Switch(id))
	require.Equal(t, 204, s.status(t, "/"))
	require.NoError(t, s.mirror.Sync(t.Context(), next))
	require.Equal(t, 202, s.status(t, "/"))
	// Died after the switch to a tree that Nginx will not have: the good link knows the way back.
	bad := bundleOf(t, site("listen 81; location / { return 201; }"))
	id, err = s.mirror.Stage(t.Context(), bad)
	require.NoError(t, err)
	require.NoError(t, s.mirror.Switch(id))
	require.ErrorContains(t, s.mirror.Sync(t.Context(), bad), "back on ")
	require.Equal(t, 202, s.status(t, "/"))
	target, err := os.Readlink(filepath.Join(s.dir, "current"))
	require.NoError(t, err)
	require.NotEqual(t, id, target)
}

func TestSyncRunWatchesADirectory(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	write := func(files map[string]string) {
		for name, text := range files {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(directory, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600))
		}
	}
	write(site("location / { return 204; }"))
	s := startSynced(t, &bundle.DirSource{FS: os.DirFS(directory), Every: 10 * time.Millisecond,
		Settle: 50 * time.Millisecond}, "location / { return 204; }")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.mirror.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	write(site("location / { return 202; }"))
	served := func(status int) {
		nginxtest.Poll(t, "the change is served", func() error {
			if got := s.status(t, "/"); got != status {
				return fmt.Errorf("status %d, %s", got, s.mirror.Status().LastError)
			}
			return nil
		})
	}
	served(202)
	write(site("location / {"))
	nginxtest.Poll(t, "the error is shown", func() error {
		if got := s.mirror.Status().LastError; !strings.Contains(got, "conf.d/site.conf:6:1") {
			return errors.New(got)
		}
		return nil
	})
	require.Equal(t, 202, s.status(t, "/"))
	write(site("location / { return 205; }"))
	served(205)
}

// Half a bundle, by its checksums, is refused: the tree of before keeps serving until the rest has
// come.
func TestSyncRefusesHalfABundle(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	write := func(files map[string]string) {
		for name, text := range files {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(directory, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600))
		}
	}
	sums := func(files map[string]string) map[string]string {
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(files)) {
			fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256([]byte(files[name])), name)
		}
		return map[string]string{bundle.ChecksumFile: b.String()}
	}
	first, second := site("location / { return 204; }"), site("location / { return 202; }")
	second["conf.d/the-rest.conf"] = "server { listen 80; server_name more.example; return 205; }\n"
	write(first)
	write(sums(first))
	s := startSynced(t, &bundle.VerifiedSource{Checksums: true,
		Source: &bundle.DirSource{FS: os.DirFS(directory), Every: 10 * time.Millisecond,
			Settle: 20 * time.Millisecond}}, "location / { return 204; }")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.mirror.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	says := func(want string) {
		nginxtest.Poll(t, want, func() error {
			if got := s.mirror.Status().LastError; !strings.Contains(got, want) {
				return errors.New(got)
			}
			return nil
		})
		require.Equal(t, 204, s.status(t, "/"))
	}
	write(sums(second))
	says(`"conf.d/site.conf" has another checksum`)
	write(map[string]string{"conf.d/site.conf": second["conf.d/site.conf"]})
	says(`"conf.d/the-rest.conf" is missing`)
	write(second)
	nginxtest.Poll(t, "the whole bundle is served", func() error {
		if got := s.status(t, "/"); got != 202 {
			return fmt.Errorf("status %d, %s", got, s.mirror.Status().LastError)
		}
		return nil
	})
}
