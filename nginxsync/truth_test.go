package nginxsync_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// mute is a source that says nothing.
type mute struct{}

func (mute) Watch(ctx context.Context, _ uint64) (nginxsync.Snapshot, uint64, error) {
	<-ctx.Done()
	return nginxsync.Snapshot{}, 0, context.Cause(ctx)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func version(n int) nginxsync.Snapshot {
	list := serves("i1")
	list[0].Version = fmt.Sprintf("v%d", n)
	return nginxsync.Snapshot{Baseline: clusters{"a": serves("i1")}, Overlays: overlays{vip: {
		"a": list}}}
}

func write(t *testing.T, file string, r nginxsync.Routes) []byte {
	t.Helper()
	text, err := r.MarshalText()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return text
}

// The routes of Nginx outrank an older state file, and a newer file outranks Nginx; an agent that
// begins without a word of its source pushes nothing older or emptier than the routes in force.
func TestAgentBeginsWithTheNewest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		file, copy, nginx uint64 // 0 for none
		want              uint64
	}{
		{"Nginx is newer", 1, 0, 2, 2},
		{"the file is newer", 3, 0, 2, 3},
		{"no file", 0, 0, 2, 2},
		{"no Nginx", 2, 1, 0, 2},
		{"only the copy", 0, 4, 3, 4},
		{"the same", 2, 1, 2, 2},
		{"nothing", 0, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "routes")
			driver := &memoryDriver{}
			if c.file > 0 {
				write(t, file, nginxsync.NewRoutes(c.file, version(int(c.file))))
			}
			if c.copy > 0 {
				write(t, file+".1", nginxsync.NewRoutes(c.copy, version(int(c.copy))))
			}
			if c.nginx > 0 {
				driver.routes = nginxsync.NewRoutes(c.nginx, version(int(c.nginx)))
			}
			agent := running(t, nginxsync.Config{Source: mute{}, Driver: driver,
				StateFile: file})
			var want nginxsync.Routes
			if c.want > 0 {
				want = nginxsync.NewRoutes(c.want, version(int(c.want)))
			}
			eventually(t, "it is verified and saved", func() bool {
				s := agent.Status()
				return s.Verified == want.Generation && s.Saved == want.Generation
			})
			require.Equal(t, want, driver.now())
		})
	}
}

// A source that is empty when the agent begins takes nothing away.
func TestEmptySourceTakesNothingAway(t *testing.T) {
	t.Parallel()
	routes := nginxsync.NewRoutes(7, version(1))
	driver := &memoryDriver{routes: routes}
	source := nginxsync.NewStaticSource(nginxsync.Snapshot{})
	agent := running(t, nginxsync.Config{Source: source, Driver: driver})
	err := agent.WaitVerified(t.Context(), 1)
	require.ErrorIs(t, err, nginxsync.ErrHeld)
	var held *nginxsync.HeldError
	require.ErrorAs(t, err, &held)
	require.Len(t, held.Held, 2)
	require.Equal(t, routes, driver.now())
	require.Zero(t, agent.Status().Pushes)
	// A later revision is not blamed for it, and takes effect.
	next := nginxsync.Snapshot{Baseline: clusters{"b": serves("i1")}}
	require.NoError(t, agent.WaitVerified(t.Context(), source.Set(next)))
	require.Len(t, driver.now().Snapshot.Baseline, 2)
	require.Len(t, driver.now().Snapshot.Overlays, 1)
	require.Equal(t, 0, driver.full, "a delta is enough for what Nginx had")
}

// A damaged file costs nothing: it is set aside, and the routes of Nginx or of the copy stay.
func TestDamagedStateFile(t *testing.T) {
	t.Parallel()
	good, err := nginxsync.NewRoutes(2, version(2)).MarshalText()
	require.NoError(t, err)
	for name, damage := range map[string]func([]byte) []byte{
		"cut":           func(b []byte) []byte { return b[:len(b)/2] },
		"empty":         func([]byte) []byte { return nil },
		"port":          func(b []byte) []byte { return bytes.Replace(b, []byte(" 80 "), []byte(" 81 "), 1) },
		"VIP":           func(b []byte) []byte { return bytes.Replace(b, []byte("10.0.0.9"), []byte("10.0.0.8"), 1) },
		"other version": func(b []byte) []byte { return bytes.Replace(b, []byte("s 2 "), []byte("s 9 "), 1) },
		"number":        func(b []byte) []byte { return bytes.Replace(b, []byte("s 2 0"), []byte("s 2 1"), 1) },
		"NUL bytes":     func(b []byte) []byte { return make([]byte, len(b)) },
		"last line":     func(b []byte) []byte { return b[:len(b)-1] },
		"row missing": func(b []byte) []byte {
			i := bytes.Index(b, []byte("r 10"))
			j := bytes.IndexByte(b[i+1:], '\n') + i + 2
			j += bytes.IndexByte(b[j:], '\n') + 1
			return append(append([]byte{}, b[:i]...), b[j:]...)
		},
	} {
		for _, nginx := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, Nginx has routes: %v", name, nginx), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				file := filepath.Join(dir, "routes")
				write(t, file+".1", nginxsync.NewRoutes(1, version(1)))
				bad := damage(bytes.Clone(good))
				require.NoError(t, os.WriteFile(file, bad, 0o600))
				driver := &memoryDriver{}
				want := nginxsync.NewRoutes(1, version(1))
				if nginx {
					want = nginxsync.NewRoutes(2, version(2))
					driver.routes = want
				}
				agent := running(t, nginxsync.Config{Source: mute{}, Driver: driver,
					StateFile: file})
				eventually(t, "it is verified and saved", func() bool {
					s := agent.Status()
					return s.Verified == want.Generation && s.Saved == want.Generation
				})
				require.Equal(t, want, driver.now())
				aside, err := filepath.Glob(file + ".damaged-*")
				require.NoError(t, err)
				require.Len(t, aside, 1)
				kept, err := os.ReadFile(aside[0])
				require.NoError(t, err)
				require.Equal(t, string(bad), string(kept))
				var back nginxsync.Routes
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				require.NoError(t, back.UnmarshalText(text))
				require.Equal(t, want, back)
			})
		}
	}
}

