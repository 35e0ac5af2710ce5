package nginxsync_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/nginxsync"
)

func drawClusters(t *rapid.T) map[string][]nginxsync.Instance {
	addr := rapid.SampledFrom([]string{"127.0.0.1:80", "10.0.0.1:8080", "[::1]:81",
		"[::ffff:10.0.0.2]:82"})
	clusters := map[string][]nginxsync.Instance{}
	for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "end", "x.y",
		"i"}), rapid.ID).Draw(t, "clusters") {
		for i := range rapid.IntRange(0, 3).Draw(t, "n") {
			clusters[name] = append(clusters[name], nginxsync.Instance{ID: fmt.Sprint("i", i),
				Addr:    netip.MustParseAddrPort(addr.Draw(t, "addr")),
				Weight:  rapid.IntRange(0, 5).Draw(t, "weight"),
				Version: rapid.SampledFrom([]string{"", "v1", "2026-01-01"}).Draw(t, "version"),
				Backup:  rapid.Bool().Draw(t, "backup")})
		}
		if clusters[name] == nil {
			clusters[name] = []nginxsync.Instance{}
		}
	}
	return clusters
}

func drawSnapshot(t *rapid.T) nginxsync.Snapshot {
	s := nginxsync.Snapshot{Baseline: drawClusters(t),
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	for _, vip := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"127.58.0.1", "127.58.0.2",
		"fd00::1"}), rapid.ID).Draw(t, "vips") {
		s.Overlays[netip.MustParseAddr(vip)] = drawClusters(t)
	}
	return s
}

// Marshalled routes are read back, and the diff of two snapshots is empty exactly when they are
// equal.
func TestRoutesText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSnapshot(t), drawSnapshot(t)
		if err := a.Validate(); err != nil {
			t.Fatal(err)
		}
		r := nginxsync.NewRoutes(rapid.Uint64().Draw(t, "number"), a)
		text, err := r.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back nginxsync.Routes
		if err := back.UnmarshalText(text); err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		if back.Generation != r.Generation || !back.Snapshot.Equal(a) {
			t.Fatalf("%+v is read back as %+v", r, back)
		}
		if len(nginxsync.Diff(a, b)) == 0 != a.Equal(b) || len(nginxsync.Diff(a, a)) != 0 {
			t.Fatalf("diff %v", nginxsync.Diff(a, b))
		}
		same := nginxsync.NewRoutes(1, a).Generation == nginxsync.NewRoutes(1, b).Generation
		if same != a.Equal(b) {
			t.Fatalf("equal %v, same digest %v", a.Equal(b), same)
		}
	})
}

// FuzzRoutes requires that UnmarshalText never panics and that accepted routes are the same after
// MarshalText and UnmarshalText.
func FuzzRoutes(f *testing.F) {
	text, err := nginxsync.NewRoutes(7, nginxsync.Snapshot{
		Baseline: map[string][]nginxsync.Instance{"a": {{ID: "a1",
			Addr: netip.MustParseAddrPort("127.0.0.1:80"), Version: "v1"}}},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{netip.MustParseAddr(
			"127.58.0.2"): {"a": {}}},
	}).MarshalText()
	require.NoError(f, err)
	f.Add(string(text))
	f.Add("sluice-routes 1 \nend 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		var r nginxsync.Routes
		if err := r.UnmarshalText([]byte(text)); err != nil {
			require.ErrorIs(t, err, nginxsync.ErrInvalid)
			return
		}
		again, err := r.MarshalText()
		require.NoError(t, err)
		var back nginxsync.Routes
		require.NoError(t, back.UnmarshalText(again))
		require.Equal(t, r, back)
	})
}
