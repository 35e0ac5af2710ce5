//go:build linux

package mirror_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
)

// A disk that is full leaves Nginx on the old tree, and the next sync finds room again. The test
// mounts a small disk.
func TestSyncOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	small := filepath.Join(s.Prefix, "small")
	require.NoError(t, os.Mkdir(small, 0o755))
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=512k"); errors.Is(err,
		syscall.EPERM) {
		t.Skip("only root may mount a disk")
	} else {
		require.NoError(t, err)
	}
	t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	s.move(t, small)
	require.NoError(t, s.mirror.Sync(t.Context(), bundleOf(t, site("location / { return 202; }"))))
	large := site("location / { return 201; }")
	large["page.html"] = strings.Repeat("x", 600<<10)
	err := s.mirror.Sync(t.Context(), bundleOf(t, large))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "stage: ")
	require.Equal(t, 202, s.status(t, "/"))
	require.Contains(t, s.mirror.Status().LastError, "no space left on device")
	require.NoError(t, s.mirror.Sync(t.Context(), bundleOf(t, site("location / { return 205; }"))))
	require.Equal(t, 205, s.status(t, "/"))
}

// move makes the directory the one of the trees, and starts Nginx there.
func (s *synced) move(t *testing.T, dir string) {
	t.Helper()
	id, err := os.Readlink(filepath.Join(s.dir, "current"))
	require.NoError(t, err)
	require.NoError(t, os.CopyFS(filepath.Join(dir, id), os.DirFS(filepath.Join(s.dir, id))))
	s.Kill()
	os.Remove(s.cfg.Socket)
	os.Remove(s.cfg.Socket + ".503")
	s.settings.Dir, s.dir = dir, dir
	s.mirror, err = mirror.New(s.settings)
	require.NoError(t, err)
	require.NoError(t, s.mirror.Switch(id))
	s.Conf = filepath.Join(dir, "current", "nginx.conf")
	s.Start()
	s.ready(t)
}

// steps kills this process when the sync comes to a step.
type steps struct {
	mirror.Nginx
	nginxsync.Driver
	at string
}

