package transform

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
)

// maxVIPs is the most VIPs that may stand for one address: each is a listen of every server there,
// and Nginx compares a connection with one after the other.
const maxVIPs = 256

// vipsAt reports the errors in Rules.VIPsAt.
func (r Rules) vipsAt() (errs []error) {
	addresses := slices.Sorted(maps.Keys(r.VIPsAt))
	for i, address := range addresses {
		vips := r.VIPsAt[address]
		from, ok := listen.Parse(address)
		host, literal := from.Addr()
		switch {
		case !ok || from.Host != address || !literal || host.IsUnspecified():
			errs = append(errs, fmt.Errorf("rules: vipsAt %q: want an IP address without a port, "+
				"with brackets around IPv6", address))
			continue
		case !vips.IsValid() || vips != vips.Masked():
			errs = append(errs, fmt.Errorf("rules: vipsAt %q: %s, want a network such as "+
				"10.99.2.0/28", address, vips))
			continue
		case vips.Addr().Is4() != host.Is4():
			errs = append(errs, fmt.Errorf("rules: vipsAt %q: %s is of the other family", address,
				vips))
		case 1<<min(vips.Addr().BitLen()-vips.Bits(), 30) > maxVIPs:
			errs = append(errs, fmt.Errorf("rules: vipsAt %q: %s, want a network of at most %d "+
				"addresses", address, vips, maxVIPs))
		}
		for _, other := range addresses[:i] {
			if n := r.VIPsAt[other]; n.IsValid() && n != vips && n.Overlaps(vips) {
				errs = append(errs, fmt.Errorf("rules: vipsAt %q and %q: %s and %s have addresses "+
					"in common", other, address, n, vips))
			}
		}
	}
	return errs
}

// selected moves a listen whose address of production has VIPs of its own to these.
func (t *transform) selected(l *listenDirective, host string) {
	vips, ok := t.rules.VIPsAt[host]
	if !ok {
		return
	}
	l.vips, l.ports = vips, strings.TrimPrefix(l.address, "[::]:")
	l.address = vips.String() + ":" + l.ports
}

// values are the first arguments of the listens that take the place of one of production: one, or
// one for each VIP.
func (l *listenDirective) values() []string {
	if !l.vips.IsValid() {
		return []string{l.address}
	}
	var values []string
	for addr := l.vips.Addr(); l.vips.Contains(addr); addr = addr.Next() {
		host := addr.String()
		if addr.Is6() {
			host = "[" + host + "]"
		}
		values = append(values, host+":"+l.ports)
	}
	return values
}

// wildcards adds a server for the ports on which no server listens on all addresses. With it Nginx
// opens one socket for all VIPs, so that an address need not be there when it starts.
func (t *transform) wildcards(all *sockets) {
	var lines []string
	overQUIC := false
	for _, s := range all.order {
		l := s.from[0].first
		if !l.vips.IsValid() {
			continue
		}
		wildcard, flag := "", ""
		if l.vips.Addr().Is6() {
			wildcard = "[::]:"
		}
		if l.quic() {
			flag = " quic"
		}
		from, _ := listen.Parse(l.ports)
		for port := from.First; port <= from.Last; port++ {
			line := fmt.Sprintf("listen %s%d%s;", wildcard, port, flag)
			if !all.covers(wildcard, port, l.quic()) && !slices.Contains(lines, line) {
				lines = append(lines, line)
				overQUIC = overQUIC || l.quic()
			}
		}
	}
	if len(lines) == 0 {
		return
	}
	if overQUIC { // which wants a certificate or this
		lines = append(lines, "ssl_reject_handshake on;")
	}
	fmt.Fprintf(&t.extra,
		"# Any other VIP stands for no address of production.\nserver {\n    %s\n"+
			"    default_type text/plain;\n    set $sluice_reason no-address;\n    return 404 "+
			"\"Production listens on no address that $server_addr stands for.\\n\";\n}\n",
		strings.Join(lines, "\n    "))
}

// covers reports whether a server listens on the port on all addresses.
func (s *sockets) covers(wildcard string, port int, quic bool) bool {
	return slices.ContainsFunc(s.order, func(o *socket) bool {
		l := o.from[0].first
		ports, found := strings.CutPrefix(l.address, wildcard)
		if l.vips.IsValid() || !found || l.quic() != quic {
			return false
		}
		a, ok := listen.Parse(ports)
		return ok && a.Host == "" && a.First <= port && port <= a.Last
	})
}
