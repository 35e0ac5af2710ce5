//go:build linux

package luadriver_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
)

// steps are those of a push, and whether the routes are in force after them.
var steps = map[string]bool{"pending": false, "rows": false, "written": false, "record": false,
	"switched": true}

// A worker that ends at any step of a push leaves the routes from before or those of the push,
// whole; the next push goes through at once, and no memory is lost over many of them.
func TestPushThatEndsEarly(t *testing.T) {
	t.Parallel()
	for step, inForce := range steps {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s full=%v", step, full), func(t *testing.T) {
				t.Parallel()
				b := start(t, 1<<20)
				old, fresh := nginxtest.Backend(t, "old"), nginxtest.Backend(t, "new")
				routes := func(number uint64, version string, addr netip.AddrPort) nginxsync.Routes {
					s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{
						"a": one("a"+version, version, addr), "b": one("b"+version, version, addr)}}
					for i := range 300 {
						name := fmt.Sprintf("c%d", i)
						s.Baseline[name] = one(name, version, addr)
					}
					return nginxsync.NewRoutes(number, s)
				}
				last := routes(1, "v1", old)
				require.NoError(t, b.driver.Apply(t.Context(), last.All()))
				var free int64
				for round := range uint64(6) {
					version, addr := fmt.Sprintf("v%d", round+2), fresh
					next := routes(2*round+2, version, addr)
					delta := nginxsync.NewDelta(last, next)
					if full {
						delta = next.All()
					}
					require.NoError(t, os.WriteFile(b.crash, []byte(step), 0o644))
					require.Error(t, b.driver.Apply(t.Context(), delta))
					require.NoError(t, os.Remove(b.crash))
					b.ready(t)
					want := last
					if inForce {
						want = next
					}
					for range 4 {
						for _, path := range []string{"/", "/b/"} {
							b.answers(t, plain, path, want.Snapshot.Baseline["a"][0].Version)
						}
					}
					got, err := b.driver.Routes(t.Context())
					require.NoError(t, err)
					require.Equal(t, want, got)
					last = routes(2*round+3, version+"x", addr)
					require.NoError(t, b.driver.Apply(t.Context(), nginxsync.NewDelta(want, last)))
					b.answers(t, plain, "/", version+"x")
					state, err := b.driver.State(t.Context())
					require.NoError(t, err)
					if round == 1 {
						free = state.Free
					}
					if round > 1 {
						require.GreaterOrEqual(t, state.Free, free-16<<10)
					}
				}
			})
		}
	}
}

// Nginx alone reads the state file of the version before.
func TestStateFileOfVersion0(t *testing.T) {
	t.Parallel()
	b := start(t, 1<<20)
	text, err := os.ReadFile("../../testdata/formats/0/routes.state")
	require.NoError(t, err)
	var want nginxsync.Routes
	require.NoError(t, want.UnmarshalText(text))
	b.restart(t, func() { require.NoError(t, os.WriteFile(b.state, text, 0o644)) })
	got, err := b.driver.Routes(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, got)
}
