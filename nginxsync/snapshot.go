package nginxsync

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// Instance is one running container of a cluster.
type Instance struct {
	// ID is unique in its cluster: 1 to 128 letters, digits, ".", "_", "-" or ":", with a letter or
	// digit at both ends.
	ID   string
	Addr netip.AddrPort // a host address without zone, and a port
	// Weight is the share of the requests relative to the other instances, 0 to 65535. The default
	// is 1.
	Weight int
	// Version is shown in the response header: 1 to 63 letters, digits, ".", "_" or "-", with a
	// letter or digit at both ends. Empty means that none is shown.
	Version string
	Backup  bool // is asked only when every instance that is no backup failed lately
}

// Snapshot holds the instances that serve each cluster. The zero value has no instance at all. A
// Snapshot that was given away is not changed, its maps and lists included: an agent does not look
// again at a map or a list that the snapshot before had.
//
// The name of a cluster is 1 to 63 lower-case letters, digits and single separators (".", "_", "__"
// or a run of "-"), with a letter or digit at both ends. Nginx compares the names of upstreams
// without regard to case, so package transform gives the upstream Hello_Web to the cluster
// hello_web.
type Snapshot struct {
	// Baseline is, by cluster, the instances that serve it wherever no overlay names it.
	Baseline map[string][]Instance
	// Overlays is, by VIP and cluster, the instances that serve the cluster on that VIP. A cluster
	// with an empty list is answered with 503 there: a tester must not look at another version and
	// believe it is the one under test. To return to the baseline, leave the cluster out.
	Overlays map[netip.Addr]map[string][]Instance
	// Branches are, by name and cluster, the instances that serve the cluster on the VIPs whose
	// Scope names the branch. A name is 1 to 63 letters, digits, ".", "_" or "-".
	Branches map[string]map[string][]Instance
	// Scopes holds the facts about VIPs besides their overlays.
	Scopes map[netip.Addr]Scope
	// Pools are the addresses that are leased: one without an overlay and without a Scope is
	// answered with 410. The default is none: such an address is answered by the baseline.
	Pools []Range
	// Tasks are the VIPs of tasks, by the task, for requests that name the task in a header or
	// cookie in place of coming to its VIP: see transform.Rules.Selector. The default is none.
	Tasks map[string]netip.Addr
	// Planned are the changes that the agent's guard is to believe: see Guard. An intent outlives
	// the snapshot: a source goes on to supply it until it ends.
	Planned []Intent
}

// Canonical is a copy with the instances of each cluster in the order of their ids, weights of 0
// written as 1, IPv4 addresses in their short form, overlays without clusters and the list of
// planned clusters left out. Ranges of pools that touch are joined. Two
// snapshots that mean the same have equal canonical forms.
func (s Snapshot) Canonical() Snapshot {
	out := Snapshot{
		Baseline: canonicalClusters(s.Baseline),
		Overlays: make(map[netip.Addr]map[string][]Instance, len(s.Overlays)),
	}
	for vip, clusters := range s.Overlays {
		if len(clusters) > 0 && !vip.Is4In6() {
			out.Overlays[vip] = canonicalClusters(clusters)
		}
	}
	for vip, clusters := range s.Overlays {
		if len(clusters) == 0 || !vip.Is4In6() {
			continue
		}
		all := canonicalClusters(clusters)
		maps.Copy(all, out.Overlays[vip.Unmap()]) // the overlay of the address itself counts
		out.Overlays[vip.Unmap()] = all
	}
	for name, clusters := range s.Branches {
		if len(clusters) == 0 {
			continue
		}
		if out.Branches == nil {
			out.Branches = map[string]map[string][]Instance{}
		}
		out.Branches[name] = canonicalClusters(clusters)
	}
	if len(s.Scopes) > 0 {
		out.Scopes = make(map[netip.Addr]Scope, len(s.Scopes))
	}
	for vip, scope := range s.Scopes {
		if _, own := s.Scopes[vip.Unmap()]; !vip.Is4In6() || !own {
			out.Scopes[vip.Unmap()] = scope.canonical()
		}
	}
	out.Pools = canonicalPools(s.Pools)
	for task, vip := range s.Tasks {
		if out.Tasks == nil {
			out.Tasks = make(map[string]netip.Addr, len(s.Tasks))
		}
		out.Tasks[task] = vip.Unmap()
	}
	return out
}

func canonicalClusters(clusters map[string][]Instance) map[string][]Instance {
	out := make(map[string][]Instance, len(clusters))
	for cluster, list := range clusters {
		out[cluster] = canonicalList(list)
	}
	return out
}

func canonicalList(list []Instance) []Instance {
	list = append(make([]Instance, 0, len(list)), list...)
	for i := range list {
		list[i].Weight = max(list[i].Weight, 1)
		list[i].Addr = netip.AddrPortFrom(list[i].Addr.Addr().Unmap(), list[i].Addr.Port())
	}
	slices.SortFunc(list, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Equal reports whether the snapshots route every request the same way.
func (s Snapshot) Equal(other Snapshot) bool {
	a, b := s.Canonical(), other.Canonical()
	return equalClusters(a.Baseline, b.Baseline) &&
		maps.EqualFunc(a.Overlays, b.Overlays, equalClusters) &&
		maps.EqualFunc(a.Branches, b.Branches, equalClusters) &&
		maps.EqualFunc(a.Scopes, b.Scopes, Scope.equal) && slices.Equal(a.Pools, b.Pools) &&
		maps.Equal(a.Tasks, b.Tasks)
}

func equalClusters(a, b map[string][]Instance) bool { return maps.EqualFunc(a, b, slices.Equal) }

// RouteChange is one difference between two snapshots.
type RouteChange struct {
	VIP     netip.Addr // the zero Addr for the baseline and for a branch
	Branch  string     // empty for the baseline and for a VIP
	Cluster string
	// nil when the cluster was not named, empty when it was named without an instance
	Before []Instance
	After  []Instance
}

// Diff returns the changes of instances that lead from one snapshot to the other, baseline first,
// then by VIP and cluster, then by branch and cluster. Scopes, pools and tasks are no part of it.
func Diff(from, to Snapshot) []RouteChange {
	from, to = from.Canonical(), to.Canonical()
	changes := diffClusters(key{}, from.Baseline, to.Baseline)
	vips := map[netip.Addr]bool{}
	for vip := range from.Overlays {
		vips[vip] = true
	}
	for vip := range to.Overlays {
		vips[vip] = true
	}
	for _, vip := range slices.SortedFunc(maps.Keys(vips), netip.Addr.Compare) {
		changes = append(changes, diffClusters(key{vip: vip}, from.Overlays[vip],
			to.Overlays[vip])...)
	}
	branches := map[string]bool{}
	for name := range from.Branches {
		branches[name] = true
	}
	for name := range to.Branches {
		branches[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(branches)) {
		changes = append(changes, diffClusters(key{branch: name}, from.Branches[name],
			to.Branches[name])...)
	}
	return changes
}

func diffClusters(in key, from, to map[string][]Instance) []RouteChange {
	names := map[string]bool{}
	for name := range from {
		names[name] = true
	}
	for name := range to {
		names[name] = true
	}
	var changes []RouteChange
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, had := from[name]
		after, has := to[name]
		if had != has || !slices.Equal(before, after) {
			changes = append(changes, RouteChange{VIP: in.vip, Branch: in.branch, Cluster: name,
				Before: before, After: after})
		}
	}
	return changes
}
