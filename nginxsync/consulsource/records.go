package consulsource

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync"
)

// registration is a service's registration on a node. Its id is unique on the node alone.
type registration struct{ node, id string }

func registrationOf(e *api.ServiceEntry) registration {
	r := registration{id: cmp.Or(e.Service.ID, e.Service.Service)}
	if e.Node != nil {
		r.node = e.Node.Node
	}
	return r
}

// given are the ids of instances by their registrations.
type given map[registration]string

// next gives an id to each registration: the one that it has, else that of its registration unless
// another node's has it, else that with the node before it. So an instance keeps its id, and the
// connections to it, when another node registers the same id or takes its own back. Of several that
// are new the oldest comes first.
func (g given) next(entries []*api.ServiceEntry) given {
	out, taken := given{}, map[string]bool{}
	var fresh []*api.ServiceEntry
	for _, e := range entries {
		r := registrationOf(e)
		id, ok := g[r]
		if !ok {
			fresh = append(fresh, e)
			continue
		}
		out[r], taken[id] = id, true
	}
	slices.SortStableFunc(fresh, func(a, b *api.ServiceEntry) int {
		return cmp.Or(cmp.Compare(a.Service.CreateIndex, b.Service.CreateIndex),
			cmp.Compare(registrationOf(a).node, registrationOf(b).node))
	})
	for _, e := range fresh {
		r := registrationOf(e)
		id := r.id
		if taken[id] {
			id = r.node + ":" + id
		}
		out[r], taken[id] = id, true
	}
	return out
}

// instances makes the instances out of an answer of Consul, names the entries that are none, and
// returns the ids for the next answer. An id or version that the grammar of names refuses stays in:
// the agent sets it aside by name.
func instances(entries []*api.ServiceEntry, versionMeta string, ids given) (
	list []nginxsync.Instance, aside []string, next given) {
	services := make([]*api.ServiceEntry, 0, len(entries))
	for i, e := range entries {
		if e == nil || e.Service == nil {
			aside = append(aside, fmt.Sprintf("entry %d: want a service", i))
			continue
		}
		services = append(services, e)
	}
	next = ids.next(services)
	for _, e := range services {
		s, r := e.Service, registrationOf(e)
		id := next[r]
		host := s.Address
		if host == "" && e.Node != nil {
			host = e.Node.Address
		}
		addr, err := netip.ParseAddr(host)
		switch {
		case err != nil:
			aside = append(aside, fmt.Sprintf("instance %s on node %s: address %s, want an IP "+
				"address", names.Quote(id), names.Quote(r.node), names.Quote(host)))
			continue
		case s.Port < 1 || s.Port > 65535:
			aside = append(aside, fmt.Sprintf("instance %s on node %s: port %d, want 1 to 65535",
				names.Quote(id), names.Quote(r.node), s.Port))
			continue
		}
		list = append(list, nginxsync.Instance{ID: id,
			Addr:    netip.AddrPortFrom(addr.Unmap(), uint16(s.Port)),
			Weight:  min(max(s.Weights.Passing, 1), 65535),
			Version: s.Meta[versionMeta], Backup: s.Meta["backup"] == "true"})
	}
	slices.SortFunc(list, func(a, b nginxsync.Instance) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), a.Addr.Compare(b.Addr))
	})
	slices.Sort(aside)
	return list, aside, next
}
