package transform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
)

// servers maps the listens of every server to wildcard listens on the test ports.
func (t *transform) servers(http conf.Node) {
	written := writtenListens{map[string]*conf.Directive{}, map[string]*conf.Directive{}, map[string]string{}}
	for server := range http.Find("server") {
		if !server.IsBlock() {
			continue
		}
		if len(t.rules.AllowClients) > 0 {
			t.edit.Prepend(server.Directive, "if ($sluice_client = 0) {\n    return 403;\n}")
			t.changed(server.Directive, "clients", "answers 403 to clients outside of allowClients")
		}
		var order []*listenDirective
		listens := false
		for n := range server.Children() {
			if n.Name() != "listen" {
				continue
			}
			listens = true
			l, ok := t.listen(n)
			if !ok {
				continue
			}
			if i := slices.IndexFunc(order, func(o *listenDirective) bool { return o.address == l.address }); i >= 0 {
				first := order[i]
				first.merge(l)
				t.edit.Remove(n.Directive)
				t.changed(n.Directive, "listen", "becomes %s like line %d of the same server", l.address, first.at.Pos().Line)
				continue
			}
			order = append(order, l)
		}
		if !listens {
			to, ok := t.rules.Listen[80]
			if !ok {
				t.refuse(server.Directive, "server without listen, which means port 80: map it in the rules under listen")
				continue
			}
			t.edit.Prepend(server.Directive, fmt.Sprintf("listen %d;", to))
			t.changed(server.Directive, "listen", "production listens on port 80 by default")
		}
		for _, l := range order {
			t.writeListen(l, written)
		}
	}
}

// writtenListens is what is known of test addresses: the listen that is the default server, the one that has the socket options, and
// the reason that is given for its changes.
type writtenListens struct {
	defaults, options map[string]*conf.Directive
	reasons           map[string]string
}

type listenDirective struct {
	at      *conf.Directive
	address string // of the test Nginx: "8080", "[::]:8080" or "unix:…"
	flags   []string
}

func (l *listenDirective) merge(other *listenDirective) {
	for _, f := range other.flags {
		name, _, _ := strings.Cut(f, "=")
		if !slices.ContainsFunc(l.flags, func(have string) bool { return have == name || strings.HasPrefix(have, name+"=") }) {
			l.flags = append(l.flags, f)
		}
	}
}

func (t *transform) listen(n conf.Node) (*listenDirective, bool) {
	value := n.Arg(0)
	if n.NumArgs() == 0 {
		t.refuse(n.Directive, "invalid number of arguments in \"listen\" directive")
		return nil, false
	}
	l := &listenDirective{at: n.Directive, flags: n.Args()[1:]}
	if strings.HasPrefix(value, "unix:") {
		to, ok := t.mapped(value)
		if !ok {
			t.refuse(n.Directive, "listen %s: map the socket in the rules under paths", value)
			return nil, false
		}
		l.address = to
		return l, true
	}
	from, ok := listen.Parse(value)
	switch {
	case !ok:
		t.refuse(n.Directive, "listen %s: not an address with a port from 1 to 65535", value)
		return nil, false
	case from.First != from.Last:
		t.refuse(n.Directive, "listen %s: a range of ports; write a listen for each port", value)
		return nil, false
	}
	to, ok := t.rules.Listen[from.First]
	if !ok {
		t.refuse(n.Directive, "listen %s: port %d is not in the rules under listen", value, from.First)
		return nil, false
	}
	l.address = strconv.Itoa(to)
	if strings.HasPrefix(from.Host, "[") {
		l.address = "[::]:" + l.address
	}
	return l, true
}

// socketOptions may be given once for an address; bind asks for a socket of its own, which a wildcard has anyway.
var socketOptions = set(
	"accept_filter",
	"backlog",
	"deferred",
	"fastopen",
	"ipv6only",
	"rcvbuf",
	"reuseport",
	"setfib",
	"sndbuf",
	"so_keepalive",
)

func (t *transform) writeListen(l *listenDirective, written writtenListens) {
	flags := make([]string, 0, len(l.flags))
	for _, f := range l.flags {
		name, _, _ := strings.Cut(f, "=")
		switch {
		case name == "bind":
			continue
		case name == "default_server" || name == "default":
			if other := written.defaults[l.address]; other != nil && other != l.at {
				t.refuse(l.at, "listen %s: a second default server for %s after %s: production keeps them skip by address, the test Nginx cannot",
					l.at.Arg(0), l.address, other.Pos())
				return
			}
			written.defaults[l.address] = l.at
		case socketOptions[name]:
			if other := written.options[l.address]; other != nil && other != l.at {
				t.changed(l.at, "listen", "%s is left out: %s sets the socket options of %s", f, other.Pos(), l.address)
				continue
			}
			written.options[l.address] = l.at
		}
		flags = append(flags, f)
	}
	switch same := slices.Equal(flags, l.at.Args()[1:]); {
	case same && l.at.Arg(0) == l.address:
		return
	case same:
		t.edit.ReplaceArg(l.at, 0, l.address)
	default:
		t.edit.ReplaceArgs(l.at, append([]string{l.address}, flags...)...)
	}
	if written.reasons[l.address] == "" {
		written.reasons[l.address] = "the test Nginx listens on " + l.address + ", on all addresses: the VIP of a request is the address it came to"
	}
	t.note(l.at, "listen", written.reasons[l.address])
}
