package route

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
)

type candidate struct {
	server conf.Node
	listen *conf.Directive // the one that matches; nil when the server has none and listens on 80
}

// listening are the servers of the address and the port.
func (w *walk) listening() ([]candidate, error) {
	var specific, any []candidate
	for server := range w.tree.Find("http", "server") {
		if !server.IsBlock() {
			continue
		}
		listens, mine, all := 0, (*conf.Directive)(nil), (*conf.Directive)(nil)
		for l := range server.Find("listen") {
			listens++
			at, ok := listen.Parse(l.Arg(0))
			if !ok || w.port < at.First || w.port > at.Last {
				continue
			}
			switch addr, known := at.Addr(); {
			case !known && w.req.Addr.IsValid():
				return nil, undecided(l.Directive, "listen %s: the addresses of the name", l.Arg(0))
			case !known: // w.req.Addr is one that no listen names
			case addr.IsUnspecified():
				all = first(all, l.Directive)
			case addr == w.req.Addr:
				mine = first(mine, l.Directive)
			}
		}
		switch {
		case mine != nil:
			specific = append(specific, candidate{server, mine})
		case all != nil:
			any = append(any, candidate{server, all})
		case listens == 0 && w.port == 80:
			any = append(any, candidate{server, nil})
		}
	}
	if len(specific) > 0 {
		any = specific // Nginx looks at the servers of the closest address only
	}
	if len(any) == 0 {
		return nil, &conf.Error{File: w.tree.Main.Name, Msg: "no server listens on port " + strconv.Itoa(w.port)}
	}
	return any, nil
}

// defaultServer is the one that says so, or the first.
func defaultServer(all []candidate) candidate {
	for _, c := range all {
		if c.listen != nil && (slices.Contains(c.listen.Args(), "default_server") || slices.Contains(c.listen.Args(), "default")) {
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

// byName is Nginx's order: the exact name, the longest wildcard at the beginning, the longest at the end, the first
// regular expression, the default server.
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
					if suffix := strings.TrimPrefix(name, "*"); strings.HasSuffix(w.host, suffix) && len(suffix) > len(headName) {
						head, headName = c.server, suffix
					}
				case strings.HasSuffix(name, ".*"):
					prefix := strings.TrimSuffix(name, "*")
					if strings.HasPrefix(w.host, prefix) && len(w.host) > len(prefix) && len(prefix) > len(tailName) {
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
		re, err := regexp.Compile("(?i)" + e.name.Arg(e.i)[1:])
		if err != nil {
			return conf.Node{}, undecided(e.name.Directive, "server_name %s: %v", e.name.Arg(e.i), err)
		}
		if w.match(re, w.host) {
			w.step(e.name.Directive, "server_name %s matches the host", e.name.Arg(e.i))
			return e.server, nil
		}
	}
	c := defaultServer(all)
	w.step(c.server.Directive, "no server_name matches: the default server of this port")
	return c.server, nil
}

// match keeps the captures of a match, as Nginx does for the rest of the request.
func (w *walk) match(re *regexp.Regexp, text string) bool {
	m := re.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	w.captures = m
	for i, name := range re.SubexpNames() {
		if name != "" {
			w.named[name] = m[i]
		}
	}
	return true
}
