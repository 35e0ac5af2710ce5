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

// instances makes the instances out of an answer of Consul, and names the entries that are none. An
// id or version that the grammar of names refuses stays in: the agent sets it aside by name.
func instances(entries []*api.ServiceEntry, versionMeta string) (list []nginxsync.Instance,
	aside []string) {
	nodes := map[string]int{}
	for _, e := range entries {
		if e != nil && e.Service != nil {
			nodes[e.Service.ID]++
		}
	}
	for i, e := range entries {
		if e == nil || e.Service == nil {
			aside = append(aside, fmt.Sprintf("entry %d: want a service", i))
			continue
		}
		s := e.Service
		id := cmp.Or(s.ID, s.Service)
		node := ""
		if e.Node != nil {
			node = e.Node.Node
		}
		if nodes[s.ID] > 1 { // an id is of one node only
			id = node + ":" + id
		}
		host := s.Address
		if host == "" && e.Node != nil {
			host = e.Node.Address
		}
		addr, err := netip.ParseAddr(host)
		switch {
		case err != nil:
			aside = append(aside, fmt.Sprintf("instance %s on node %s: address %s, want an IP "+
				"address", names.Quote(id), names.Quote(node), names.Quote(host)))
			continue
		case s.Port < 1 || s.Port > 65535:
			aside = append(aside, fmt.Sprintf("instance %s on node %s: port %d, want 1 to 65535",
				names.Quote(id), names.Quote(node), s.Port))
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
	return list, aside
}