// A full disk does not keep the routes from being served; the status shows it.
func TestServedIsNotSaved(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "later")
	require.NoError(t, os.Mkdir(dir, 0o700))
	file := filepath.Join(dir, "routes")
	source := nginxsync.NewStaticSource(version(1))
	agent := running(t, nginxsync.Config{Source: source, Driver: &memoryDriver{},
		StateFile: file, CheckEvery: time.Millisecond})
	require.NoError(t, agent.WaitSaved(t.Context(), 1))
	require.NoError(t, os.Rename(dir, dir+"-away"))
	revision := source.Set(version(2))
	require.NoError(t, agent.WaitVerified(t.Context(), revision))
	eventually(t, "the error is shown", func() bool { return agent.Status().SaveError != "" })
	status := agent.Status()
	require.Less(t, status.SavedRevision, revision)
	require.Empty(t, status.LastError)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	err := agent.WaitSaved(ctx, revision)
	require.ErrorIs(t, err, cause)
	require.ErrorContains(t, err, "it has 1")
	require.NoError(t, os.Rename(dir+"-away", dir))
	require.NoError(t, agent.WaitSaved(t.Context(), revision))
	require.Empty(t, agent.Status().SaveError)
}

// The agent that began last owns Nginx; the one before says so and pushes no more.
func TestOneAgentOwnsNginx(t *testing.T) {
	t.Parallel()
	driver := &memoryDriver{}
	first, second := nginxsync.NewStaticSource(version(1)), nginxsync.NewStaticSource(version(2))
	fast := nginxsync.Config{Source: first, Driver: driver, CheckEvery: time.Millisecond}
	a := running(t, fast)
	require.NoError(t, a.WaitVerified(t.Context(), 1))
	fast.Source = second
	b := running(t, fast)
	require.NoError(t, b.WaitVerified(t.Context(), 1))
	eventually(t, "the first says that it is fenced", func() bool {
		return a.Status().Fenced != ""
	})
	for i := range 20 {
		err := a.WaitVerified(t.Context(), first.Set(version(10+i)))
		require.ErrorIs(t, err, nginxsync.ErrFenced)
		require.NoError(t, b.WaitVerified(t.Context(), second.Set(version(100+i))))
	}
	require.Equal(t, "v119", driver.now().Snapshot.Overlays[vip]["a"][0].Version)
	require.EqualValues(t, 1, a.Status().Pushes)
	// Equal routes count as the routes that it has, too.
	require.NoError(t, a.WaitVerified(t.Context(), first.Set(version(119))))
	require.Empty(t, b.Status().Fenced)
}

// An agent whose state file another one owns waits, and goes on where that one ends.
func TestAgentsShareAStateFile(t *testing.T) {
	t.Parallel()
	driver, file := &memoryDriver{}, filepath.Join(t.TempDir(), "routes")
	cfg := nginxsync.Config{Source: nginxsync.NewStaticSource(version(1)), Driver: driver,
		StateFile: file}
	a, err := nginxsync.OpenAgent(t.Context(), cfg)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	require.NoError(t, a.WaitSaved(t.Context(), 1))
	cfg.Source = nginxsync.NewStaticSource(version(2))
	b := running(t, cfg)
	eventually(t, "the second says that it waits", func() bool { return b.Status().Fenced != "" })
	require.Equal(t, "v1", driver.now().Snapshot.Overlays[vip]["a"][0].Version)
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.NoError(t, b.WaitVerified(t.Context(), 1))
	require.Empty(t, b.Status().Fenced)
	require.Equal(t, "v2", driver.now().Snapshot.Overlays[vip]["a"][0].Version)
}

// Addresses have the form that Nginx gives $server_addr.
func TestAddressesAsNginxWritesThem(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"::1:2": "::0.1.0.2", "::1": "::1", "::ff": "::ff", "::1:0": "::0.1.0.0",
		"::203": "::0.0.2.3", "::201": "::201", "::1:2:3": "::1:2:3", "10.0.0.1": "10.0.0.1",
		"fd00::1": "fd00::1", "::7f00:1": "::127.0.0.1",
	} {
		text, err := nginxsync.NewRoutes(1, nginxsync.Snapshot{Overlays: overlays{
			netip.MustParseAddr(addr): {"a": serves("i1")}}}).MarshalText()
		require.NoError(t, err)
		require.Contains(t, string(text), "r "+want+" a ")
		require.NoError(t, new(nginxsync.Routes).UnmarshalText(text))
	}
}
