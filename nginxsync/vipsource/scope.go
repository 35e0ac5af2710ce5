package vipsource

import (
	"net/netip"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/vip"
)

// Ended is the answer of Nginx on the address of a lease that has ended: its task, and of each
// cluster the version that was bound last, else the one that the owner asked for.
func Ended(lease vip.Lease) nginxsync.Ended {
	versions := make(map[string]string, len(lease.Owner.Overrides))
	for cluster, version := range lease.Owner.Overrides {
		if version != "" {
			versions[cluster] = version
		}
	}
	for _, i := range lease.Binding.Instances {
		if i.Version != "" {
			versions[i.Cluster] = i.Version
		}
	}
	return nginxsync.Ended{Task: lease.Owner.Task, At: lease.Ended, Versions: versions}
}

// Pools are the addresses of the pools that may be leased: all but the reserved ones.
func Pools(pools []vip.Pool) []nginxsync.Range {
	var out []nginxsync.Range
	for _, pool := range pools {
		for _, r := range pool.Leasable() {
			out = append(out, nginxsync.Range(r))
		}
	}
	return out
}

// scope is the scope of the lease's address in the routes, besides its overlay, and whether it has
// one.
func (s *Source) scope(l vip.Lease) (scope nginxsync.Scope, said bool) {
	switch {
	case l.State == vip.Leased || l.State == vip.Draining:
		if s.cfg.Branches != nil {
			scope.Branches = s.cfg.Branches(l)
		}
		return scope, len(scope.Branches) > 0 || len(s.overlays[l.Addr]) == 0
	case s.cfg.KeepBaseline || l.Ended.IsZero():
		return scope, false
	}
	scope.Ended = Ended(l)
	return scope, true
}

// note keeps the scope of a lease's address, and reports whether it has changed. Beyond
// Config.KeepEnded the lease that ended first is forgotten.
func (s *Source) note(l vip.Lease) bool {
	before, had := s.scopes[l.Addr]
	scope, said := s.scope(l)
	delete(s.ended, l.Addr)
	if !said {
		delete(s.scopes, l.Addr)
		return had
	}
	s.scopes[l.Addr] = scope
	if !scope.Ended.At.IsZero() {
		s.ended[l.Addr] = scope.Ended.At
		for len(s.ended) > s.cfg.KeepEnded {
			oldest := l.Addr
			for addr, at := range s.ended {
				if c := at.Compare(s.ended[oldest]); c < 0 || c == 0 && addr.Less(oldest) {
					oldest = addr
				}
			}
			delete(s.ended, oldest)
			delete(s.scopes, oldest)
		}
	}
	one := func(sc nginxsync.Scope) nginxsync.Snapshot {
		return nginxsync.Snapshot{Scopes: map[netip.Addr]nginxsync.Scope{l.Addr: sc}}
	}
	return !had || !one(before).Equal(one(scope))
}

// hold keeps the task of a live lease's address, and reports whether it has changed.
func (s *Source) hold(l vip.Lease) bool {
	if !s.cfg.Tasks {
		return false
	}
	before := s.tasks[l.Addr]
	delete(s.tasks, l.Addr)
	if l.State == vip.Leased {
		s.tasks[l.Addr] = l.Owner.Task
	}
	return s.tasks[l.Addr] != before
}

// vipsOf are the first VIPs of the tasks. The order of addresses is that of IPv4 before IPv6.
func vipsOf(tasks map[netip.Addr]string) (vips map[string]netip.Addr) {
	for addr, task := range tasks {
		if vips == nil {
			vips = make(map[string]netip.Addr, len(tasks))
		}
		if first, ok := vips[task]; !ok || addr.Less(first) {
			vips[task] = addr
		}
	}
	return vips
}
