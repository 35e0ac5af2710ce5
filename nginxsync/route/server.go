package route

import (
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

type candidate struct {
	server conf.Node
	listen *conf.Directive // the one that matches; nil when the server has none and listens on 80
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

// tls reports whether the socket speaks TLS: where one listen of it does, all do.
func (s *socket) tls() bool {
	for _, c := range s.all {
		if c.listen != nil && slices.Contains(c.listen.Args(), "ssl") {
			return true
		}
		for n := range c.server.Find("ssl") { // before Nginx 1.25
			if n.Arg(0) == "on" {
				return true
			}
		}
	}
	return false
}

// byName is Nginx's order: the exact name, the longest wildcard at the beginning, the longest at
// the end, the first regular expression, the default server.
func (w *walk) byName(s *socket) (conf.Node, error) {
	if n, ok := s.exact[w.host]; ok {
		if n.text == "" && n.at == n.server.Directive {
			w.step(n.at, "server without a name, and the request has no host")
		} else {
			w.step(n.at, "server_name %s is the host", n.text)
		}
		return n.server, nil
	}
	if n, ok := s.wildcard(w.host); ok {
		w.step(n.at, "server_name %s matches the host", n.text)
		return n.server, nil
	}
	for _, e := range s.exprs {
		yes, err := w.match(e.at, e.expr, true, w.host)
		if err != nil {
			return conf.Node{}, err
		}
		if yes {
			w.step(e.at, "server_name %s matches the host", e.text)
			return e.server, nil
		}
	}
	c := s.fallback
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
