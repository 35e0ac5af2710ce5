package route

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

// madeUp is a word of paths and hosts that requests are made up with.
const madeUp = "sluice-any"

// anyClient is a client that no rule is about. It is of the range for documents (RFC 5737).
var anyClient = netip.MustParseAddr("192.0.2.1")

// probe is one request that is followed through both trees.
type probe struct {
	member  member
	request Request
	noHost  bool
}

// String is the request in one line, as explain takes it.
func (q probe) String() string {
	text := ""
	if m := q.request.Method; m != "" {
		text = m + " "
	}
	text += q.request.URL
	for name, values := range q.request.Header {
		text += " " + name + ": " + strings.Join(values, ", ")
	}
	if q.request.Client != anyClient {
		text += " from " + q.request.Client.String()
	}
	return text
}

// url is the URL of a path at a member.
func (m member) url(path string) string {
	scheme, port := "http", ""
	if m.tls {
		scheme = "https"
	}
	if m.key.port != map[string]int{"http": 80, "https": 443}[scheme] {
		port = ":" + strconv.Itoa(m.key.port)
	}
	host := m.host
	if host == "" {
		host = "0.0.0.0"
	}
	return scheme + "://" + host + port + escapeBytes(path, " \"#%<>?\\^`{|}")
}

func (m member) request(path string) probe {
	return probe{member: m, noHost: m.host == "",
		request: Request{URL: m.url(path), Addr: m.key.addr, Client: anyClient}}
}

// hostsOf are hosts that have the name of a server.
func hostsOf(name string) []string {
	lower := strings.ToLower(name)
	switch {
	case strings.HasPrefix(name, "~"):
		var hosts []string
		for _, host := range pcre.Samples(name[1:], true) {
			host = strings.ToLower(host)
			if !slices.Contains(hosts, host) && host != "" && validHost(host) {
				hosts = append(hosts, host)
			}
		}
		return hosts
	case strings.HasPrefix(lower, "*."):
		return []string{madeUp + lower[1:]}
	case strings.HasPrefix(lower, "."):
		return []string{lower[1:], madeUp + lower}
	case strings.HasSuffix(lower, ".*"):
		return []string{lower[:len(lower)-1] + madeUp}
	case lower != "" && !validHost(lower):
		return nil // no request has it
	}
	return []string{lower}
}

// validHost reports whether a URL can have the host.
func validHost(host string) bool {
	u, err := url.Parse("http://" + host + "/")
	return err == nil && u.Host == host && u.Port() == ""
}

// probes are the requests for a pair: plain ones for its path, and the ones that differing
// directives ask for.
func (p *pairComparer) probes(pair *locationPair, effects, diffs [2][]effect) []probe {
	members := p.members[:1]
	if looksAt(effects, "host", "server_addr", "server_port", "scheme", "https") ||
		slices.ContainsFunc(p.members, func(m member) bool {
			return strings.HasPrefix(m.name, "~")
		}) {
		members = p.members[:min(len(p.members), maxProbes/2)]
	}
	paths := pair.paths()
	if pair.key == "" {
		for _, side := range p.serverDiffs {
			for _, e := range side {
				if e.at.Name() == "rewrite" {
					paths = append(paths, samplesOf(e.at.Arg(0), false, "/")...)
				}
			}
		}
	}
	var list []probe
	add := func(q probe) {
		if len(list) < maxProbes {
			list = append(list, q)
		}
	}
	for _, path := range paths {
		for _, m := range members {
			add(m.request(path))
		}
	}
	if len(paths) == 0 {
		return nil
	}
	for _, side := range []int{1, 0} {
		for _, e := range effects[side] {
			if e.at.Name() == "allow" && len(list) < maxProbes/2 {
				for _, path := range paths {
					if p, err := network(e.at.Arg(0)); err == nil {
						q := members[0].request(path)
						q.request.Client = p.Addr()
						add(q)
					}
				}
			}
		}
		for _, e := range diffs[side] {
			for _, change := range p.sides[side].variants(e) {
				for _, path := range paths {
					q := p.members[0].request(path)
					if change(&q) && p.serves(q) {
						add(q)
					}
				}
			}
		}
	}
	return list
}

// serves reports whether the probe, whose host may have been changed, comes to the servers of the
// group in one of the trees.
func (p *pairComparer) serves(q probe) bool {
	for i, r := range p.sides {
		if server, err := r.serverOf(q.member.key, q.member.host); err == nil &&
			server.Directive == p.servers[i].Directive {
			return true
		}
	}
	return false
}

// paths are paths that the location may answer.
func (p *locationPair) paths() []string {
	node := p.nodes[1]
	if node.Directive == nil {
		node = p.nodes[0]
	}
	if node.Directive == nil {
		return []string{"/" + madeUp}
	}
	modifier, text := pattern(node)
	switch {
	case modifier == "" && strings.HasPrefix(text, "@"):
		return []string{"/" + madeUp}
	case strings.HasPrefix(modifier, "~"):
		prefix := p.parents
		if prefix == "" {
			prefix = "/"
		}
		return samplesOf(text, modifier == "~*", prefix)
	case modifier == "=":
		return []string{text}
	case strings.HasSuffix(text, "/"):
		return []string{text, text + madeUp}
	}
	return []string{text, text + "/" + madeUp}
}

