package relay

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// ledger is the pure part of a Handler: the lines of the last snapshot. A snapshot costs a look at
// the maps that it does not share with the one before, and the text of each change.
type ledger struct {
	lines map[place]string
	sum   sum
	last  nginxsync.Snapshot
	plans map[nginxsync.Intent]*planned // those of the last snapshot
	// how many intents of one content came after the first, of those in the last snapshot
	again map[string]uint64
	walk  uint64

	changed []string // the lines of the change that take works out
}

// planned is an intent of the last snapshot.
type planned struct {
	content string
	walk    uint64 // in which it was seen last
}

func newLedger() *ledger {
	return &ledger{lines: map[place]string{}, plans: map[nginxsync.Intent]*planned{},
		again: map[string]uint64{}}
}

// take makes s the last snapshot, and returns the lines that lead to it.
func (l *ledger) take(s nginxsync.Snapshot) (lines []string) {
	l.changed = nil
	l.clusters(l.last.Baseline, s.Baseline, place{kind: ofBaseline})
	type clusters = map[string][]nginxsync.Instance
	each(l.last.Overlays, s.Overlays, func(vip netip.Addr, was, is clusters) {
		if vip.IsValid() {
			l.clusters(was, is, place{kind: ofVIP, vip: vip})
		}
	})
	each(l.last.Branches, s.Branches, func(name string, was, is clusters) {
		l.clusters(was, is, place{kind: ofBranch, name: name})
	})
	l.scopes(s.Scopes)
	l.tasks(s.Tasks)
	if !slices.Equal(l.last.Pools, s.Pools) {
		l.pools(s.Pools)
	}
	l.planned(s.Planned)
	l.last = s
	return l.changed
}

// all are the lines of the last snapshot.
func (l *ledger) all() []string { return slices.Collect(maps.Values(l.lines)) }

// put makes a line that of its place.
func (l *ledger) put(at place, in line) {
	text := string(encode(in))
	was, had := l.lines[at]
	if had && was == text {
		return
	}
	if had {
		l.sum ^= sumOf(was)
	}
	l.lines[at] = text
	l.sum ^= sumOf(text)
	l.changed = append(l.changed, text)
}

// drop takes away the line of a place.
func (l *ledger) drop(at place) {
	if was, had := l.lines[at]; had {
		l.sum ^= sumOf(was)
		delete(l.lines, at)
		l.changed = append(l.changed, string(encode(at.gone())))
	}
}

// same reports whether two maps are one: a snapshot that was given away is not changed.
func same[K comparable, V any](a, b map[K]V) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// each calls f for the maps that two maps of maps do not share, with nil for one that is not there.
func each[K comparable, V any](was, is map[K]map[string]V, f func(K, map[string]V, map[string]V)) {
	if same(was, is) {
		return
	}
	for k, inner := range is {
		if before, had := was[k]; !had || !same(before, inner) {
			f(k, before, inner)
		}
	}
	for k, before := range was {
		if _, has := is[k]; !has {
			f(k, before, nil)
		}
	}
}

// clusters takes the change of one scope; in has all of the place but the cluster.
func (l *ledger) clusters(was, is map[string][]nginxsync.Instance, in place) {
	if same(was, is) {
		return
	}
	for cluster, list := range is {
		before, had := was[cluster]
		if had && len(before) == len(list) && (len(list) == 0 || &before[0] == &list[0]) {
			continue
		}
		in.cluster = cluster
		out := row{Cluster: cluster}
		switch in.kind {
		case ofVIP:
			out.VIP = &in.vip
		case ofBranch:
			out.Branch = &in.name
		}
		for _, i := range list {
			out.Instances = append(out.Instances, instance(i))
		}
		l.put(in, line{Row: &out})
	}
	for cluster := range was {
		if _, has := is[cluster]; !has {
			in.cluster = cluster
			l.drop(in)
		}
	}
}

func (l *ledger) scopes(is map[netip.Addr]nginxsync.Scope) {
	if same(l.last.Scopes, is) {
		return
	}
	for vip, s := range is {
		was, had := l.last.Scopes[vip]
		if !vip.IsValid() || had && sameScope(was, s) {
			continue
		}
		out := scope{VIP: vip, Branches: s.Branches}
		if !s.Ended.At.IsZero() {
			out.Ended = &ended{s.Ended.Task, stamp(s.Ended.At), s.Ended.Versions}
		}
		l.put(place{kind: ofScope, vip: vip}, line{Scope: &out})
	}
	for vip := range l.last.Scopes {
		if _, has := is[vip]; !has {
			l.drop(place{kind: ofScope, vip: vip})
		}
	}
}

// sameScope reports whether two scopes have the same line for sure.
func sameScope(a, b nginxsync.Scope) bool {
	return slices.Equal(a.Branches, b.Branches) && a.Ended.Task == b.Ended.Task &&
		a.Ended.At.Equal(b.Ended.At) && maps.Equal(a.Ended.Versions, b.Ended.Versions)
}

func (l *ledger) tasks(is map[string]netip.Addr) {
	for name, vip := range is {
		if was, had := l.last.Tasks[name]; !had || was != vip {
			l.put(place{kind: ofTask, name: name}, line{Task: &task{Task: name, VIP: vip}})
		}
	}
	for name := range l.last.Tasks {
		if _, has := is[name]; !has {
			l.drop(place{kind: ofTask, name: name})
		}
	}
}

func (l *ledger) pools(is []nginxsync.Range) {
	if len(is) == 0 {
		l.drop(place{kind: ofPools})
		return
	}
	out := make(pools, len(is))
	for i, r := range is {
		out[i] = [2]netip.Addr{r.First, r.Last}
	}
	l.put(place{kind: ofPools}, line{Pools: &out})
}

// planned takes the intents. One whose content is there already, but which is another value, was
// planned again, and gets another number.
func (l *ledger) planned(is []nginxsync.Intent) {
	l.walk++
	for _, in := range is {
		if p := l.plans[in]; p != nil {
			p.walk = l.walk
			continue
		}
		p := &planned{content(in), l.walk}
		l.plans[in] = p
		number, before := l.again[p.content]
		if before {
			number++
		}
		l.again[p.content] = number
		in.Until = stamp(in.Until)
		l.put(place{kind: ofPlan, name: p.content}, line{Plan: &plan{Intent: in, Number: number}})
	}
	if len(l.plans) == len(is) {
		return
	}
	stay := make(map[string]bool, len(is))
	for _, p := range l.plans {
		if p.walk == l.walk {
			stay[p.content] = true
		}
	}
	for in, p := range l.plans {
		if p.walk == l.walk {
			continue
		}
		delete(l.plans, in)
		if !stay[p.content] {
			delete(l.again, p.content)
			l.drop(place{kind: ofPlan, name: p.content})
		}
	}
}
