package relay

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/sluice-deploy/sluice/internal/strictjson"
	"github.com/sluice-deploy/sluice/nginxsync"
)

// view is the pure part of a Source: the snapshot that lines make. Maps that were given away are
// copied before they change.
type view struct {
	lines map[place]sum // of each
	sum   sum

	baseline map[string][]nginxsync.Instance
	overlays map[netip.Addr]map[string][]nginxsync.Instance
	branches map[string]map[string][]nginxsync.Instance
	scopes   map[netip.Addr]nginxsync.Scope
	tasks    map[string]netip.Addr
	pools    []nginxsync.Range
	plans    map[string]nginxsync.Intent

	given nginxsync.Snapshot
	own   map[place]bool // the maps that were not given away: places without a cluster
}

func newView() *view {
	return &view{lines: map[place]sum{},
		overlays: map[netip.Addr]map[string][]nginxsync.Instance{},
		branches: map[string]map[string][]nginxsync.Instance{},
		plans:    map[string]nginxsync.Intent{}, own: map[place]bool{}}
}

// parse reads one line, which is not empty.
func parse(text string) (in line, err error) {
	if err := strictjson.Decode([]byte(text), &in); err != nil {
		return in, err
	}
	if _, _, ok := in.place(); !ok && in.Hello == nil && in.End == nil && in.Silent == nil {
		return in, errors.New("want a line that this release knows")
	}
	return in, nil
}

// apply takes a line that changes the snapshot.
func (v *view) apply(text string, in line) {
	at, gone, _ := in.place()
	v.sum ^= v.lines[at] // 0 for none
	delete(v.lines, at)
	if !gone {
		v.lines[at] = sumOf(text)
		v.sum ^= v.lines[at]
	}
	switch at.kind {
	case ofBaseline:
		v.baseline = set(v, place{kind: ofBaseline}, v.baseline, at.cluster, in.Row.list(), gone)
	case ofVIP:
		setIn(v, place{kind: ofVIP, vip: at.vip}, v.overlays, at.vip, at.cluster, in.Row, gone)
	case ofBranch:
		setIn(v, place{kind: ofBranch, name: at.name}, v.branches, at.name, at.cluster, in.Row,
			gone)
	case ofScope:
		v.scopes = set(v, place{kind: ofScope}, v.scopes, at.vip, in.Scope.scope(), gone)
	case ofTask:
		v.tasks = set(v, place{kind: ofTask}, v.tasks, at.name, in.Task.VIP, gone)
	case ofPools:
		v.pools = nil
		for _, ends := range *in.Pools {
			v.pools = append(v.pools, nginxsync.Range{First: ends[0], Last: ends[1]})
		}
	case ofPlan:
		v.own[place{kind: ofPlan}] = true
		v.plans[at.name] = in.Plan.Intent.Numbered(in.Plan.Number)
		if gone {
			delete(v.plans, at.name)
		}
	}
}

// set changes a map, of which a copy is made first where it was given away.
func set[K comparable, V any](v *view, of place, m map[K]V, k K, value V, gone bool) map[K]V {
	if !v.own[of] || m == nil {
		if m = maps.Clone(m); m == nil {
			m = map[K]V{}
		}
		v.own[of] = true
	}
	if m[k] = value; gone {
		delete(m, k)
	}
	return m
}

// setIn changes the map of one scope.
func setIn[K comparable](v *view, of place, all map[K]map[string][]nginxsync.Instance, k K,
	cluster string, r *row, gone bool) {
	v.own[place{kind: of.kind}] = true // all, which is copied when it is given away
	if all[k] = set(v, of, all[k], cluster, r.list(), gone); len(all[k]) == 0 {
		delete(all, k)
	}
}

func (r *row) list() []nginxsync.Instance {
	list := make([]nginxsync.Instance, len(r.Instances))
	for i, in := range r.Instances {
		list[i] = nginxsync.Instance(in)
	}
	return list
}

func (s *scope) scope() nginxsync.Scope {
	out := nginxsync.Scope{Branches: s.Branches}
	if s.Ended != nil {
		out.Ended = nginxsync.Ended(*s.Ended)
	}
	return out
}

// snapshot gives the state away. The error is that of a state which is not the relay's.
func (v *view) snapshot(want sum) (nginxsync.Snapshot, error) {
	if v.sum != want {
		return nginxsync.Snapshot{}, fmt.Errorf("the sum is %016x after the changes, want %016x",
			uint64(v.sum), uint64(want))
	}
	s := nginxsync.Snapshot{Baseline: v.baseline, Overlays: v.given.Overlays,
		Branches: v.given.Branches, Scopes: v.scopes, Tasks: v.tasks, Pools: v.pools,
		Planned: v.given.Planned}
	if v.own[place{kind: ofVIP}] {
		s.Overlays = maps.Clone(v.overlays)
	}
	if v.own[place{kind: ofBranch}] {
		s.Branches = maps.Clone(v.branches)
	}
	if v.own[place{kind: ofPlan}] {
		s.Planned = make([]nginxsync.Intent, 0, len(v.plans))
		for _, in := range v.plans {
			s.Planned = append(s.Planned, in)
		}
	}
	v.given = s
	clear(v.own)
	return s, nil
}
