package transform

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
)

// servers maps the listens of every server to wildcard listens on the test ports.
func (t *transform) servers(http conf.Node) {
	written := writtenListens{map[string]*conf.Directive{}, map[string]*conf.Directive{},
		map[string]string{}}
	var all sockets
	captures := t.inheritsCaptures()
	for server := range http.Find("server") {
		if !server.IsBlock() {
			continue
		}
		t.enter(server, captures)
		var order []*listenDirective
		var left []conf.Node // out
		listens := false
		for n := range server.Children() {
			if n.Name() != "listen" {
				continue
			}
			listens = true
			l, ok := t.listen(n)
			switch {
			case !ok:
				continue
			case l == nil:
				left = append(left, n)
				continue
			}
			all.add(server, l)
			if i := slices.IndexFunc(order, func(o *listenDirective) bool {
				return o.address == l.address && o.quic() == l.quic()
			}); i >= 0 {
				first := order[i]
				first.merge(l)
				t.edit.Remove(n.Directive)
				t.changed(n.Directive, "listen", "becomes %s like line %d of the same server",
					l.address, first.at.Pos().Line)
				continue
			}
			order = append(order, l)
		}
		if !listens {
			to, ok := t.rules.Listen[80]
			if !ok {
				t.refuse(server.Directive, "server without listen, which means port 80: map it "+
					"in the rules under listen")
				continue
			}
			all.add(server, &listenDirective{at: server.Directive, address: strconv.Itoa(to),
				from: ":80"})
			flag := ""
			if all.isDefault(t, strconv.Itoa(to), server) {
				flag = " default_server"
			}
			t.edit.Prepend(server.Directive, fmt.Sprintf("listen %d%s;", to, flag))
			t.changed(server.Directive, "listen", "production listens on port 80 by default")
		}
		for _, n := range left {
			if len(order) == 0 {
				t.refuse(n.Directive, "listen %s: the rules leave it out, and without any listen "+
					"Nginx would take port 80", n.Arg(0))
				continue
			}
			t.edit.Remove(n.Directive)
			t.changed(n.Directive, "listen", "%s is left out", n.Arg(0))
		}
		for _, l := range order {
			if name := t.rules.DefaultServer[l.address]; name != "" {
				l.flags = slices.DeleteFunc(l.flags, func(f string) bool {
					return f == "default_server" || f == "default"
				})
				if all.isDefault(t, l.address, server) {
					l.flags = append([]string{"default_server"}, l.flags...)
				}
			}
			t.writeListen(l, written)
		}
	}
	t.merged(&all)
	t.wildcards(&all)
	t.certificates(&all)
}

// writtenListens holds, by test socket, the listen that is the default server, the one that has the
// socket options, and the reason that is given for its changes.
type writtenListens struct {
	defaults, options map[string]*conf.Directive
	reasons           map[string]string
}

type listenDirective struct {
	at *conf.Directive
	// of the test Nginx: "8080", "8080-8082", "[::]:8080", "10.99.2.0/28:8080" or "unix:…"
	address string
	from    string // of production: host, ":" and ports, or "unix:…"
	flags   []string
	vips    netip.Prefix // that stand for the address of production; not valid when all do
	ports   string       // of the test Nginx, when vips is valid
}

// quic reports whether the socket is one of UDP.
func (l *listenDirective) quic() bool {
	return slices.Contains(l.flags, "quic") || slices.Contains(l.flags, "http3")
}

// socket returns the key by which Nginx distinguishes sockets.
func (l *listenDirective) socket() string {
	if l.quic() {
		return l.address + " quic"
	}
	return l.address
}

func (l *listenDirective) merge(other *listenDirective) {
	for _, f := range other.flags {
		name, _, _ := strings.Cut(f, "=")
		if !slices.ContainsFunc(l.flags, func(have string) bool {
			return have == name || strings.HasPrefix(have, name+"=")
		}) {
			l.flags = append(l.flags, f)
		}
	}
}

