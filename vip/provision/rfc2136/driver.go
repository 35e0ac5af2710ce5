package rfc2136

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/provision"
)

// Driver is a provision.LeaseDriver. Its calls do not overlap.
type Driver struct {
	cfg    Config
	client client

	// the driver's names in the zone, sorted; nil when that is not known
	have map[string][]netip.Addr
	// the value of the fence in the zone, while have is known
	fence string
}

var _ provision.LeaseDriver = (*Driver)(nil)

// New returns a driver, without a word to the server. The error is vip.ErrInvalid and names every
// bad field.
func New(cfg Config) (*Driver, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	return &Driver{cfg: cfg, client: client{cfg}}, nil
}

// Apply implements provision.Driver: each address has a name of its own, such as ip-10-58-0-1. A
// Keeper calls ApplyLeases instead.
func (d *Driver) Apply(ctx context.Context, want []netip.Addr) (aside map[netip.Addr]error,
	err error) {
	names := map[string][]netip.Addr{}
	for _, addr := range want {
		name, err := d.cfg.absolute(nameOf(addr))
		if err != nil {
			return nil, err
		}
		names[name] = []netip.Addr{addr}
	}
	return d.apply(ctx, names)
}

// ApplyLeases implements provision.LeaseDriver: a lease that is live has its names, others have
// none. Several leases with one name are several addresses of that name. An address is set aside
// when one of its names is not of the zone, or belongs to another owner (ErrForeign). After an
// error some names may be as wanted and others as before; the next call puts them right, and sees to
// it that the server refuses an update which got no answer, if it arrives later. ErrFenced is the
// error of a driver after another of the same owner has begun; its next call takes over again.
func (d *Driver) ApplyLeases(ctx context.Context, leases []vip.Lease) (aside map[netip.Addr]error,
	err error) {
	names, bad := map[string][]netip.Addr{}, map[netip.Addr]error{}
	for _, l := range leases {
		if l.State != vip.Leased {
			continue
		}
		for _, name := range d.cfg.Names(l) {
			name, err := d.cfg.absolute(name)
			if err != nil {
				bad[l.Addr] = err
				continue
			}
			names[name] = append(names[name], l.Addr)
		}
	}
	aside, err = d.apply(ctx, names)
	maps.Copy(bad, aside)
	return bad, err
}

// apply makes want the driver's names in the zone.
func (d *Driver) apply(ctx context.Context, want map[string][]netip.Addr) (map[netip.Addr]error,
	error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("apply names of zone %s: %w", d.cfg.Zone, context.Cause(ctx))
	}
	if d.have == nil {
		if err := d.takeFence(ctx); err != nil {
			return nil, err
		}
		have, err := d.client.transfer(ctx)
		if err != nil {
			return nil, err
		}
		for _, addrs := range have {
			slices.SortFunc(addrs, netip.Addr.Compare)
		}
		d.have = have
	}
	aside := map[netip.Addr]error{}
	// an address is at its old name or at its new one
	for _, name := range slices.Sorted(maps.Keys(d.have)) {
		if _, wanted := want[name]; wanted {
			continue
		}
		if err := d.set(ctx, name, nil); err != nil && !errors.Is(err, ErrForeign) {
			return aside, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		addrs := slices.Clone(want[name])
		slices.SortFunc(addrs, netip.Addr.Compare)
		addrs = slices.Compact(addrs)
		if have, known := d.have[name]; known && slices.Equal(have, addrs) {
			continue
		}
		switch err := d.set(ctx, name, addrs); {
		case errors.Is(err, ErrForeign):
			for _, addr := range addrs {
				aside[addr] = err
			}
		case err != nil:
			return aside, err
		}
	}
	return aside, nil
}

// set gives the name these addresses in one update, which the server makes whole or not at all: if
// the name is the driver's, or has no records. None removes the name.
func (d *Driver) set(ctx context.Context, name string, addrs []netip.Addr) error {
	_, known := d.have[name]
	for range 2 {
		code, err := d.update(ctx, name, addrs, known)
		switch {
		case err != nil:
			d.have = nil // the update may have been made, or be in flight
			return err
		case code == dns.RcodeSuccess:
		default:
			if err := d.holdsFence(ctx); err != nil {
				d.have = nil
				return err
			}
		}
		switch {
		case code != dns.RcodeSuccess && len(addrs) == 0: // it is not the driver's any more
			delete(d.have, name)
			return nil
		case code != dns.RcodeSuccess:
			known = !known // it was removed, or is the driver's from before
			continue
		case len(addrs) == 0:
			delete(d.have, name)
		default:
			d.have[name] = addrs
		}
		return nil
	}
	delete(d.have, name)
	return fmt.Errorf("name %s: it is there, without the mark of owner %q: %w", name, d.cfg.Owner,
		ErrForeign)
}

// update sends one update for a name that is the driver's already, or does not exist.
func (d *Driver) update(ctx context.Context, name string, addrs []netip.Addr, ours bool) (code int,
	err error) {
	m := new(dns.Msg).SetUpdate(d.cfg.Zone)
	header := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET,
			Ttl: uint32(d.cfg.TTL.Seconds())}
	}
	mark := func() dns.RR { return &dns.TXT{Hdr: header(dns.TypeTXT), Txt: []string{d.cfg.mark()}} }
	m.Used([]dns.RR{d.fenceRecord(d.fence)})
	if ours {
		m.Used([]dns.RR{mark()}) // which changes the header
	} else {
		m.NameNotUsed([]dns.RR{mark()})
	}
	m.RemoveRRset([]dns.RR{&dns.A{Hdr: header(dns.TypeA)}, &dns.AAAA{Hdr: header(dns.TypeAAAA)},
		mark()})
	if len(addrs) > 0 {
		records := []dns.RR{mark()}
		for _, addr := range addrs {
			if addr.Is4() {
				records = append(records, &dns.A{Hdr: header(dns.TypeA), A: addr.AsSlice()})
			} else {
				records = append(records, &dns.AAAA{Hdr: header(dns.TypeAAAA),
					AAAA: addr.AsSlice()})
			}
		}
		m.Insert(records)
	}
	answer, err := d.client.exchange(ctx, "update", m, dns.RcodeYXDomain, dns.RcodeNXRrset,
		dns.RcodeNameError)
	if err != nil {
		return 0, err
	}
	return answer.Rcode, nil
}
