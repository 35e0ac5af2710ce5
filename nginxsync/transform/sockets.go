package transform

import (
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// sockets is which servers listen on which sockets of production, by the socket of the test Nginx
// that takes their place.
type sockets struct {
	order []*socket
	by    map[string]*socket
	all   []serverListen
}

// serverListen is a listen of a server.
type serverListen struct {
	server conf.Node
	listen *listenDirective
}

type socket struct {
	address string // of the test Nginx
	from    []*productionSocket
}

type productionSocket struct {
	address string
	first   *listenDirective
	servers []listening
}

type listening struct {
	server    conf.Node
	at        *conf.Directive
	byDefault bool
	tls       bool
}

func (s *sockets) add(server conf.Node, l *listenDirective) {
	if s.by == nil {
		s.by = map[string]*socket{}
	}
	s.all = append(s.all, serverListen{server, l})
	key := l.socket()
	if s.by[key] == nil {
		s.by[key] = &socket{address: l.address}
		s.order = append(s.order, s.by[key])
	}
	to := s.by[key]
	i := slices.IndexFunc(to.from, func(p *productionSocket) bool { return p.address == l.from })
	if i < 0 {
		i = len(to.from)
		to.from = append(to.from, &productionSocket{address: l.from, first: l})
	}
	to.from[i].servers = append(to.from[i].servers, listening{
		server: server, at: l.at, tls: slices.Contains(l.flags, "ssl"),
		byDefault: slices.Contains(l.flags, "default_server") ||
			slices.Contains(l.flags, "default"),
	})
}

// isDefault reports whether the rules make the server the default of an address. It is the first
// with the name.
func (s *sockets) isDefault(t *transform, address string, server conf.Node) bool {
	name := t.rules.DefaultServer[address]
	if name == "" || !slices.Contains(serverNames(server), foldName(name)) {
		return false
	}
	if t.defaultOf == nil {
		t.defaultOf = map[string]*conf.Directive{}
	}
	if t.defaultOf[address] == nil {
		t.defaultOf[address] = server.Directive
	}
	return t.defaultOf[address] == server.Directive
}

// serverNames are the names of a server as foldName has them, "" for none. ".x" stands for "x" and
// "*.x".
func serverNames(server conf.Node) []string {
	var names []string
	for n := range server.Children() {
		if n.Name() != "server_name" {
			continue
		}
		for _, name := range n.Args() {
			name = foldName(name)
			if rest, ok := strings.CutPrefix(name, "."); ok {
				names = append(names, rest, "*."+rest)
			} else {
				names = append(names, name)
			}
		}
	}
	if names == nil {
		return []string{""}
	}
	return names
}

// defaultServer is the server that answers hosts that no server of the socket has: one that says
// so, or the first.
func (p *productionSocket) defaultServer() listening {
	if i := slices.IndexFunc(p.servers, func(l listening) bool { return l.byDefault }); i >= 0 {
		return p.servers[i]
	}
	return p.servers[0]
}

func (p *productionSocket) tls() bool {
	return slices.ContainsFunc(p.servers, func(l listening) bool { return l.tls })
}

// merged refuses sockets of production that become one socket of the test Nginx and mean different
// things: a name that different servers have, another default server, TLS beside plain HTTP.
func (t *transform) merged(all *sockets) {
	const what = "give one of the addresses a port of its own in the rules under listenAt, or VIPs " +
		"of its own under vipsAt"
	for _, s := range slices.Concat(all.order, all.withinRanges()) {
		if t.rules.DefaultServer[s.address] != "" && t.defaultOf[s.address] == nil {
			t.refuse(s.from[0].servers[0].at, "the rules name %q under defaultServer for %s: no "+
				"server that listens there has the name", t.rules.DefaultServer[s.address],
				s.address)
		}
		if len(s.from) < 2 {
			continue
		}
		t.overlaps(s, what)
		first := s.from[0]
		type owner struct {
			listening
			address string
		}
		names := map[string]owner{}
		for _, p := range s.from {
			if p.tls() != first.tls() {
				t.refuse(p.servers[0].at, "listen %s: it and %s (%s) both become %s, and one of "+
					"them is TLS: %s",
					p.address, first.address, first.servers[0].at.Pos(), s.address, what)
				continue
			}
			if a, b := first.defaultServer(),
				p.defaultServer(); a.server.Directive != b.server.Directive &&
				t.rules.DefaultServer[s.address] == "" {
				t.refuse(b.at, "listen %s: it and %s both become %s, and unknown hosts go to "+
					"another server there (%s): %s, or name the default server under defaultServer",
					p.address, first.address, s.address, a.server.Pos(), what)
			}
			mine := map[string]bool{}
			for _, l := range p.servers {
				for _, name := range serverNames(l.server) {
					if name == "" || mine[name] {
						// without a name only the default counts; of two in one socket Nginx takes
						// the first
						continue
					}
					mine[name] = true
					other, taken := names[name]
					if !taken {
						names[name] = owner{l, p.address}
					} else if other.server.Directive != l.server.Directive {
						t.refuse(l.at, "listen %s: it and %s both become %s, and %s is another "+
							"server there (%s): %s",
							p.address, other.address, s.address, name, other.server.Pos(), what)
					}
				}
			}
		}
	}
}
