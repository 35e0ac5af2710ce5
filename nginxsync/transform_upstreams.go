package nginxsync

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// methods are the balancing directives of an upstream: the driver takes their place.
var methods = set("least_conn", "ip_hash", "hash", "random", "least_time", "fair", "sticky", "balancer_by_lua_block", "balancer_by_lua_file", "balancer_by_lua")

func (t *transform) upstream(n conf.Node) {
	dynamic := t.rules.Snippets.Upstream
	name := n.Arg(0)
	cluster, ok := t.rules.Clusters[name]
	if !ok {
		cluster = name
	}
	if why := badWord(cluster, 1); why != "" && dynamic != nil {
		t.refuse(n.Directive, "upstream %s: as a cluster its name %s; name the cluster in the rules under clusters", name, why)
		return
	}
	u := Upstream{Name: name, Cluster: cluster}
	var first *conf.Directive // where the driver's text goes: before this child of the block itself
	servers := 0
	for c := range n.Children() {
		direct := slices.Contains(n.Directive.Children(), c.Directive)
		switch {
		case c.Name() == "server" && dynamic == nil:
			t.staticServer(c)
		case dynamic == nil:
		case c.Name() == "server":
			if !direct || first != nil {
				t.edit.Remove(c.Directive)
			}
			u.fails(c.Directive, servers == 0)
			servers++
		case methods[c.Name()]:
			t.edit.Remove(c.Directive)
			u.Method = append([]string{c.Name()}, c.Args()...)
			t.changed(c.Directive, "upstream", "%s is left out: the driver balances in its own way", c.Name())
		}
		if first == nil && direct && (c.Name() == "server" || c.Name() == "include" || strings.HasPrefix(c.Name(), "keepalive")) {
			first = c.Directive
		}
	}
	if dynamic == nil {
		return
	}
	text := dynamic(u)
	switch {
	case first == nil:
		t.edit.Append(n.Directive, text)
	case first.Name() == "server":
		t.edit.ReplaceLines(first, text)
	default:
		t.edit.InsertBefore(first, text)
	}
	t.changed(n.Directive, "upstream", "cluster %s: %d servers give way to the driver", cluster, servers)
}

// fails takes max_fails and fail_timeout of a server over, or forgets them when the servers differ.
func (u *Upstream) fails(server *conf.Directive, first bool) {
	var maxFails, timeout string
	for _, a := range server.Args() {
		if v, ok := strings.CutPrefix(a, "max_fails="); ok {
			maxFails = v
		}
		if v, ok := strings.CutPrefix(a, "fail_timeout="); ok {
			timeout = v
		}
	}
	if first {
		u.MaxFails, u.FailTimeout = maxFails, timeout
		return
	}
	if u.MaxFails != maxFails {
		u.MaxFails = ""
	}
	if u.FailTimeout != timeout {
		u.FailTimeout = ""
	}
}

func (t *transform) staticServer(server conf.Node) {
	address := server.Arg(0)
	to, ok := t.rules.Pass[address]
	if !ok {
		t.refuse(server.Directive, "server %s: no driver, and the address is not in the rules under pass", address)
		return
	}
	if to != address {
		t.edit.ReplaceArg(server.Directive, 0, to)
		t.changed(server.Directive, "pass", "%s is mapped to %s", address, to)
	}
}

var passes = set("proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass", "memcached_pass", "redis_pass", "redis2_pass", "ajp_pass", "drizzle_pass", "postgres_pass")

// pass lets a request go to an upstream of the tree, or to what the rules map its target to, and nowhere else.
func (t *transform) pass(n conf.Node) {
	if !passes[n.Name()] || n.NumArgs() == 0 {
		return
	}
	scheme, target, rest := splitTarget(n.Arg(0))
	if t.upstreams[strings.ToLower(target)] {
		return
	}
	to, ok := t.rules.Pass[target]
	switch {
	case !ok && strings.Contains(target, "$"):
		t.refuse(n.Directive, "%s %s: the target is known only at run time; map %q to an upstream, or to itself if it yields only names of upstreams, in the rules under pass",
			n.Name(), n.Arg(0), target)
		return
	case !ok:
		t.refuse(n.Directive, "%s %s: %q is not an upstream of the tree; map it to one in the rules under pass", n.Name(), n.Arg(0), target)
		return
	case to == target:
		t.changed(n.Directive, "pass", "%s is accepted as it is by the rules", target)
		return
	}
	if _, err := netip.ParseAddrPort(to); err != nil && !strings.HasPrefix(to, "unix:") && !t.upstreams[strings.ToLower(to)] {
		if t.rules.Snippets.Upstream == nil {
			t.refuse(n.Directive, "%s %s: no driver, and the tree has no upstream %q", n.Name(), n.Arg(0), to)
			return
		}
		t.addUpstream(to)
	}
	t.edit.ReplaceArg(n.Directive, 0, scheme+to+rest)
	t.changed(n.Directive, "pass", "%s is mapped to %s", target, to)
}

func (t *transform) addUpstream(name string) {
	t.upstreams[strings.ToLower(name)] = true
	cluster, ok := t.rules.Clusters[name]
	if !ok {
		cluster = name
	}
	text := strings.ReplaceAll(strings.TrimSuffix(t.rules.Snippets.Upstream(Upstream{Name: name, Cluster: cluster}), "\n"), "\n", "\n    ")
	t.extra.WriteString("upstream " + conf.Quote(name) + " {\n    " + text + "\n}\n")
}

// splitTarget cuts the argument of a pass directive into scheme, host and port, and URI.
func splitTarget(value string) (scheme, target, rest string) {
	if i := strings.Index(value, "://"); i >= 0 {
		scheme, value = value[:i+3], value[i+3:]
	}
	if strings.HasPrefix(value, "unix:") {
		// unix:/path or, with a URI, unix:/path:/uri
		if i := strings.Index(value[len("unix:"):], ":"); i >= 0 {
			i += len("unix:")
			return scheme, value[:i], value[i:]
		}
		return scheme, value, ""
	}
	i := strings.IndexAny(value, "/?")
	if i < 0 {
		return scheme, value, ""
	}
	return scheme, value[:i], value[i:]
}

// snippets adds what the driver brings.
func (t *transform) snippets(http conf.Node) {
	s := t.rules.Snippets
	have := map[string]conf.Node{}
	for n := range http.Children() {
		have[n.Name()] = n
	}
	for _, d := range s.Defaults {
		name, _, _ := strings.Cut(d, " ")
		if _, ok := have[name]; !ok {
			t.extra.WriteString(d + "\n")
		}
	}
	if s.HTTP != "" {
		t.extra.WriteString(strings.TrimSuffix(strings.ReplaceAll(s.HTTP, TreeID, t.id), "\n") + "\n")
	}
	for _, b := range s.Once {
		b.Body = strings.ReplaceAll(b.Body, TreeID, t.id)
		if n, ok := have[b.Name]; ok {
			t.edit.Prepend(n.Directive, "do\n"+strings.TrimSuffix(b.Body, "\n")+"\nend")
			t.changed(n.Directive, "driver", "the driver's code runs first")
			continue
		}
		base := strings.TrimSuffix(b.Name, "_block")
		for _, other := range []string{base, base + "_file"} {
			if n, ok := have[other]; ok {
				t.refuse(n.Directive, "%s: the driver needs %s, which cannot stand beside it; write it as %s", other, b.Name, b.Name)
			}
		}
		t.extra.WriteString(b.Name + " {\n" + strings.TrimSuffix(b.Body, "\n") + "\n}\n")
	}
}

// sortedKeys are the keys of m in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
