package rfc2136

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// fudge is by how much the time of a signature may differ from the server's clock (RFC 8945,
// section 10, recommends it): an update that arrives later is refused.
const fudge = 300 * time.Second

// client talks to the server.
type client struct{ cfg Config }

// exchange sends one signed request over TCP, and returns the answer when its code is good or one
// of codes.
func (c *client) exchange(ctx context.Context, op string, m *dns.Msg, codes ...int) (_ *dns.Msg,
	err error) {
	if c.cfg.Observe != nil {
		start := c.cfg.Now()
		defer func() { c.cfg.Observe(op, c.cfg.Now().Sub(start), err) }()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, fmt.Errorf("no answer within %s",
		c.cfg.Timeout))
	defer cancel()
	c.sign(m)
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.fault(ctx, op, err)
	}
	defer c.closeWith(ctx, conn)()
	var answer *dns.Msg
	if err = conn.WriteMsg(m); err == nil {
		answer, err = conn.ReadMsg()
	}
	switch {
	case answer != nil && answer.Rcode == dns.RcodeNotAuth:
		// which has no good signature when it is about that
		return nil, c.refusal(op, answer)
	case err != nil:
		return nil, c.fault(ctx, op, err)
	case answer.Id != m.Id || answer.IsTsig() == nil:
		return nil, fmt.Errorf("%s zone %s at %s: the answer is not signed: %w", op, c.cfg.Zone,
			c.cfg.Server, ErrTSIG)
	case answer.Rcode == dns.RcodeSuccess || slices.Contains(codes, answer.Rcode):
		return answer, nil
	}
	return nil, c.refusal(op, answer)
}

func (c *client) sign(m *dns.Msg) {
	m.SetTsig(c.cfg.Key.Name, c.cfg.Key.Algorithm, uint16(fudge.Seconds()),
		c.cfg.Now().Unix())
}

func (c *client) dial(ctx context.Context) (*dns.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.cfg.Server)
	if err != nil {
		return nil, err
	}
	return &dns.Conn{Conn: conn, TsigSecret: map[string]string{c.cfg.Key.Name: c.cfg.Key.Secret}},
		nil
}

// closeWith closes conn when ctx is done, or the returned function is called.
func (c *client) closeWith(ctx context.Context, conn *dns.Conn) func() {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return func() {
		stop()
		_ = conn.Close() // twice is harmless
	}
}

// badSignatures are the library's words for an answer that is not signed as it should be: ErrAuth
// stands for an answer that refuses the signature of the request.
var badSignatures = []error{dns.ErrAuth, dns.ErrSig, dns.ErrTime, dns.ErrSecret, dns.ErrNoSig}

// fault is an error of the network, or of the signature of an answer.
func (c *client) fault(ctx context.Context, op string, err error) error {
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case slices.ContainsFunc(badSignatures, func(bad error) bool { return errors.Is(err, bad) }):
		err = fmt.Errorf("%w: %w", err, ErrTSIG)
	}
	return fmt.Errorf("%s zone %s at %s with key %s: %w", op, c.cfg.Zone, c.cfg.Server,
		c.cfg.Key.Name, err)
}

// refusal is an answer that says no.
func (c *client) refusal(op string, answer *dns.Msg) error {
	kind, what := ErrServer, dns.RcodeToString[answer.Rcode]
	switch answer.Rcode {
	case dns.RcodeRefused, dns.RcodeNotZone, dns.RcodeNotImplemented:
		kind = ErrRefused
	case dns.RcodeNotAuth:
		kind = ErrRefused
		if t := answer.IsTsig(); t != nil && t.Error != dns.RcodeSuccess {
			kind, what = ErrTSIG, what+", "+dns.RcodeToString[int(t.Error)]
			if t.Error == dns.RcodeBadSig { // 16, which is also BADVERS
				what = "NOTAUTH, BADSIG"
			}
		}
	}
	return fmt.Errorf("%s zone %s at %s with key %s: %s: %w", op, c.cfg.Zone, c.cfg.Server,
		c.cfg.Key.Name, what, kind)
}

// transfer reads the zone, and returns the addresses of each name that has the driver's mark.
func (c *client) transfer(ctx context.Context) (ours map[string][]netip.Addr, err error) {
	if c.cfg.Observe != nil {
		start := c.cfg.Now()
		defer func() { c.cfg.Observe("transfer", c.cfg.Now().Sub(start), err) }()
	}
	// a large zone takes longer than one exchange
	ctx, cancel := context.WithTimeoutCause(ctx, 10*c.cfg.Timeout, fmt.Errorf("no zone within %s",
		10*c.cfg.Timeout))
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, c.fault(ctx, "transfer", err)
	}
	defer c.closeWith(ctx, conn)()
	m := new(dns.Msg).SetAxfr(c.cfg.Zone)
	c.sign(m)
	t := &dns.Transfer{Conn: conn, TsigSecret: conn.TsigSecret, ReadTimeout: 10 * c.cfg.Timeout}
	parts, err := t.In(m, c.cfg.Server)
	if err != nil {
		return nil, c.fault(ctx, "transfer", err)
	}
	addrs, marked := map[string][]netip.Addr{}, map[string]bool{}
	for part := range parts {
		if part.Error != nil {
			err = errors.Join(err, part.Error)
		}
		for _, rr := range part.RR {
			c.note(rr, addrs, marked)
		}
	}
	if err != nil {
		return nil, c.transferFault(ctx, err)
	}
	for name := range addrs {
		if !marked[name] {
			delete(addrs, name)
		}
	}
	for name := range marked {
		if addrs[name] == nil {
			addrs[name] = []netip.Addr{} // the mark is left alone
		}
	}
	return addrs, nil
}

// transferFault gives an error of a transfer its kind: the signature was good a moment ago.
func (c *client) transferFault(ctx context.Context, err error) error {
	if e := (*dns.Error)(nil); ctx.Err() == nil && errors.As(err, &e) {
		return fmt.Errorf("transfer zone %s at %s with key %s: %w: allow-transfer has to have "+
			"the key: %w",
			c.cfg.Zone, c.cfg.Server, c.cfg.Key.Name, err, ErrRefused)
	}
	return c.fault(ctx, "transfer", err)
}

// note notes the contents of one record of the zone for the driver's names.
func (c *client) note(rr dns.RR, addrs map[string][]netip.Addr, marked map[string]bool) {
	name := dns.CanonicalName(rr.Header().Name)
	switch rr := rr.(type) {
	case *dns.TXT:
		if len(rr.Txt) == 1 && rr.Txt[0] == c.cfg.mark() {
			marked[name] = true
		}
	case *dns.A:
		if addr, ok := netip.AddrFromSlice(rr.A.To4()); ok {
			addrs[name] = append(addrs[name], addr)
		}
	case *dns.AAAA:
		if addr, ok := netip.AddrFromSlice(rr.AAAA.To16()); ok {
			addrs[name] = append(addrs[name], addr)
		}
	}
}
