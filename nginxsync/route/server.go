package route

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

type candidate struct {
	server conf.Node
	listen *conf.Directive // the one that matches; nil when the server has none and listens on 80
}

// listening are the servers of the address and the port. The sockets of the two families are apart:
// one of all IPv6 addresses takes IPv4 only with ipv6only=off.
func (w *walk) listening() ([]candidate, error) {
	var specific, any4, any6 []candidate
	elsewhere := ""
	for server := range w.tree.Find("http", "server") {
		if !server.IsBlock() {
			continue
		}
		listens, mine, all4, all6 := 0, (*conf.Directive)(nil), (*conf.Directive)(nil),
			(*conf.Directive)(nil)
		for l := range server.Find("listen") {
			listens++
			at, ok := listen.Parse(l.Arg(0))
			if !ok || w.port < at.First || w.port > at.Last || slices.Contains(l.Args(), "quic") {
				continue
			}
			addr, known := at.Addr()
			switch {
			case !known && w.req.Addr.IsValid():
				return nil, undecided(l.Directive, "listen %s: the addresses of the name", l.Arg(0))
			case !known: // w.req.Addr is one that no listen names
			case addr.IsUnspecified() && addr.Is4():
				all4 = first(all4, l.Directive)
			case addr.IsUnspecified():
				all6 = first(all6, l.Directive)
			case addr.Unmap() == w.req.Addr.Unmap():
				mine = first(mine, l.Directive)
			default:
				elsewhere = l.Arg(0)
			}
		}
		if mine != nil {
			specific = append(specific, candidate{server, mine})
		}
		if all4 != nil || listens == 0 && w.port == 80 {
			any4 = append(any4, candidate{server, all4})
		}
		if all6 != nil {
			any6 = append(any6, candidate{server, all6})
		}
	}
	if len(specific) > 0 {
		return specific, nil // Nginx looks at the servers of the closest address only
	}
	both := slices.ContainsFunc(any6, func(c candidate) bool {
		return slices.Contains(c.listen.Args(), "ipv6only=off")
	})
	six := w.req.Addr.Is6() && !w.req.Addr.Is4In6()
	switch {
	case six && len(any6) > 0:
		return any6, nil
	case !six && len(any4) > 0:
		return any4, nil
	case !six && len(any6) > 0 && (both || !w.req.Addr.IsValid()):
		return any6, nil
	}
	why := "no server listens on port " + strconv.Itoa(w.port)
	if elsewhere != "" {
		why += " of every address: say which address the request comes to, such as that of listen " + elsewhere
	}
	return nil, &conf.Error{File: w.tree.Main.Name, Msg: why}
}

// defaultServer returns the server whose listen has the parameter default_server, or its old form
// default, else the first.
func defaultServer(all []candidate) candidate {
	for _, c := range all {
		if c.listen != nil && (slices.Contains(c.listen.Args(), "default_server") ||
			slices.Contains(c.listen.Args(), "default")) {
			return c
		}
	}
	return all[0]
}

func first(a, b *conf.Directive) *conf.Directive {
	if a != nil {
		return a
	}
	return b
}

// byName is Nginx's order: the exact name, the longest wildcard at the beginning, the longest at
// the end, the first regular expression, the default server.
func (w *walk) byName(all []candidate) (conf.Node, error) {
	var head, tail conf.Node
	var headName, tailName string
	type expr struct {
		server conf.Node
		name   conf.Node
		i      int
	}
	var exprs []expr
	for _, c := range all {
		named := false
		for n := range c.server.Find("server_name") {
			for i := range n.NumArgs() {
				named = true
				name := strings.ToLower(n.Arg(i))
				switch {
				case strings.HasPrefix(name, "~"):
					exprs = append(exprs, expr{c.server, n, i})
				case name == w.host, name == "."+w.host:
					w.step(n.Directive, "server_name %s is the host", n.Arg(i))
					return c.server, nil
				case strings.HasPrefix(name, "*.") || strings.HasPrefix(name, "."):
					if suffix := strings.TrimPrefix(name, "*"); strings.HasSuffix(w.host, suffix) &&
						len(suffix) > len(headName) {
						head, headName = c.server, suffix
					}
				case strings.HasSuffix(name, ".*"):
					prefix := strings.TrimSuffix(name, "*")
					if strings.HasPrefix(w.host, prefix) && len(w.host) > len(prefix) &&
						len(prefix) > len(tailName) {
						tail, tailName = c.server, prefix
					}
				}
			}
		}
		if !named && w.host == "" {
			w.step(c.server.Directive, "server without a name, and the request has no host")
			return c.server, nil
		}
	}
	if head.Directive != nil {
		w.step(head.Directive, "server_name *%s matches the host", headName)
		return head, nil
	}
	if tail.Directive != nil {
		w.step(tail.Directive, "server_name %s* matches the host", tailName)
		return tail, nil
	}
	for _, e := range exprs {
		yes, err := w.match(e.name.Directive, e.name.Arg(e.i)[1:], true, w.host)
		if err != nil {
			return conf.Node{}, err
		}
		if yes {
			w.step(e.name.Directive, "server_name %s matches the host", e.name.Arg(e.i))
			return e.server, nil
		}
	}
	c := defaultServer(all)
	w.step(c.server.Directive, "no server_name matches: the default server of this port")
	return c.server, nil
}

// match matches by PCRE's rules and keeps the captures, as Nginx does for the rest of the request.
func (w *walk) match(d *conf.Directive, expr string, caseless bool, text string) (bool, error) {
	re, err := pcre.Compile(expr, caseless)
	if err != nil {
		return false, undecided(d, "%v", err)
	}
	groups, err := re.Match(text)
	if err != nil {
		return false, undecided(d, "expression %q: %v", expr, err)
	}
	if groups == nil {
		return false, nil
	}
	w.captures = groups
	for i, name := range re.Names() {
		w.named[strings.ToLower(name)] = groups[i]
	}
	return true, nil
}
