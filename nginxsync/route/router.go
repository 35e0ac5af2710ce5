package route

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
)

// Router explains many requests to one tree. It reads the names of servers, the variables and the
// settings of the http context once, so that a request takes as long in a tree of thousands of
// servers as in a small one. It is safe for concurrent use.
type Router struct {
	tree    *conf.Tree
	listens []listenEntry // in Nginx's order
	byPort  map[int][]int // into listens, without ranges
	ranges  []int         // into listens
	http    conf.Node     // the zero Node when the tree has none
	general map[string][]ordered
	maps    map[string]conf.Node // map, geo and split_clients by variable, in lower case
	names   map[string]string    // of upstreams as they are written, by the name in lower case
	codes   map[string]conf.Node // js_set, perl_set and the like of the http context by variable

	setNames func() map[string]bool // variables that a set has anywhere, in lower case

	mu         sync.Mutex
	sockets    map[socketKey]*socket
	everywhere map[int]*socket // by port, of all addresses
}

// ordered is a directive of the http context with its place among all of them.
type ordered struct {
	at   int
	node conf.Node
}

// listenEntry is one listen of one server.
type listenEntry struct {
	server conf.Node
	listen *conf.Directive // nil when the server has none, and listens on port 80
	at     listen.Address
	unix   string // "unix:" and the path; empty for addresses
	addr   netip.Addr
	known  bool // addr is the address; false for a name
}

// has reports whether a parameter of the listen is there.
func (l listenEntry) has(flag string) bool {
	return l.listen != nil && slices.Contains(l.listen.Args(), flag)
}

// NewRouter prepares a tree.
func NewRouter(tree *conf.Tree) *Router {
	r := &Router{tree: tree, byPort: map[int][]int{}, general: map[string][]ordered{},
		maps: map[string]conf.Node{}, codes: map[string]conf.Node{}, names: map[string]string{},
		sockets: map[socketKey]*socket{}, everywhere: map[int]*socket{}}
	r.setNames = sync.OnceValue(r.findSets)
	for n := range tree.Find("http") {
		r.http = n
		break
	}
	at := 0
	if r.http.Directive == nil {
		return r
	}
	for n := range r.http.Children() {
		at++
		switch n.Name() {
		case "server":
			if n.IsBlock() {
				r.addServer(n)
			}
		case "upstream":
			r.names[strings.ToLower(n.Arg(0))] = n.Arg(0)
		case "map", "split_clients":
			r.maps[variableName(n.Arg(1))] = n
		case "geo":
			r.maps[variableName(n.Arg(n.NumArgs()-1))] = n
		case "js_set", "perl_set":
			r.codes[variableName(n.Arg(0))] = n
		default:
			r.general[n.Name()] = append(r.general[n.Name()], ordered{at, n})
		}
	}
	return r
}

func variableName(text string) string { return strings.ToLower(strings.TrimPrefix(text, "$")) }

func (r *Router) addServer(server conf.Node) {
	any := false
	for l := range server.Find("listen") {
		any = true
		entry := listenEntry{server: server, listen: l.Directive}
		if strings.HasPrefix(l.Arg(0), "unix:") {
			entry.unix = l.Arg(0)
			r.listens = append(r.listens, entry)
			continue
		}
		at, ok := listen.Parse(l.Arg(0))
		if !ok || entry.has("quic") {
			continue // a UDP socket has the servers of the TCP one beside it
		}
		entry.at = at
		entry.addr, entry.known = at.Addr()
		r.add(entry)
	}
	if !any {
		r.add(listenEntry{server: server, at: listen.Address{First: 80, Last: 80},
			addr: netip.IPv4Unspecified(), known: true})
	}
}

func (r *Router) add(entry listenEntry) {
	i := len(r.listens)
	r.listens = append(r.listens, entry)
	if entry.at.First == entry.at.Last {
		r.byPort[entry.at.First] = append(r.byPort[entry.at.First], i)
	} else {
		r.ranges = append(r.ranges, i)
	}
}

// on are the listens of a port in Nginx's order.
func (r *Router) on(port int) []listenEntry {
	list := slices.Clone(r.byPort[port])
	for _, i := range r.ranges {
		if r.listens[i].at.First <= port && port <= r.listens[i].at.Last {
			list = append(list, i)
		}
	}
	slices.Sort(list)
	entries := make([]listenEntry, len(list))
	for i, at := range list {
		entries[i] = r.listens[at]
	}
	return entries
}

func (r *Router) findSets() map[string]bool {
	names := map[string]bool{}
	for n := range r.tree.All() {
		if n.Name() == "set" && len(n.Parents) > 0 && n.Parents[0].Name() == "http" {
			names[variableName(n.Arg(0))] = true
		}
	}
	return names
}

// settings are the directives of the names that the http context itself has, in its order.
func (r *Router) settings(names ...string) []conf.Node {
	var found []ordered
	for _, name := range names {
		found = append(found, r.general[name]...)
	}
	slices.SortFunc(found, func(a, b ordered) int { return a.at - b.at })
	nodes := make([]conf.Node, len(found))
	for i, f := range found {
		nodes[i] = f.node
	}
	return nodes
}

// socketKey is a port and the address that a request comes to; the zero Addr is an IPv4 address
// that no listen names. In place of both a key may have the path of a unix socket, or the name that
// a listen has for an address.
type socketKey struct {
	port int
	addr netip.Addr
	name string
}

