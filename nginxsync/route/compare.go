package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// Kinds of a PairChange.
const (
	// Changed means that a request of the pair was followed through both trees and goes elsewhere.
	Changed = "changed"
	// Undecided means that directives of the pair differ and no request that was tried shows an
	// effect: a condition that no request could be made for, code, files.
	Undecided = "undecided"
)

// PairChange is one location of one or several hosts whose requests go elsewhere, or may.
type PairChange struct {
	Kind string `json:"kind"` // Changed or Undecided
	// Hosts are names of the servers as they are written; "default" for the hosts that no server
	// has. At most 10; HostCount is their number.
	Hosts     []string `json:"hosts"`
	HostCount int      `json:"hostCount"`
	// Listen are the ports, addresses with ports, or unix sockets.
	Listen []string `json:"listen"`
	// Location is the location as it is written, with those around it; "server" for the directives
	// of the server itself and the paths that no location has.
	Location string `json:"location"`
	// Request is the request that shows the change; empty in one that is Undecided.
	Request string `json:"request"`
	// The differing parts of a change: upstream, uri, headers (of the request to the upstream),
	// answer headers, status, redirect, file.
	What []string `json:"what"`
	// Reason is why one is Undecided.
	Reason string `json:"reason"`
	Old    Side   `json:"old"`
	New    Side   `json:"new"`
}

// Side is the end of a request in one of two trees.
type Side struct {
	// At is the file and the line: of the directive that answers, or, where only headers differ or
	// the pair is undecided, of the first directive that differs. Empty when the tree has none.
	At            string   `json:"at"`
	Upstream      string   `json:"upstream"`
	URI           string   `json:"uri"`
	Status        int      `json:"status"`
	Redirect      string   `json:"redirect"`
	File          string   `json:"file"`
	Headers       []string `json:"headers"`       // those that only this side has
	AnswerHeaders []string `json:"answerHeaders"` // the same
	// Error is why this side has no answer, such as that nothing listens.
	Error string `json:"error"`
}

// Comparison is the difference between two trees as requests meet it.
type Comparison struct {
	Pairs     int `json:"pairs"`     // of host and location that were compared
	Changed   int `json:"changed"`   // number of changes of that kind
	Undecided int `json:"undecided"` // number of changes of that kind
	// Changes are the first ones, at most the limit.
	Changes []PairChange `json:"changes"`
}

// Same reports whether no pair changes, and none may.
func (c *Comparison) Same() bool { return c.Changed+c.Undecided == 0 }

// Compare lists the pairs of host and location whose upstream, URI or headers differ between two
// trees. It keeps at most limit changes and counts the others; a limit of 0 is 1,000.
//
// A pair whose directives are the same on both sides, wherever they stand, is the same. For any
// other, requests are followed through both trees: the path of the location and one below it, with
// and without files, and with the values that differing conditions and maps ask for. Where they go
// is Changed; a difference that none of them meets is Undecided. The servers of an upstream, logs,
// limits and caches are not compared, nor stream and mail.
func Compare(old, new *conf.Tree, limit int) *Comparison {
	c := &comparer{sides: [2]*Router{NewRouter(old), NewRouter(new)},
		limit: cmp.Or(limit, 1000), result: &Comparison{}}
	for i, r := range c.sides {
		c.context[i] = contextOf(r)
	}
	for _, g := range c.groups() {
		c.group(g)
	}
	return c.result
}

type comparer struct {
	sides   [2]*Router
	context [2]string // digest of what every server has around it
	limit   int
	result  *Comparison
}

// member is one host on one socket.
type member struct {
	key    socketKey
	listen string
	tls    bool
	name   string // of the server, as it is written
	host   string // that a request has
}

// group is the members that one server of each tree serves.
type group struct {
	servers [2]conf.Node // the zero Node where nothing listens
	errs    [2]error
	members []member
}

// groups are the hosts of both trees by their servers, in the order of the new tree and then of
// the old one.
func (c *comparer) groups() []*group {
	var list []*group
	type pairKey struct{ old, new *conf.Directive }
	by := map[pairKey]*group{}
	type hostKey struct {
		socketKey
		host string
	}
	seen := map[hostKey]bool{}
	add := func(key socketKey, listen string, tls bool, name, host string) {
		if k := (hostKey{key, host}); seen[k] {
			return
		} else {
			seen[k] = true
		}
		g := &group{}
		for i, r := range c.sides {
			g.servers[i], g.errs[i] = r.serverOf(key, host)
		}
		k := pairKey{g.servers[0].Directive, g.servers[1].Directive}
		if k.old == nil && k.new == nil {
			return // undecided in both, or a host that cannot be
		}
		if by[k] == nil {
			by[k] = g
			list = append(list, g)
		}
		by[k].members = append(by[k].members, member{key, listen, tls, name, host})
	}
	for _, r := range []*Router{c.sides[1], c.sides[0]} {
		asked := map[socketKey]bool{}
		for _, l := range r.listens {
			for _, key := range l.keys() {
				tls := l.has("ssl") || key.port == 443
				for n := range l.server.Find("server_name") {
					for i := range n.NumArgs() {
						for _, host := range hostsOf(n.Arg(i)) {
							add(key, l.text(key), tls, n.Arg(i), host)
						}
					}
				}
				if !asked[key] {
					asked[key] = true
					add(key, l.text(key), tls, "default", "sluice-any.invalid")
				}
			}
		}
	}
	return list
}