func (s *steps) step(name string) {
	if s.at == name {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (s *steps) Test(ctx context.Context, main string) error {
	s.step("written")
	err := s.Nginx.Test(ctx, main)
	s.step("tested")
	return err
}

func (s *steps) Workers() ([]int, int, error) {
	s.step("switched")
	return s.Nginx.Workers()
}

func (s *steps) Reload(ctx context.Context) error {
	s.step("reload")
	err := s.Nginx.Reload(ctx)
	s.step("reloaded")
	return err
}

func (s *steps) State(ctx context.Context) (nginxsync.DriverState, error) {
	state, err := s.Driver.State(ctx)
	s.step("asked")
	return state, err
}

func (s *steps) Errors() string {
	s.step("verified")
	return s.Nginx.Errors()
}

type helperInput struct {
	Step, Dir, Prefix, PID, Socket string
	Port, Taken                    int
	Files                          map[string]string
}

// TestHelperSync is the process that TestSyncKilledAtEachStep kills.
func TestHelperSync(t *testing.T) {
	text := os.Getenv("SLUICE_TEST_SYNC")
	if text == "" {
		return // a test of its own is TestSyncKilledAtEachStep
	}
	var in helperInput
	require.NoError(t, json.Unmarshal([]byte(text), &in))
	driver, err := luadriver.New(luadriver.Config{Socket: in.Socket})
	require.NoError(t, err)
	settings := syncSettings(in.Dir, in.Prefix, in.PID, in.Socket, in.Port, in.Taken)
	wrapped := &steps{Nginx: settings.Nginx, Driver: driver, at: in.Step}
	settings.Source, settings.Nginx, settings.Driver = &bundle.DirSource{}, wrapped, wrapped
	m, err := mirror.New(settings)
	require.NoError(t, err)
	require.NoError(t, m.Sync(t.Context(), bundleOf(t, in.Files)))
}

// Whenever the process of a sync is killed, Nginx answers with the old tree or the new one, the
// next process gets to where it has to be, and a restart of Nginx in between finds a tree that it
// has.
func TestSyncKilledAtEachStep(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 200 ok-0; }")
	for i, step := range []string{"writing", "written", "tested", "asked", "switched", "reload",
		"reloaded", "verified"} {
		files := site(fmt.Sprintf("location / { return 200 ok-%d; }", i+1))
		if step == "writing" {
			for n := range 3000 {
				files[fmt.Sprint("many/", n)] = "x"
			}
		}
		in, err := json.Marshal(helperInput{step, s.dir, s.Prefix,
			filepath.Join(s.Prefix, "nginx.pid"), s.cfg.Socket, s.port, s.taken, files})
		require.NoError(t, err)
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelperSync$")
		cmd.Env = append(os.Environ(), "SLUICE_TEST_SYNC="+string(in))
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(t, cmd.Start())
		if step == "writing" {
			nginxtest.Poll(t, "files are staged", func() error {
				some, err := os.ReadDir(filepath.Join(s.dir, "staging", "many"))
				if err == nil && len(some) < 10 {
					err = errors.New("too few")
				}
				return err
			})
			require.NoError(t, cmd.Process.Kill())
		}
		require.ErrorContains(t, cmd.Wait(), "signal: killed", "%s: %s", step, out.String())
		require.Contains(t, []string{fmt.Sprint("ok-", i), fmt.Sprint("ok-", i+1)}, s.body(t), step)
		if i%2 == 0 { // Nginx too is killed and started again
			s.Kill()
			os.Remove(s.cfg.Socket)
			os.Remove(s.cfg.Socket + ".503")
			s.Start()
			s.ready(t)
			require.Contains(t, []string{fmt.Sprint("ok-", i), fmt.Sprint("ok-", i+1)}, s.body(t),
				step)
		}
		m, err := mirror.New(s.settings)
		require.NoError(t, err)
		require.NoError(t, m.Sync(t.Context(), bundleOf(t, files)), step)
		require.Equal(t, fmt.Sprint("ok-", i+1), s.body(t), step)
		require.NoDirExists(t, filepath.Join(s.dir, "staging"))
		require.Empty(t, m.CheckDrift(t.Context()))
	}
}

func (s *synced) body(t *testing.T) string {
	t.Helper()
	_, _, body, err := nginxtest.Get(t.Context(), netip.AddrPortFrom(plain, uint16(s.port)), "x",
		"/")
	require.NoError(t, err)
	return body
}

// A change on the disk that the mirror did not make is found, and the next sync writes the tree
// again.
func TestDrift(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	b := bundleOf(t, site("location / { return 202; }"))
	require.Empty(t, s.mirror.CheckDrift(t.Context()), "nothing to compare with yet")
	require.NoError(t, s.mirror.Sync(t.Context(), b))
	require.Empty(t, s.mirror.CheckDrift(t.Context()))

	live := filepath.Join(s.dir, "current")
	require.NoError(t, os.WriteFile(filepath.Join(live, "conf.d", "site.conf"),
		[]byte("# by hand\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(live, "conf.d", "extra.conf"), nil, 0o600))
	require.NoError(t, os.Remove(filepath.Join(live, "htpasswd")))
	want := []string{"file conf.d/extra.conf is not of the tree", "file conf.d/site.conf was " +
		"changed", "file htpasswd is missing"}
	require.Equal(t, want, s.mirror.CheckDrift(t.Context()))
	require.Equal(t, want, s.mirror.Status().Drift)
	require.NoError(t, s.mirror.Sync(t.Context(), b))
	require.Empty(t, s.mirror.CheckDrift(t.Context()))
	require.Empty(t, s.mirror.Status().Drift)
	require.Equal(t, 202, s.status(t, "/"))

	require.NoError(t, s.mirror.Switch("elsewhere"))
	require.Contains(t, s.mirror.CheckDrift(t.Context())[0], `link current leads to "elsewhere"`)
	require.NoError(t, s.mirror.Sync(t.Context(), b))
	require.Empty(t, s.mirror.CheckDrift(t.Context()))
}

// The status shows since when production has a tree that Nginx does not run on.
func TestLag(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	settings := s.settings
	settings.Now = func() time.Time {
		now = now.Add(time.Millisecond) // MinInterval and Watch go by this clock
		return now
	}
	m, err := mirror.New(settings)
	require.NoError(t, err)
	require.NoError(t, m.Sync(t.Context(), bundleOf(t, site("location / { return 202; }"))))
	require.Zero(t, m.Status().Lag(now))
	good := now
	require.Error(t, m.Sync(t.Context(), bundleOf(t, site("location / {"))))
	broken := m.Status().Behind
	require.True(t, broken.After(good) && !broken.After(now), broken)
	now = now.Add(time.Hour)
	require.Error(t, m.Sync(t.Context(), bundleOf(t, site("another {"))))
	require.Equal(t, broken, m.Status().Behind)
	require.Equal(t, now.Sub(broken), m.Status().Lag(now))
	require.NoError(t, m.Sync(t.Context(), bundleOf(t, site("location / { return 205; }"))))
	require.Zero(t, m.Status().Lag(now))
}

// A reload waits while workers of the generations before still finish requests, and two reloads
// keep their distance.
func TestReloadsWait(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { proxy_pass http://a; }")
	held := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(held)
		<-r.Context().Done()
	}))
	t.Cleanup(backend.Close)
	require.NoError(t, s.driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": one("a1", "v1",
			netip.MustParseAddrPort(backend.Listener.Addr().String()))},
	}).All()))
	settings := s.settings
	settings.MaxRetired, settings.MinInterval = 1, 300*time.Millisecond
	counted := &reloads{Nginx: settings.Nginx}
	settings.Nginx = counted
	m, err := mirror.New(settings)
	require.NoError(t, err)
	next := func(i int) *bundle.Bundle {
		return bundleOf(t, site(fmt.Sprintf("location /%d { return 204; }\nlocation / { "+
			"proxy_pass http://a; }", i)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		nginxtest.Get(ctx, netip.AddrPortFrom(plain, uint16(s.port)), "x", "/")
	})
	<-held
	require.NoError(t, m.Sync(t.Context(), next(1)))
	done := make(chan error)
	go func() { done <- m.Sync(t.Context(), next(2)) }()
	nginxtest.Poll(t, "the reload waits", func() error {
		if got := m.Status().Waiting; got != "1 retired workers finish old requests" {
			return fmt.Errorf("waiting %q", got)
		}
		return nil
	})
	_, retired, err := settings.Nginx.Workers()
	require.NoError(t, err)
	require.Equal(t, 1, retired)
	select {
	case err := <-done:
		t.Fatalf("sync did not wait: %v", err)
	default:
	}
	cancel()
	require.NoError(t, <-done)
	require.Empty(t, m.Status().Waiting)
	require.Equal(t, 204, s.status(t, "/2"))
	for i := range counted.at[1:] {
		require.GreaterOrEqual(t, counted.at[i+1].Sub(counted.at[i]), settings.MinInterval)
	}
}