// socket is the servers that one socket leads to, by their names.
type socket struct {
	all   []candidate
	exact map[string]named
	head  map[string]named // by ".x.y" of "*.x.y"
	tail  map[string]named // by "www." of "www.*"
	exprs []namedExpr
	err   error

	fallback     candidate // the default server
	keepsSlashes bool      // merge_slashes is off in it
}

type named struct {
	server conf.Node
	at     *conf.Directive // the server_name; the server for one that has none
	text   string          // the name as it is written
}

type namedExpr struct {
	named
	expr string
}

// socket returns the servers of a key, or the error that Explain returns for it.
func (r *Router) socket(key socketKey) *socket {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sockets[key]; s != nil {
		return s
	}
	s := &socket{exact: map[string]named{}, head: map[string]named{}, tail: map[string]named{}}
	s.all, s.err = r.listening(key)
	for _, c := range s.all {
		s.addNames(c.server)
	}
	if s.all != nil {
		s.fallback = defaultServer(s.all)
		s.keepsSlashes = r.walk(Request{}).off(s.fallback.server, "merge_slashes")
	}
	r.sockets[key] = s
	return s
}

// addNames adds the names of a server. The first server that has a name keeps it.
func (s *socket) addNames(server conf.Node) {
	any := false
	put := func(m map[string]named, key string, n named) {
		if _, taken := m[key]; !taken {
			m[key] = n
		}
	}
	for n := range server.Find("server_name") {
		for i := range n.NumArgs() {
			any = true
			it := named{server: server, at: n.Directive, text: n.Arg(i)}
			name := strings.ToLower(it.text)
			switch {
			case strings.HasPrefix(name, "~"):
				s.exprs = append(s.exprs, namedExpr{it, it.text[1:]})
			case strings.HasPrefix(name, "."):
				put(s.exact, name[1:], it)
				put(s.head, name, it)
			case strings.HasPrefix(name, "*."):
				put(s.head, name[1:], it)
			case strings.HasSuffix(name, ".*"):
				put(s.tail, strings.TrimSuffix(name, "*"), it)
			default:
				put(s.exact, name, it)
			}
		}
	}
	if !any {
		put(s.exact, "", named{server: server, at: server.Directive})
	}
}

// wildcard returns the longest name that has the host below it, or that the host continues.
func (s *socket) wildcard(host string) (n named, ok bool) {
	for i := range len(host) {
		if i > 0 && host[i] == '.' {
			if n, ok := s.head[host[i:]]; ok {
				return n, true
			}
		}
	}
	for i := len(host) - 2; i > 0; i-- {
		if host[i] == '.' {
			if n, ok := s.tail[host[:i+1]]; ok {
				return n, true
			}
		}
	}
	return named{}, false
}

// listening are the servers of the address and the port. The sockets of the two families are apart:
// one of all IPv6 addresses takes IPv4 only with ipv6only=off.
func (r *Router) listening(key socketKey) ([]candidate, error) {
	if key.name != "" {
		return r.listeningByName(key)
	}
	var specific, any4, any6 []candidate
	elsewhere := ""
	add := func(to *[]candidate, l listenEntry) {
		if n := len(*to); n == 0 || (*to)[n-1].server.Directive != l.server.Directive {
			*to = append(*to, candidate{l.server, l.listen})
		}
	}
	for _, l := range r.on(key.port) {
		switch {
		case !l.known && key.addr.IsValid():
			return nil, undecided(l.listen, "listen %s: the addresses of the name", l.listen.Arg(0))
		case !l.known: // key.addr is one that no listen names
		case l.addr.IsUnspecified() && l.addr.Is4():
			add(&any4, l)
		case l.addr.IsUnspecified():
			add(&any6, l)
		case l.addr.Unmap() == key.addr.Unmap():
			add(&specific, l)
		default:
			elsewhere = l.listen.Arg(0)
		}
	}
	if len(specific) > 0 {
		return specific, nil // Nginx looks at the servers of the closest address only
	}
	both := slices.ContainsFunc(any6, func(c candidate) bool {
		return slices.Contains(c.listen.Args(), "ipv6only=off")
	})
	six := key.addr.Is6() && !key.addr.Is4In6()
	switch {
	case six && len(any6) > 0:
		return any6, nil
	case !six && len(any4) > 0:
		return any4, nil
	case !six && len(any6) > 0 && (both || !key.addr.IsValid()):
		return any6, nil
	}
	why := "no server listens on port " + strconv.Itoa(key.port)
	if elsewhere != "" {
		why += " of every address: say which address the request comes to, such as that of listen " +
			elsewhere
	}
	return nil, &conf.Error{File: r.tree.Main.Name, Msg: why}
}

// listeningByName are the servers of a unix socket, or of a name of an address.
func (r *Router) listeningByName(key socketKey) ([]candidate, error) {
	var all []candidate
	for _, l := range r.listens {
		if l.unix != "" && l.unix == key.name || l.unix == "" && !l.known &&
			l.at.Host == key.name && l.at.First <= key.port && key.port <= l.at.Last {
			all = append(all, candidate{l.server, l.listen})
		}
	}
	if all == nil {
		return nil, &conf.Error{File: r.tree.Main.Name, Msg: "no server listens on " + key.name}
	}
	return all, nil
}
