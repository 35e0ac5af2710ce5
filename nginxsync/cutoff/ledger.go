package cutoff

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// owner is an instance in its role: the same address with another owner has changed hands.
type owner struct{ cluster, id, version string }

func (o owner) compare(p owner) int {
	return cmp.Or(cmp.Compare(o.cluster, p.cluster), cmp.Compare(o.id, p.id),
		cmp.Compare(o.version, p.version))
}

// place is the place of a row.
type place struct {
	vip     netip.Addr
	branch  string
	cluster string
}

// ledger has the owners of each address in the routes. The zero value has none. It is not safe for
// concurrent use.
type ledger struct {
	at     nginxsync.Generation // zero: unknown
	rows   map[place][]nginxsync.Instance
	owners map[netip.AddrPort]map[owner]int // how many rows have it
	gone   map[netip.AddrPort]left
}

// left is an address that no row has any more.
type left struct {
	owners map[owner]int // of before
	since  time.Time
}

// change is the effect of a delta on the owners of addresses: the rows more or less of each.
type change map[netip.AddrPort]map[owner]int

func (c change) add(cluster string, list []nginxsync.Instance, n int) {
	for _, in := range list {
		if c[in.Addr] == nil {
			c[in.Addr] = map[owner]int{}
		}
		c[in.Addr][owner{cluster, in.ID, in.Version}] += n
	}
}

// change works out the effect of a delta.
func (l *ledger) change(d nginxsync.Delta) change {
	c := change{}
	if d.Full {
		for at, list := range l.rows {
			c.add(at.cluster, list, -1)
		}
	}
	for _, row := range d.Rows {
		if !d.Full {
			c.add(row.Cluster, l.rows[placeOf(row)], -1)
		}
		c.add(row.Cluster, row.Instances, 1)
	}
	return c
}

func placeOf(row nginxsync.Row) place { return place{row.VIP, row.Branch, row.Cluster} }

// handed are the addresses that change hands: each had owners, or has left with them, and has
// others afterwards.
func (l *ledger) handed(c change) (addrs []netip.AddrPort) {
	for addr, more := range c {
		before := l.owners[addr]
		if len(before) == 0 {
			before = l.gone[addr].owners
		}
		after, kept := 0, false
		for who, n := range more {
			if l.owners[addr][who]+n > 0 {
				after++
				kept = kept || before[who] > 0
			}
		}
		for who := range l.owners[addr] {
			if _, changed := more[who]; !changed {
				kept = true
			}
		}
		if len(before) > 0 && after > 0 && !kept {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	return addrs
}

// commit takes a delta down that is in force.
func (l *ledger) commit(d nginxsync.Delta, now time.Time) {
	if l.owners == nil {
		l.owners, l.gone = map[netip.AddrPort]map[owner]int{}, map[netip.AddrPort]left{}
	}
	for addr, more := range l.change(d) {
		have, before := l.owners[addr], map[owner]int{}
		for who, n := range have {
			before[who] = n
		}
		for who, n := range more {
			if have == nil {
				have = map[owner]int{}
				l.owners[addr] = have
			}
			if have[who] += n; have[who] <= 0 {
				delete(have, who)
			}
		}
		switch {
		case len(have) > 0:
			delete(l.gone, addr)
		default:
			delete(l.owners, addr)
			if len(before) > 0 {
				l.gone[addr] = left{before, now}
			}
		}
	}
	if d.Full || l.rows == nil {
		l.rows = make(map[place][]nginxsync.Instance, len(d.Rows))
	}
	for _, row := range d.Rows {
		if row.Gone {
			delete(l.rows, placeOf(row))
		} else if len(row.Instances) > 0 {
			l.rows[placeOf(row)] = row.Instances
		} else {
			delete(l.rows, placeOf(row))
		}
	}
	l.at = d.To
}

// recall takes over addresses that left when another process had the ledger. An address that is in
// the routes, or left since, is known better.
func (l *ledger) recall(gone map[netip.AddrPort]left) {
	if l.owners == nil {
		l.owners, l.gone = map[netip.AddrPort]map[owner]int{}, map[netip.AddrPort]left{}
	}
	for addr, g := range gone {
		if _, since := l.gone[addr]; !since && len(l.owners[addr]) == 0 {
			l.gone[addr] = g
		}
	}
}

// due are the addresses that left the routes so long ago, and when the next one will have; false
// when none is left.
func (l *ledger) due(now time.Time, after time.Duration) (addrs []netip.AddrPort, next time.Time,
	waits bool) {
	for addr, g := range l.gone {
		if g.since.After(now) { // the clock was set back
			g.since = now
			l.gone[addr] = g
		}
		end := g.since.Add(after)
		if !end.After(now) {
			addrs = append(addrs, addr)
		} else if !waits || end.Before(next) {
			next, waits = end, true
		}
	}
	slices.SortFunc(addrs, func(a, b netip.AddrPort) int {
		return cmp.Or(l.gone[a].since.Compare(l.gone[b].since), a.Compare(b))
	})
	return addrs, next, waits
}