type reloads struct {
	mirror.Nginx
	at []time.Time
}

func (r *reloads) Reload(ctx context.Context) error {
	r.at = append(r.at, time.Now())
	return r.Nginx.Reload(ctx)
}

// A tree that makes workers crash after they took over is taken back.
func TestErrorLogIsWatched(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	settings := s.settings
	settings.Watch = 20 * time.Second
	crashing := &crash{Nginx: settings.Nginx}
	settings.Nginx, settings.Driver = crashing, seen{settings.Driver, crashing}
	m, err := mirror.New(settings)
	require.NoError(t, err)
	b := bundleOf(t, site("location / { return 202; }"))
	err = m.Sync(t.Context(), b)
	require.ErrorContains(t, err, "after the reload: nginx: ")
	require.ErrorContains(t, err, "exited on signal 11")
	require.ErrorContains(t, err, "back on ")
	require.Equal(t, 204, s.status(t, "/"))
	require.Equal(t, 1, m.Status().Rollbacks)
	require.NotEmpty(t, m.Status().LastError)
}

// crash makes a worker crash when the mirror looks at the error log after it has verified the first
// reload.
type crash struct {
	mirror.Nginx
	reloads, crashes int
	before, active   []int
	state            nginxsync.DriverState
}

// seen is a driver that passes its answers on to crash.
type seen struct {
	nginxsync.Driver
	by *crash
}