// listen reads a listen directive. It returns nil and true for one that the rules leave out.
func (t *transform) listen(n conf.Node) (*listenDirective, bool) {
	value := n.Arg(0)
	if n.NumArgs() == 0 {
		t.refuse(n.Directive, "invalid number of arguments in \"listen\" directive")
		return nil, false
	}
	l := &listenDirective{at: n.Directive, from: value, flags: n.Args()[1:]}
	if i := slices.Index(l.flags, "proxy_protocol"); i >= 0 && !t.rules.KeepProxyProtocol {
		l.flags = slices.Delete(l.flags, i, i+1)
		t.changed(n.Directive, "listen", "proxy_protocol is left out: no browser speaks it; "+
			"keepProxyProtocol in the rules keeps it")
	}
	if strings.HasPrefix(value, "unix:") {
		to, ok := t.mapped(value)
		switch {
		case !ok:
			t.refuse(n.Directive, "listen %s: map the socket in the rules under paths, or to "+
				"\"off\" to leave it out", value)
			return nil, false
		case to == "off":
			return nil, true
		}
		l.address = to
		return l, true
	}
	from, ok := listen.Parse(value)
	if !ok {
		t.refuse(n.Directive, "listen %s: not an address with a port from 1 to 65535", value)
		return nil, false
	}
	ports := strconv.Itoa(from.First)
	if from.First != from.Last {
		ports += "-" + strconv.Itoa(from.Last)
	}
	l.from = from.Host + ":" + ports
	first, ok := t.port(n, value, l.from, from.First)
	if !ok {
		return nil, false
	}
	l.address = strconv.Itoa(first)
	if from.First != from.Last {
		for p := from.First + 1; p <= from.Last; p++ {
			to, ok := t.port(n, value, from.Host+":"+strconv.Itoa(p), p)
			if !ok {
				return nil, false
			}
			if to != first+p-from.First {
				t.refuse(n.Directive, "listen %s: the rules map port %d to %d and port %d to %d: "+
					"want a range of the same length", value, from.First, first, p, to)
				return nil, false
			}
		}
		l.address += "-" + strconv.Itoa(first+from.Last-from.First)
	}
	if strings.HasPrefix(from.Host, "[") {
		l.address = "[::]:" + l.address
	}
	t.selected(l, from.Host)
	return l, true
}

// port returns the test port that the rules give for a port of production; rules by address come
// first.
func (t *transform) port(n conf.Node, value, address string, port int) (int, bool) {
	if to, ok := t.listenAt[address]; ok {
		return to, true
	}
	to, ok := t.rules.Listen[port]
	if !ok {
		t.refuse(n.Directive, "listen %s: port %d is not in the rules under listen", value, port)
	}
	return to, ok
}

// socketOptions may be given once for an address; bind asks for a socket of its own, which a
// wildcard has anyway.
var socketOptions = set(
	"accept_filter",
	"backlog",
	"deferred",
	"fastopen",
	"ipv6only",
	"multipath",
	"rcvbuf",
	"reuseport",
	"setfib",
	"sndbuf",
	"so_keepalive",
)

func (t *transform) writeListen(l *listenDirective, written writtenListens) {
	flags := make([]string, 0, len(l.flags))
	socket := l.socket()
	for _, f := range l.flags {
		name, _, _ := strings.Cut(f, "=")
		switch {
		case name == "bind":
			continue
		case socketOptions[name] && l.vips.IsValid():
			t.changed(l.at, "listen", "%s is left out: one socket has all VIPs of %s", f, l.address)
			continue
		case name == "default_server" || name == "default":
			if other := written.defaults[socket]; other != nil && other != l.at {
				t.refuse(l.at, "listen %s: a second default server for %s after %s: production "+
					"keeps them apart by address; give one of the addresses a port of its own "+
					"under listenAt, or name the default under defaultServer",
					l.at.Arg(0), l.address, other.Pos())
				return
			}
			written.defaults[socket] = l.at
		case socketOptions[name]:
			if other := written.options[socket]; other != nil && other != l.at {
				t.changed(l.at, "listen", "%s is left out: %s sets the socket options of %s", f,
					other.Pos(), l.address)
				continue
			}
			written.options[socket] = l.at
		}
		flags = append(flags, f)
	}
	values := l.values()
	switch same := slices.Equal(flags, l.at.Args()[1:]); {
	case same && l.at.Arg(0) == values[0] && len(values) == 1:
		return
	case same:
		t.edit.ReplaceArg(l.at, 0, values[0])
	default:
		t.edit.ReplaceArgs(l.at, append([]string{values[0]}, flags...)...)
	}
	var more strings.Builder
	for _, value := range values[1:] {
		fmt.Fprintf(&more, "\nlisten %s;", strings.Join(append([]string{value}, flags...), " "))
	}
	if more.Len() > 0 {
		t.edit.InsertAfter(l.at, more.String()[1:])
	}
	if written.reasons[l.address] == "" && l.vips.IsValid() {
		written.reasons[l.address] = fmt.Sprintf("the VIPs of %s stand for this address, on %s",
			l.vips, l.ports)
	}
	if written.reasons[l.address] == "" {
		written.reasons[l.address] = "the test Nginx listens on " + l.address +
			", on all addresses: the VIP of a request is the address it came to"
	}
	t.note(l.at, "listen", written.reasons[l.address])
}
