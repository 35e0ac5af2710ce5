package healthcheck

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// target is an instance with the check that asks it. Another version or address is another one.
type target struct {
	check                int
	cluster, id, version string
	addr                 netip.AddrPort
}

// health sums up the probes of one target. Checker.mu guards it.
type health struct {
	stop  func() // ends its probes
	run   int    // of results in a row that would change down
	down  bool
	since time.Time // of down
	why   string    // of the last failure
}

// record takes in a result and reports whether the target went down or up.
func (h *health) record(err error, c Check, now time.Time) bool {
	if err != nil {
		h.why = err.Error()
	}
	if (err != nil) == h.down {
		h.run = 0
		return false
	}
	h.run++
	if h.down && h.run < c.Rise || !h.down && h.run < c.Fall {
		return false
	}
	h.down, h.since, h.run = !h.down, now, 0
	return true
}

// place is a list of instances in a snapshot.
type place struct {
	vip     netip.Addr // the zero Addr for the baseline and for a branch
	branch  string
	cluster string
}

// places calls f with each list of a snapshot.
func places(s nginxsync.Snapshot, f func(place, []nginxsync.Instance)) {
	for cluster, list := range s.Baseline {
		f(place{cluster: cluster}, list)
	}
	for vip, clusters := range s.Overlays {
		for cluster, list := range clusters {
			f(place{vip: vip, cluster: cluster}, list)
		}
	}
	for branch, clusters := range s.Branches {
		for cluster, list := range clusters {
			f(place{branch: branch, cluster: cluster}, list)
		}
	}
}

// sift returns the instances of a list that stay: all that work, and as many others as the quorum
// asks for, beginning with the last to go down. The order of the list stays.
func sift(list []nginxsync.Instance, down func(nginxsync.Instance) (time.Time, bool),
	quorum float64) []nginxsync.Instance {
	type fallen struct {
		at    int // in list
		since time.Time
	}
	var failed []fallen
	for i, in := range list {
		if since, is := down(in); is {
			failed = append(failed, fallen{i, since})
		}
	}
	if len(failed) == 0 {
		return list
	}
	least := max(1, int(math.Ceil(quorum*float64(len(list))-1e-9)))
	kept := max(0, least-(len(list)-len(failed)))
	slices.SortFunc(failed, func(a, b fallen) int {
		return cmp.Or(b.since.Compare(a.since), cmp.Compare(list[a.at].ID, list[b.at].ID))
	})
	out := make(map[int]bool, len(failed))
	for _, f := range failed[kept:] {
		out[f.at] = true
	}
	stay := make([]nginxsync.Instance, 0, len(list)-len(out))
	for i, in := range list {
		if !out[i] {
			stay = append(stay, in)
		}
	}
	return stay
}

// replace returns the snapshot with other lists in some places. It shares the rest.
func replace(s nginxsync.Snapshot, with map[place][]nginxsync.Instance) nginxsync.Snapshot {
	copied := map[place]bool{} // without a cluster: the map of a scope
	for at, list := range with {
		scope := place{vip: at.vip, branch: at.branch}
		first := !copied[scope]
		copied[scope] = true
		switch {
		case at.vip.IsValid():
			if !copied[place{cluster: "overlays"}] {
				copied[place{cluster: "overlays"}] = true
				s.Overlays = maps.Clone(s.Overlays)
			}
			if first {
				s.Overlays[at.vip] = maps.Clone(s.Overlays[at.vip])
			}
			s.Overlays[at.vip][at.cluster] = list
		case at.branch != "":
			if !copied[place{cluster: "branches"}] {
				copied[place{cluster: "branches"}] = true
				s.Branches = maps.Clone(s.Branches)
			}
			if first {
				s.Branches[at.branch] = maps.Clone(s.Branches[at.branch])
			}
			s.Branches[at.branch][at.cluster] = list
		default:
			if first {
				s.Baseline = maps.Clone(s.Baseline)
			}
			s.Baseline[at.cluster] = list
		}
	}
	return s
}
