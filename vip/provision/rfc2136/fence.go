package rfc2136

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/miekg/dns"
)

// The driver's fence is a TXT record with a random value, at a name of the owner's. Each update
// demands that the record has the value that the driver gave it. An update that got no answer may
// reach the server much later: the driver gives the fence another value before it goes on, and the
// server refuses what is late. So it does with the updates of an earlier process of the owner.

// fenceLabel is above the names of all fences of a zone.
const fenceLabel = "_sluice"

func (d *Driver) fenceRecord(value string) dns.RR {
	return &dns.TXT{Txt: []string{value}, Hdr: dns.RR_Header{Name: d.cfg.fenceName(),
		Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(d.cfg.TTL.Seconds())}}
}

// takeFence gives the fence another value. When it returns nil, no update from before can be made
// any more.
func (d *Driver) takeFence(ctx context.Context) error {
	now, err := d.readFence(ctx)
	if err != nil {
		return err
	}
	value := rand.Text()
	if len(now) > 0 {
		if done, err := d.setFence(ctx, now, value); done || err != nil {
			return err
		}
	}
	// the answer to the question may have come from a wildcard
	if done, err := d.setFence(ctx, nil, value); done || err != nil {
		return err
	}
	return d.otherDriver()
}

// setFence gives the fence a value, and reports whether it has: if its records are from, or the
// name has none.
func (d *Driver) setFence(ctx context.Context, from []dns.RR, value string) (done bool, err error) {
	m := new(dns.Msg).SetUpdate(d.cfg.Zone)
	if len(from) > 0 {
		m.Used(from)
	} else {
		m.NameNotUsed([]dns.RR{d.fenceRecord("")})
	}
	m.RemoveRRset([]dns.RR{d.fenceRecord("")})
	m.Insert([]dns.RR{d.fenceRecord(value)})
	answer, err := d.client.exchange(ctx, "update", m, dns.RcodeYXDomain, dns.RcodeNXRrset)
	if err != nil || answer.Rcode != dns.RcodeSuccess {
		return false, err
	}
	d.fence = value
	return true, nil
}

// readFence returns the records of the fence.
func (d *Driver) readFence(ctx context.Context) ([]dns.RR, error) {
	m := new(dns.Msg).SetQuestion(d.cfg.fenceName(), dns.TypeTXT)
	answer, err := d.client.exchange(ctx, "query", m, dns.RcodeNameError)
	if err != nil {
		return nil, err
	}
	var found []dns.RR
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*dns.TXT); ok && dns.CanonicalName(txt.Hdr.Name) == d.cfg.fenceName() {
			found = append(found, txt)
		}
	}
	return found, nil
}

// holdsFence returns an error unless the fence has the value that the driver gave it.
func (d *Driver) holdsFence(ctx context.Context) error {
	found, err := d.readFence(ctx)
	if err != nil {
		return err
	}
	for _, rr := range found {
		if txt := rr.(*dns.TXT); len(found) == 1 && len(txt.Txt) == 1 && txt.Txt[0] == d.fence {
			return nil
		}
	}
	return d.otherDriver()
}

func (d *Driver) otherDriver() error {
	return fmt.Errorf("update zone %s at %s: another driver of owner %q changes its names, too: %w",
		d.cfg.Zone, d.cfg.Server, d.cfg.Owner, ErrFenced)
}
