package nginxsync

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/sluice-deploy/sluice/internal/names"
)

// offer is a row of the source.
type offer struct {
	from      []Instance // as the source gave it
	instances []Instance // canonical, the valid ones of from
	aside     []SetAside // the others
	walk      uint64     // in which it was seen last
}

// shelf holds the offers of one scope, by cluster.
type shelf struct {
	from   map[string][]Instance // as the source gave it; nil before it was looked through
	offers map[string]*offer
	walk   uint64 // in which it was seen last
}

// shelves are the scopes of one kind.
type shelves[K comparable] struct {
	from map[K]map[string][]Instance // as the source gave it; nil before it was looked through
	of   map[K]*shelf
}

// same reports whether two maps are one and not empty: a Snapshot that was given away is not
// changed, so its maps have their content of before.
func same[K comparable, V any](a, b map[K]V) bool {
	return len(a) > 0 && len(b) > 0 &&
		reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// stocks holds the offers of the source. A snapshot costs a look at the maps of scopes, the maps of
// clusters and the lists of instances that it does not share with the snapshot before.
type stocks struct {
	baseline shelf
	overlays shelves[netip.Addr]
	branches shelves[string]
	walk     uint64 // how many snapshots were looked through
}

func newStocks() stocks {
	return stocks{baseline: shelf{offers: map[string]*offer{}},
		overlays: shelves[netip.Addr]{of: map[netip.Addr]*shelf{}},
		branches: shelves[string]{of: map[string]*shelf{}}}
}

// offer is the offer of a row, or nil.
func (s *stocks) offer(k key) *offer {
	sh := &s.baseline
	switch {
	case k.vip.IsValid():
		sh = s.overlays.of[k.vip]
	case k.branch != "":
		sh = s.branches.of[k.branch]
	}
	if sh == nil {
		return nil
	}
	return sh.offers[k.cluster]
}

// lookAll notes the offers of a snapshot in scopes of one kind. rowOf is the key of a scope's rows
// without the cluster, valid reports whether the name of a scope is valid as it is. lookAll returns
// false for a name that is not.
func lookAll[K comparable](t *table, s *shelves[K], all map[K]map[string][]Instance,
	rowOf func(K) key, valid func(K) bool, changed map[key]bool) bool {
	if same(s.from, all) {
		return true
	}
	seen := 0
	for name, clusters := range all {
		sh := s.of[name]
		if sh == nil {
			if !t.sifted && !valid(name) {
				return false
			}
			sh = &shelf{offers: map[string]*offer{}}
			s.of[name] = sh
		}
		sh.walk = t.stocks.walk
		seen++
		if !same(sh.from, clusters) && !t.look(sh, rowOf(name), clusters, changed) {
			return false
		}
	}
	if seen < len(s.of) {
		for name, sh := range s.of {
			if sh.walk != t.stocks.walk {
				t.look(sh, rowOf(name), nil, changed)
				delete(s.of, name)
			}
		}
	}
	s.from = all
	return true
}

// look notes the offers of a snapshot in one scope. It returns false for the name of a cluster that
// is not valid as it is.
func (t *table) look(sh *shelf, scope key, clusters map[string][]Instance,
	changed map[key]bool) bool {
	seen := 0
	for cluster, list := range clusters {
		o, there := sh.offers[cluster]
		k := key{scope.vip, scope.branch, cluster}
		if !t.sifted && (!there || t.unchecked) && names.Cluster(cluster) != nil {
			return false
		}
		if !there {
			o = &offer{}
			sh.offers[cluster] = o
			changed[k] = true
		}
		o.walk = t.stocks.walk
		seen++
		if there && sameList(o.from, list) {
			o.from = list
			continue
		}
		t.see(k, o, list, changed)
	}
	if seen < len(sh.offers) {
		for cluster, o := range sh.offers {
			if o.walk != t.stocks.walk {
				k := key{scope.vip, scope.branch, cluster}
				delete(sh.offers, cluster)
				delete(t.bad, k)
				changed[k] = true
			}
		}
	}
	sh.from = clusters
	return true
}

// see takes over a list of instances that is another one than before.
func (t *table) see(k key, o *offer, list []Instance, changed map[key]bool) {
	o.from = list
	f := &sifter{grammar: strict}
	good := f.instances(k, list)
	delete(t.bad, k)
	if o.aside = f.aside; len(o.aside) > 0 {
		t.bad[k] = true
	}
	next := canonicalList(good)
	if !slices.Equal(o.instances, next) {
		changed[k] = true
	}
	o.instances = next
}

// sameList reports whether two lists are one or have the same instances in the same order.
func sameList(a, b []Instance) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b)
}