// keys are the sockets of a listen: of a long range the first and the last.
func (l listenEntry) keys() []socketKey {
	if l.unix != "" {
		return []socketKey{{port: 80, name: l.unix}}
	}
	key := socketKey{port: l.at.First}
	switch {
	case !l.known:
		key.name = l.at.Host
	case l.addr.IsUnspecified() && l.addr.Is6():
		key.addr = anyIPv6
	case !l.addr.IsUnspecified():
		key.addr = l.addr
	}
	keys := []socketKey{key}
	if l.at.Last > l.at.First {
		key.port = l.at.Last
		keys = append(keys, key)
	}
	return keys
}

func (l listenEntry) text(key socketKey) string {
	switch {
	case l.unix != "":
		return l.unix
	case l.at.Host == "":
		return fmt.Sprint(key.port)
	}
	return fmt.Sprintf("%s:%d", l.at.Host, key.port)
}

// serverOf is the server of a host on a socket.
func (r *Router) serverOf(key socketKey, host string) (conf.Node, error) {
	s := r.socket(key)
	if s.err != nil {
		return conf.Node{}, s.err
	}
	w := r.walk(Request{})
	w.host = strings.ToLower(host)
	return w.byName(s)
}

// group compares how two servers handle the requests of the members.
func (c *comparer) group(g *group) {
	old, new := g.servers[0], g.servers[1]
	if old.Directive == nil || new.Directive == nil {
		c.oneSided(g)
		return
	}
	pairs := locationPairs(old, new)
	c.result.Pairs += len(pairs) * len(g.members)
	if c.context[0] == c.context[1] && digest(old, new) {
		return
	}
	p := newPairComparer(c, g)
	var of []PairChange
	for _, pair := range pairs[1:] {
		of = append(of, p.compare(pair)...)
	}
	for _, change := range p.compare(pairs[0]) {
		// Differences for every request are in the changes of the locations already.
		if change.Kind == Changed && !slices.ContainsFunc(of, change.like) ||
			change.Kind == Undecided && len(of) == 0 {
			of = append(of, change)
		}
	}
	for _, change := range of {
		c.add(change)
	}
}

// oneSided is one change for all locations of hosts that nothing listens for on one side.
func (c *comparer) oneSided(g *group) {
	c.result.Pairs += len(g.members)
	change := PairChange{Kind: Changed, Location: "server", What: []string{"listen"}}
	for i, side := range []*Side{&change.Old, &change.New} {
		if server := g.servers[i]; server.Directive != nil {
			side.At = at(server.Directive)
		} else if g.errs[i] != nil {
			side.Error = g.errs[i].Error()
		}
	}
	change.name(g.members)
	change.Request = g.members[0].url("/")
	c.add(change)
}

func (c *comparer) add(change PairChange) {
	if change.Kind == Changed {
		c.result.Changed++
	} else {
		c.result.Undecided++
	}
	if len(c.result.Changes) < c.limit {
		c.result.Changes = append(c.result.Changes, change)
	}
}

// name sets the hosts and listens of the change.
func (c *PairChange) name(members []member) {
	const shown = 10
	hosts := map[string]bool{}
	for _, m := range members {
		if !hosts[m.name] {
			hosts[m.name] = true
			if len(c.Hosts) < shown {
				c.Hosts = append(c.Hosts, m.name)
			}
		}
		if !slices.Contains(c.Listen, m.listen) && len(c.Listen) < shown {
			c.Listen = append(c.Listen, m.listen)
		}
	}
	c.HostCount = len(hosts)
}

func at(d *conf.Directive) string {
	pos := d.Pos()
	return fmt.Sprintf("%s:%d", pos.File, pos.Line)
}

// String is the side in one line, beginning with the place.
func (s Side) String() string {
	text := cmp.Or(s.At, "nowhere") + ":"
	if s.Upstream != "" {
		text += " " + s.Upstream + ", asked for " + s.URI
	}
	if s.Status != 0 {
		text += fmt.Sprintf(" %d", s.Status)
	}
	for _, more := range []string{s.Redirect, s.File, s.Error} {
		if more != "" {
			text += " " + more
		}
	}
	for _, h := range slices.Concat(s.Headers, s.AnswerHeaders) {
		text += "; " + h
	}
	return strings.TrimSuffix(text, ":")
}
