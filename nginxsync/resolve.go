package nginxsync

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Decision names the version that answers a request, and the reason.
type Decision struct {
	// Status is 200 when the instances answer, 503 when the scope that names the cluster has no
	// instance for it, or none names it, and 410 when no lease has the address.
	Status int `json:"status"`
	// From is the scope that names the cluster: "vip ADDRESS", "branch NAME", "baseline", or
	// empty for none.
	From      string     `json:"from"`
	Instances []Instance `json:"instances"`
	// Why lists the rows that were looked at, in the order of the decision.
	Why []string `json:"why"`
}

// Resolve decides who answers a request for the cluster that comes to the address. The scopes are
// asked in their order: the overlay of the VIP, the branches of its Scope, the baseline. The first
// that names the cluster answers, also when it has no instance for it; an instance on an address of
// a pool is not asked, since the request would come back to Nginx. An address that a Scope says
// has Ended, or that is in a pool and has neither an overlay nor a Scope, is answered with 410
// whatever the cluster; the empty cluster asks for that only. The snapshot must be valid.
func (s Snapshot) Resolve(vip netip.Addr, cluster string) Decision {
	vip = plain(vip)
	scope, leased := s.Scopes[vip]
	overlay := s.Overlays[vip]
	switch {
	case len(overlay) > 0:
	case !scope.Ended.At.IsZero():
		return Decision{Status: http.StatusGone, Why: []string{scope.Ended.String()}}
	case leased:
	case s.pooled(vip):
		return Decision{Status: http.StatusGone, Why: []string{"no lease has the address, which " +
			"is in a pool"}}
	}
	var d Decision
	if cluster == "" {
		return Decision{Status: http.StatusOK, Why: []string{"the address takes requests"}}
	}
	try := func(from string, clusters map[string][]Instance) bool {
		list, ok := clusters[cluster]
		if !ok {
			d.Why = append(d.Why, from+" does not name the cluster")
			return false
		}
		d.From, d.Instances, d.Status = from, list, http.StatusOK
		d.Why = append(d.Why, fmt.Sprintf("%s names the cluster, with %d instances", from,
			len(list)))
		return true
	}
	found := try("vip "+vip.String(), overlay)
	for _, name := range scope.Branches {
		found = found || try("branch "+name, s.Branches[name])
	}
	found = found || try("baseline", s.Baseline)
	d.Instances = slices.Clone(d.Instances)
	d.Instances = slices.DeleteFunc(d.Instances, func(in Instance) bool {
		loop := s.pooled(in.Addr.Addr())
		if loop {
			d.Why = append(d.Why, fmt.Sprintf("instance %s is not asked: %s is a VIP of a pool, "+
				"and leads back to Nginx", in.ID, in.Addr))
		}
		return loop
	})
	if !found || len(d.Instances) == 0 {
		d.Status = http.StatusServiceUnavailable
	}
	return d
}

func (s Snapshot) pooled(a netip.Addr) bool {
	return slices.ContainsFunc(s.Pools, func(r Range) bool { return r.Contains(a) })
}

// String is such as
//
//	task T-1 (web v2) had the address until 2026-11-29T12:00:00Z
func (e Ended) String() string {
	task := "another task"
	if e.Task != "" {
		task = "task " + e.Task
	}
	var versions []string
	for cluster, version := range e.Versions {
		versions = append(versions, cluster+" "+version)
	}
	slices.Sort(versions)
	if len(versions) > 0 {
		task += " (" + strings.Join(versions, ", ") + ")"
	}
	return task + " had the address until " + e.At.UTC().Format("2006-01-02T15:04:05Z")
}
