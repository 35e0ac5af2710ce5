package transform

import (
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

// foldName is a server name as Nginx compares it: in lower case, unless it is an expression.
func foldName(name string) string {
	if strings.HasPrefix(name, "~") {
		return name
	}
	return strings.ToLower(name)
}

// The kinds of server names, in the order in which Nginx prefers them.
const (
	exactName = iota
	headName  // "*.example.com"
	tailName  // "www.*"
	exprName  // "~^www\d"
)

func nameKind(name string) int {
	switch {
	case strings.HasPrefix(name, "~"):
		return exprName
	case strings.HasPrefix(name, "*."):
		return headName
	case strings.HasSuffix(name, ".*"):
		return tailName
	}
	return exactName
}

// takes reports whether a server with the name may answer a host that one with another name would
// answer if they were alone. Two expressions are taken to have a host in common. Equal names do not
// count.
func takes(name, from string) bool {
	if name == from || name == "" || from == "" || nameKind(name) > nameKind(from) {
		return false
	}
	switch kind := nameKind(from); {
	case kind == exactName:
		return false // another one
	case nameKind(name) == exactName && kind == headName:
		return len(name) >= len(from) && strings.HasSuffix(name, from[1:])
	case nameKind(name) == exactName && kind == tailName:
		return len(name) >= len(from) && strings.HasPrefix(name, from[:len(from)-1])
	case nameKind(name) == exactName:
		re, err := pcre.Compile(from[1:], true)
		if err != nil {
			return true
		}
		groups, err := re.Match(name)
		return err != nil || groups != nil
	case nameKind(name) == headName && kind == headName:
		return strings.HasSuffix(name, from[1:])
	case nameKind(name) == tailName && kind == tailName:
		return strings.HasPrefix(name, from[:len(from)-1])
	}
	return true
}

// overlaps refuses a server whose name takes hosts, on the socket that the test Nginx has for
// several of production's, from a server that answers them on one of these alone.
func (t *transform) overlaps(s *socket, advice string) {
	type taken struct {
		server conf.Node
		name   string
	}
	for _, p := range s.from {
		mine := map[*conf.Directive]bool{}
		var patterns []taken // an exact name is taken by an equal one only
		for _, l := range p.servers {
			if mine[l.server.Directive] {
				continue
			}
			mine[l.server.Directive] = true
			for _, name := range serverNames(l.server) {
				if nameKind(name) != exactName {
					patterns = append(patterns, taken{l.server, name})
				}
			}
		}
		if patterns == nil {
			continue
		}
		for _, q := range s.from {
			for _, other := range q.servers {
				if mine[other.server.Directive] {
					continue
				}
				for _, name := range serverNames(other.server) {
					i := slices.IndexFunc(patterns, func(p taken) bool {
						return takes(name, p.name)
					})
					if i >= 0 {
						t.refuse(other.at, "listen %s: it and %s both become %s, and %s would "+
							"take hosts of %s there (%s): %s", q.address, p.address, s.address,
							name, patterns[i].name, patterns[i].server.Pos(), advice)
					}
				}
			}
		}
	}
}