func (s seen) State(ctx context.Context) (nginxsync.DriverState, error) {
	state, err := s.Driver.State(ctx)
	s.by.state = state
	return state, err
}

func (c *crash) Workers() (active []int, retired int, err error) {
	active, retired, err = c.Nginx.Workers()
	c.active = active
	return active, retired, err
}

func (c *crash) Reload(ctx context.Context) error {
	c.reloads++
	c.before, c.active = c.active, nil
	return c.Nginx.Reload(ctx)
}

// verified reports whether the workers that the mirror has seen are new ones, all on one tree.
func (c *crash) verified() bool {
	for _, pid := range c.active {
		if slices.Contains(c.before, pid) || !slices.ContainsFunc(c.state.Workers,
			func(w nginxsync.Worker) bool { return w.PID == pid }) {
			return false
		}
	}
	return len(c.active) > 0 && c.state.Runs(c.state.Workers[0].Tree)
}

func (c *crash) Errors() string {
	if c.reloads == 1 && c.crashes == 0 && c.verified() {
		c.crashes++
		syscall.Kill(c.active[0], syscall.SIGSEGV)
	}
	return c.Nginx.Errors()
}

// A tree on which one worker hangs before it takes requests is not verified, although the other
// runs on it, and is taken back.
func TestEveryWorkerCounts(t *testing.T) {
	t.Parallel()
	s := startSynced(t, &bundle.DirSource{}, "location / { return 204; }")
	hold := filepath.Join(s.Prefix, "hold")
	require.NoError(t, syscall.Mkfifo(hold, 0o666))
	settings := s.settings
	settings.Rules.TrustCode, settings.VerifyTimeout = true, 10*time.Second
	m, err := mirror.New(settings)
	require.NoError(t, err)
	files := site("location / { return 202; }")
	files["conf.d/hang.conf"] = fmt.Sprintf("init_worker_by_lua_block { if ngx.worker.id() == 1 "+
		"then io.open(%q) end }\n", hold)
	b := bundleOf(t, files)
	err = m.Sync(t.Context(), b)
	require.ErrorContains(t, err, "verify: workers ")
	require.ErrorContains(t, err, "back on ")
	require.Equal(t, 204, s.status(t, "/"))
	tree := m.Status().Tree

	// The worker that hung goes on when the other end is opened, and ends: it does not report for
	// the present workers.
	f, err := os.OpenFile(hold, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	nginxtest.Poll(t, "two workers of the tree", func() error {
		state, err := s.driver.State(t.Context())
		if err == nil && (len(s.Workers()) != 2 || len(state.Workers) != 2 ||
			state.Workers[0].Tree != state.Workers[1].Tree) {
			err = fmt.Errorf("%v, %+v", s.Workers(), state)
		}
		return err
	})
	require.Empty(t, tree, "nothing was verified")
	require.NoError(t, m.Sync(t.Context(), bundleOf(t, site("location / { return 205; }"))))
	require.Equal(t, 205, s.status(t, "/"))
}
