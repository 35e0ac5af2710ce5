package route

import (
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

// Serves reports whether a server block names the host and listens on the port, on any address. A
// default server does not serve the hosts that it does not name. The host is in lower case, without
// a dot at the end. A regular expression that cannot be decided names nothing.
func (r *Router) Serves(host string, port int) bool {
	if host == "" || host == "_" {
		return false
	}
	s := r.servesOn(port)
	if _, ok := s.exact[host]; ok {
		return true
	}
	if _, ok := s.wildcard(host); ok {
		return true
	}
	return slices.ContainsFunc(s.exprs, func(e namedExpr) bool {
		re, err := pcre.Compile(e.expr, true)
		if err != nil {
			return false
		}
		groups, err := re.Match(host)
		return err == nil && groups != nil
	})
}

// servesOn has the names of all servers that listen on the port, as a socket of its own.
func (r *Router) servesOn(port int) *socket {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.everywhere[port]; s != nil {
		return s
	}
	s := &socket{exact: map[string]named{}, head: map[string]named{}, tail: map[string]named{}}
	listens := r.on(port)
	if len(listens) == 0 {
		return s // ports that clients make up are not kept
	}
	for _, l := range listens {
		s.addNames(l.server)
	}
	r.everywhere[port] = s
	return s
}

// Hosts are the names of the server blocks that listen on the port, as Nginx compares them: exact
// names, "*.x", ".x" and "x.*" in lower case, regular expressions with their "~" as they are
// written; sorted, each once. The names "" and "_", which no request has, are left out.
func (r *Router) Hosts(port int) (hosts []string) {
	for _, l := range r.on(port) {
		for n := range l.server.Find("server_name") {
			for i := range n.NumArgs() {
				name := n.Arg(i)
				if !strings.HasPrefix(name, "~") {
					name = strings.ToLower(name)
				}
				if name != "" && name != "_" {
					hosts = append(hosts, name)
				}
			}
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// Ports are the ports that a server block with a name listens on, sorted. A range of ports counts
// with its ends.
func (r *Router) Ports() (ports []int) {
	for _, l := range r.listens {
		if l.unix == "" {
			ports = append(ports, l.at.First, l.at.Last)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
