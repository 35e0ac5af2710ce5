package transform

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// methods are the balancing directives of an upstream: the driver takes their place.
var methods = set(
	"balancer_by_lua",
	"balancer_by_lua_block",
	"balancer_by_lua_file",
	"consistent_hash",
	"ewma",
	"fair",
	"hash",
	"ip_hash",
	"least_conn",
	"least_time",
	"random",
	"session_sticky",
	"sticky",
)

// pooling are the directives of an upstream that stay: what they hold is the test Nginx's own.
var pooling = set(
	"include",
	"keepalive",
	"keepalive_requests",
	"keepalive_time",
	"keepalive_timeout",
	"zone",
)

func (t *transform) upstream(n conf.Node) {
	dynamic := t.rules.Snippets.Upstream
	name := n.Arg(0)
	cluster := t.cluster(name)
	if dynamic != nil && !t.routed(name) {
		// No snapshot can name it: it keeps its own servers, as far as the rules map their addresses.
		dynamic = nil
		t.changed(n.Directive, "upstream", "keeps its own servers: %v; name its cluster in the rules under clusters to route it", names.Cluster(cluster))
	}
	u := Upstream{Name: name, Cluster: cluster}
	var first *conf.Directive // where the driver's text goes: before this child of the block itself
	servers, best := 0, 0
	var left []string // parameters of single servers
	for c := range n.Children() {
		word := c.Name()
		direct := slices.Contains(n.Directive.Children(), c.Directive)
		switch {
		case word == "server" && dynamic == nil:
			t.staticServer(c, name)
		case dynamic == nil:
		case word == "server":
			if !direct || first != nil {
				t.edit.Remove(c.Directive)
			}
			left = u.parameters(c.Directive, servers == 0, left)
			servers++
		case methods[word]:
			t.edit.Remove(c.Directive)
			honours := slices.Contains(t.rules.Snippets.Methods, word)
			if rank := methodRank(word, honours); rank >= best {
				u.Method, best = append([]string{word}, c.Args()...), rank
			}
			if honours {
				t.used[word] = true
				t.changed(c.Directive, "upstream", "%s goes to the driver, which honours it", word)
			} else {
				t.changed(c.Directive, "upstream", "%s is left out: the driver does not know it and balances round robin", word)
			}
		case !pooling[word] && !slices.Contains(t.rules.Accept, word):
			t.edit.Remove(c.Directive)
			t.changed(c.Directive, "upstream", "%s is left out: it is about production's instances", word)
		}
		if first == nil && direct && (word == "server" || word == "include" || strings.HasPrefix(word, "keepalive")) {
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
	t.note(n.Directive, "upstream", "cluster "+cluster+": "+strconv.Itoa(servers)+" servers give way to the driver")
	if len(left) > 0 {
		slices.Sort(left)
		t.note(n.Directive, "upstream", strings.Join(slices.Compact(left), ", ")+" of single servers are left out: they are of production's instances")
	}
}

// methodRank orders the methods of one upstream: the driver gets one that it honours, and stickiness before what picks the first time.
func methodRank(name string, honours bool) int {
	switch {
	case !honours:
		return 0
	case strings.HasSuffix(name, "sticky"):
		return 2
	}
	return 1
}

// parameters takes over what all servers have alike, and adds to left what the driver cannot take over.
func (u *Upstream) parameters(server *conf.Directive, first bool, left []string) []string {
	var maxFails, timeout, slow string
	for i := 1; i < server.NumArgs(); i++ {
		name, value, _ := strings.Cut(server.Arg(i), "=")
		switch name {
		case "max_fails":
			maxFails = value
		case "fail_timeout":
			timeout = value
		case "slow_start":
			slow = value
		default:
			left = append(left, name)
		}
	}
	for _, p := range []struct {
		name, value string
		field       *string
	}{{"max_fails", maxFails, &u.MaxFails}, {"fail_timeout", timeout, &u.FailTimeout}, {"slow_start", slow, &u.SlowStart}} {
		switch {
		case first:
			*p.field = p.value
		case *p.field != p.value:
			*p.field = ""
			left = append(left, p.name)
		}
	}
	return left
}

// routed reports whether the driver takes the place of the servers of an upstream.
func (t *transform) routed(upstream string) bool {
	return t.rules.Snippets.Upstream != nil && names.Cluster(t.cluster(upstream)) == nil
}

// cluster returns the cluster of an upstream: the one that the rules name, else the name of the
// upstream in lower case. Nginx compares the names of upstreams without regard to case.
func (t *transform) cluster(upstream string) string {
	name := strings.ToLower(upstream)
	return cmp.Or(t.clusters[name], name)
}

// staticServer maps the address of a server that stays.
func (t *transform) staticServer(server conf.Node, upstream string) {
	address := server.Arg(0)
	to, ok := t.rules.Pass[address]
	if !ok {
		why := "no driver"
		if err := names.Cluster(t.cluster(upstream)); t.rules.Snippets.Upstream != nil {
			why = fmt.Sprintf("upstream %s keeps its servers (%v; name its cluster in the rules under clusters)", names.Quote(upstream), err)
		}
		t.refuse(server.Directive, "server %s: %s, and the address is not in the rules under pass", address, why)
		return
	}
	if to != address {
		t.edit.ReplaceArg(server.Directive, 0, to)
		t.changed(server.Directive, "pass", "%s is mapped to %s", address, to)
	}
}

// passes reports whether the argument of a directive is where requests go to: proxy_pass and its kind, of any module.
func passes(name string) bool {
	return strings.HasSuffix(name, "_pass") && name != "upload_pass" // which names a location
}

// pass lets a request go to an upstream of the tree, or to what the rules map its target to, and nowhere else.
func (t *transform) pass(n conf.Node) {
	if n.NumArgs() == 0 {
		return
	}
	bare := t.secretQuery(n.Arg(0))
	scheme, target, rest := splitTarget(bare)
	to, ok := t.rules.Pass[target]
	if t.upstreams[strings.ToLower(target)] || ok && to == target && !strings.Contains(target, "$") {
		if ok && to == target {
			t.changed(n.Directive, "pass", "%s is accepted as it is by the rules", target)
		}
		t.stripTo(n, 0, "a parameter", bare)
		return
	}
	switch {
	case !ok && strings.Contains(target, "$"):
		t.refuse(n.Directive, "%s %s: the target is known only at run time; map %q to an upstream, or to itself if it yields only names of upstreams, in the rules under pass",
			n.Name(), n.Arg(0), target)
		return
	case !ok:
		t.refuse(n.Directive, "%s %s: %q is not an upstream of the tree; map it to one in the rules under pass", n.Name(), n.Arg(0), target)
		return
	case to == target:
		t.guard(n, scheme, target, rest)
		return
	}
	if _, err := netip.ParseAddrPort(to); err != nil && !strings.HasPrefix(to, "unix:") && !t.upstreams[strings.ToLower(to)] {
		if t.rules.Snippets.Upstream == nil {
			t.refuse(n.Directive, "%s %s: no driver, and the tree has no upstream %q", n.Name(), n.Arg(0), to)
			return
		}
		if err := names.Cluster(t.cluster(to)); err != nil {
			t.refuse(n.Directive, "%s %s: upstream %q is added by the rules under pass: %v", n.Name(), n.Arg(0), to, err)
			return
		}
		t.addUpstream(to)
	}
	if scheme == "" && n.Name() == "proxy_pass" {
		scheme = "http://" // the expression had it
	}
	t.edit.ReplaceArg(n.Directive, 0, scheme+to+rest)
	t.changed(n.Directive, "pass", "%s is mapped to %s", target, to)
}

// guard lets an expression through as far as it yields the name of an upstream: with a resolver, or with a literal address, Nginx
// would go to whatever it yields.
func (t *transform) guard(n conf.Node, scheme, target, rest string) {
	if scheme == "" && strings.HasPrefix(n.Name(), "proxy") {
		t.refuse(n.Directive, "%s %s: the scheme too is known only at run time, so nothing can hold it to upstreams; map %q to an upstream in the rules under pass",
			n.Name(), n.Arg(0), target)
		return
	}
	variable, ok := t.guards[target]
	if !ok {
		variable = fmt.Sprintf("$sluice_pass_%d", len(t.guards)+1)
		t.guards[target] = variable
	}
	t.edit.ReplaceArg(n.Directive, 0, scheme+variable+rest)
	t.changed(n.Directive, "pass", "%s is accepted as far as it yields the name of an upstream", target)
}

// writeGuards adds the maps that the guards need, when all upstreams are known.
func (t *transform) writeGuards(http conf.Node) {
	if len(t.guards) == 0 {
		return
	}
	have := map[string]bool{}
	for n := range http.Children() {
		have[n.Name()] = true
	}
	for _, line := range []string{"map_hash_bucket_size 256;", "map_hash_max_size 65536;"} {
		if name, _, _ := strings.Cut(line, " "); !have[name] {
			t.edit.Prepend(http.Directive, line) // before the first map, as Nginx wants it
		}
	}
	for _, target := range slices.Sorted(maps.Keys(t.guards)) {
		fmt.Fprintf(&t.extra, "# %s reaches upstreams and nothing else.\nmap %s %s {\n    volatile; # another location may set it anew\n    default \"\";\n", target, conf.Quote(target), t.guards[target])
		for _, name := range slices.Sorted(maps.Keys(t.upstreams)) {
			fmt.Fprintf(&t.extra, "    %s %s;\n", mapKey(name), conf.Quote(target))
		}
		t.extra.WriteString("}\n")
	}
}

// mapKey is a name as the key of a map, where some words and signs at the beginning have a meaning of their own.
func mapKey(name string) string {
	if strings.ContainsAny(name[:1], "~\\") || slices.Contains([]string{"default", "include", "volatile", "hostnames"}, name) {
		return conf.Quote("\\" + name)
	}
	return conf.Quote(name)
}

func (t *transform) addUpstream(name string) {
	t.upstreams[strings.ToLower(name)] = true
	text := strings.ReplaceAll(strings.TrimSuffix(t.rules.Snippets.Upstream(Upstream{Name: name, Cluster: t.cluster(name)}), "\n"), "\n", "\n    ")
	t.extra.WriteString("upstream " + conf.Quote(name) + " {\n    " + text + "\n}\n")
}

// splitTarget cuts the argument of a pass directive into scheme, host and port, and URI. A scheme with another variable than
// $scheme, which is http or https, is of the target: it may yield a whole address.
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
	target = value
	if i := strings.IndexAny(value, "/?"); i >= 0 {
		target, rest = value[:i], value[i:]
	}
	if strings.Contains(scheme, "$") && scheme != "$scheme://" && scheme != "${scheme}://" {
		scheme, target = "", scheme+target
	}
	return scheme, target, rest
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
	for _, method := range slices.Sorted(maps.Keys(t.used)) {
		if hook, ok := s.Hooks[method]; ok {
			t.hook(http, method, hook)
		}
	}
}

// hook adds a block to the http context and to every block that has one of its name, which would hide it.
func (t *transform) hook(http conf.Node, method string, hook Block) {
	base := strings.TrimSuffix(hook.Name, "_block")
	for _, other := range []string{base, base + "_file"} {
		for _, n := range t.below(other) {
			t.refuse(n.Directive, "%s: %s of an upstream needs a %s, which this would hide; write it as %s", other, method, hook.Name, hook.Name)
		}
	}
	outside := true
	for _, n := range t.below(hook.Name) {
		t.edit.Prepend(n.Directive, "do\n"+hook.Body+"\nend")
		t.changed(n.Directive, "driver", "the driver's code for %s runs first", method)
		outside = outside && n.Parent() != http.Directive
	}
	if outside {
		t.extra.WriteString(hook.Name + " {\n" + hook.Body + "\n}\n")
	}
}
