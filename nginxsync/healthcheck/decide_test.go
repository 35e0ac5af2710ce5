package healthcheck

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluice-deploy/sluice/nginxsync"
)

func TestRecord(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	for name, tc := range map[string]struct {
		results string // "+" is good
		want    string // the state after each: "u" or "d"
	}{
		"goes after three failures in a row":     {"+-----", "uuuddd"},
		"a good probe ends the row":              {"+--+--+", "uuuuuuu"},
		"returns after two good ones in a row":   {"+---++", "uuuddu"},
		"a failure ends the row":                 {"+---+-+-++", "uuudddddd" + "u"},
		"goes at once when it fails at first":    {"-", "d"},
		"is in while its first probe is pending": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check := Check{Fall: 3, Rise: 2}
			h := &health{run: check.Fall - 1}
			got := ""
			for i, r := range tc.results {
				var err error
				if r == '-' {
					err = bad
				}
				before := h.down
				require.Equal(t, h.record(err, check, time.Unix(int64(i), 0)), before != h.down)
				got += map[bool]string{true: "d", false: "u"}[h.down]
				if before != h.down {
					require.Equal(t, int64(i), h.since.Unix())
				}
			}
			require.Equal(t, tc.want, got)
		})
	}
}

// Instances that work stay, and so does the quorum of a list; the last to fail stay first.
func TestSift(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		percent := rapid.IntRange(1, 100).Draw(t, "percent")
		var list []nginxsync.Instance
		since := map[string]int{}
		for i := range n {
			id := fmt.Sprintf("i%02d", i)
			list = append(list, nginxsync.Instance{ID: id})
			if rapid.Bool().Draw(t, "down") {
				since[id] = rapid.IntRange(1, 5).Draw(t, "since")
			}
		}
		got := sift(list, func(in nginxsync.Instance) (time.Time, bool) {
			at, ok := since[in.ID]
			return time.Unix(int64(at), 0), ok
		}, float64(percent)/100)
		least := (n*percent + 99) / 100 // rounded up
		stays := map[string]bool{}
		for i, in := range got {
			require.True(t, i == 0 || got[i-1].ID < in.ID, "the order of the list")
			stays[in.ID] = true
		}
		require.Len(t, got, max(n-len(since), least))
		for _, in := range list {
			at, down := since[in.ID]
			require.True(t, down || stays[in.ID], "%s works", in.ID)
			if stays[in.ID] {
				continue
			}
			for other := range stays {
				if later, failed := since[other]; failed {
					require.GreaterOrEqual(t, later, at, "%s failed before %s", other, in.ID)
				}
			}
		}
	})
}

// The snapshot of the source is not changed, and lists of other scopes are.
func TestReplace(t *testing.T) {
	t.Parallel()
	vip := netip.MustParseAddr("10.58.0.2")
	list := func(ids ...string) (out []nginxsync.Instance) {
		for _, id := range ids {
			out = append(out, nginxsync.Instance{ID: id})
		}
		return out
	}
	whole := func() nginxsync.Snapshot {
		clusters := func() map[string][]nginxsync.Instance {
			return map[string][]nginxsync.Instance{"a": list("1", "2"), "b": list("1", "2")}
		}
		return nginxsync.Snapshot{Baseline: clusters(),
			Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vip: clusters()},
			Branches: map[string]map[string][]nginxsync.Instance{"next": clusters()}}
	}
	s := whole()
	with := map[place][]nginxsync.Instance{}
	places(s, func(at place, _ []nginxsync.Instance) { with[at] = list("1") })
	require.Len(t, with, 6)
	got := replace(s, with)
	require.Equal(t, whole(), s)
	places(got, func(_ place, l []nginxsync.Instance) { require.Equal(t, list("1"), l) })
}