// variants are the ways to change a request so that it meets a directive: the condition of an if,
// the key of a map, a network of a geo, the methods of a limit_except, the path of a rewrite.
func (r *Router) variants(e effect) []func(*probe) bool {
	n := e.at
	switch parent := n.Parent(); {
	case parent != nil && (parent.Name() == "map" || parent.Name() == "geo"):
		return r.entryVariants(parent.Name(), parent.Arg(0), parent.NumArgs(), n.Name())
	case n.Name() == "if":
		return r.conditionVariants(n.Args())
	case n.Name() == "limit_except":
		return []func(*probe) bool{
			func(q *probe) bool { q.request.Method = http.MethodDelete; return true }}
	case n.Name() == "rewrite":
		var list []func(*probe) bool
		for _, path := range samplesOf(n.Arg(0), false, "/") {
			list = append(list, func(q *probe) bool {
				q.request.URL = q.member.url(path)
				return true
			})
		}
		return list
	}
	return nil
}

func (r *Router) entryVariants(kind, source string, args int, key string) []func(*probe) bool {
	if kind == "geo" {
		if args == 1 {
			source = "$remote_addr"
		}
		prefix, err := netip.ParsePrefix(key)
		if err == nil {
			key = prefix.Addr().String()
		}
		return r.setting(source, key, 0)
	}
	switch {
	case key == "default" || key == "hostnames" || key == "volatile":
		return nil
	case strings.HasPrefix(key, "~"):
		expr, caseless := strings.CutPrefix(key[1:], "*")
		var list []func(*probe) bool
		for _, text := range pcre.Samples(expr, caseless) {
			list = append(list, r.setting(source, text, 0)...)
		}
		return list
	}
	key = strings.TrimPrefix(key, `\`)
	var list []func(*probe) bool
	for _, text := range append(hostsOf(key), key) {
		list = append(list, r.setting(source, text, 0)...)
	}
	return list
}

func (r *Router) conditionVariants(args []string) []func(*probe) bool {
	words := strings.Fields(strings.Trim(strings.Join(args, " "), "()"))
	if len(words) == 0 {
		return nil
	}
	switch {
	case len(words) == 1:
		return r.setting(words[0], "1", 0)
	case len(words) < 3:
		return nil
	case words[1] == "=" || words[1] == "!=":
		return r.setting(words[0], words[2], 0)
	case strings.HasSuffix(words[1], "~") || strings.HasSuffix(words[1], "~*"):
		var list []func(*probe) bool
		for _, text := range pcre.Samples(words[2], strings.HasSuffix(words[1], "*")) {
			list = append(list, r.setting(words[0], text, 0)...)
		}
		return list
	}
	return nil
}

// setting is the way to make a request in which the variable has the value: by a header, an
// argument, a cookie, the host, the method, the client's address, or by way of a map.
func (r *Router) setting(name, value string, depth int) []func(*probe) bool {
	name = strings.ToLower(strings.Trim(name, "${}"))
	change := func(f func(*probe) bool) []func(*probe) bool { return []func(*probe) bool{f} }
	if strings.ContainsAny(value, "\r\n") {
		return nil
	}
	switch name {
	case "host", "http_host":
		return change(func(q *probe) bool {
			if value == "" || !validHost(value) {
				return false
			}
			path := strings.TrimPrefix(q.request.URL, q.member.url(""))
			q.member.host, q.member.name = strings.ToLower(value), value
			q.request.URL, q.noHost = q.member.url("")+path, false
			return true
		})
	case "request_method":
		return change(func(q *probe) bool { q.request.Method = value; return value != "" })
	case "remote_addr", "binary_remote_addr":
		return change(func(q *probe) bool {
			addr, err := netip.ParseAddr(value)
			q.request.Client = addr
			return err == nil
		})
	case "uri", "document_uri", "request_uri":
		if !strings.HasPrefix(value, "/") {
			return nil
		}
		return change(func(q *probe) bool { q.request.URL = q.member.url(value); return true })
	}
	if key, ok := strings.CutPrefix(name, "arg_"); ok {
		return change(func(q *probe) bool {
			q.request.URL += "?" + key + "=" + escapeBytes(value, " \"#%&+;<>?\\^`{|}")
			return true
		})
	}
	header := func(name, value string) func(*probe) bool {
		return func(q *probe) bool {
			q.request.Header = http.Header{http.CanonicalHeaderKey(name): {value}}
			return true
		}
	}
	if key, ok := strings.CutPrefix(name, "cookie_"); ok {
		return change(header("Cookie", key+"="+value))
	}
	if key, ok := strings.CutPrefix(name, "http_"); ok {
		return change(header(strings.ReplaceAll(key, "_", "-"), value))
	}
	m, ok := r.maps[name]
	if !ok || m.Name() != "map" || depth > 2 {
		return nil
	}
	for n := range m.Children() {
		if n.NumArgs() == 1 && n.Arg(0) == value && n.Name() != "default" &&
			!strings.HasPrefix(n.Name(), "~") {
			return r.setting(m.Arg(0), strings.TrimPrefix(n.Name(), `\`), depth+1)
		}
	}
	return nil
}
