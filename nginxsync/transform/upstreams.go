package transform

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

func (t *transform) upstream(n conf.Node) {
	dynamic := t.rules.Snippets.Upstream
	name := n.Arg(0)
	cluster := t.cluster(name)
	if dynamic != nil && !t.routed(name) {
		// No snapshot can name it: it keeps its own servers, as far as the rules map their
		// addresses.
		dynamic = nil
		t.changed(n.Directive, "upstream", "keeps its own servers: %v; name its cluster in the "+
			"rules under clusters to route it", names.Cluster(cluster))
	}
	u := Upstream{Name: name, Cluster: cluster, Plain: t.plain(name)}
	var pooled *conf.Directive // its keepalive
	requests := false          // has a keepalive_requests of its own
	var first *conf.Directive  // where the driver's text goes: before this child of the block itself
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
		case t.info(word).is(picks):
			t.edit.Remove(c.Directive)
			honours := slices.Contains(t.rules.Snippets.Methods, word)
			if rank := methodRank(word, honours); rank >= best {
				u.Method, best = append([]string{word}, c.Args()...), rank
			}
			if honours {
				t.changed(c.Directive, "upstream", "%s goes to the driver, which honours it", word)
			} else {
				t.changed(c.Directive, "upstream", "%s is left out: the driver does not know it "+
					"and balances round robin", word)
			}
		case !t.info(word).is(pools) && !slices.Contains(t.rules.Accept, word):
			t.edit.Remove(c.Directive)
			t.changed(c.Directive, "upstream", "%s is left out: it is about production's instances",
				word)
		}
		if word == "keepalive" {
			pooled = c.Directive
			if dynamic != nil {
				t.pool(c)
			}
		}
		requests = requests || word == "keepalive_requests"
		u.Zone = u.Zone || word == "zone"
		if first == nil && direct && (word == "server" || word == "include" ||
			strings.HasPrefix(word, "keepalive")) {
			first = c.Directive
		}
	}
	if dynamic == nil {
		return
	}
	overTLS := t.tls[strings.ToLower(name)]
	if overTLS && pooled != nil && !requests {
		t.lasting(pooled)
	}
	if overTLS && pooled == nil {
		t.changed(n.Directive, "upstream", "is asked over TLS and has no keepalive: each request "+
			"makes a full handshake, since no session is resumed where the driver chooses")
	}
	t.driven = true
	text := dynamic(u)
	switch {
	case first == nil:
		t.edit.Append(n.Directive, text)
	case first.Name() == "server":
		t.edit.ReplaceLines(first, text)
	default:
		t.edit.InsertBefore(first, text)
	}
	t.note(n.Directive, "upstream", "cluster "+cluster+": "+strconv.Itoa(servers)+
		" servers give way to the driver")
	if len(left) > 0 {
		slices.Sort(left)
		t.note(n.Directive, "upstream", strings.Join(slices.Compact(left), ", ")+
			" of single servers are left out: they are of production's instances")
	}
}

// methodRank orders the methods of one upstream: the driver gets one that it honours, and
// stickiness before the method for a first request.
func methodRank(name string, honours bool) int {
	switch {
	case !honours:
		return 0
	case strings.HasSuffix(name, "sticky"):
		return 2
	}
	return 1
}

// parameters takes over the parameters that all servers have alike, and adds the others to left.
func (u *Upstream) parameters(server *conf.Directive, first bool, left []string) []string {
	var maxFails, timeout, maxConns, slow string
	for i := 1; i < server.NumArgs(); i++ {
		name, value, _ := strings.Cut(server.Arg(i), "=")
		switch name {
		case "max_fails":
			maxFails = value
		case "fail_timeout":
			timeout = value
		case "max_conns":
			maxConns = value
		case "slow_start":
			slow = value
		default:
			left = append(left, name)
		}
	}
	for _, p := range []struct {
		name, value string
		field       *string
	}{{"max_fails", maxFails, &u.MaxFails}, {"fail_timeout", timeout, &u.FailTimeout},
		{"max_conns", maxConns, &u.MaxConns}, {"slow_start", slow, &u.SlowStart}} {
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
			why = fmt.Sprintf("upstream %s keeps its servers (%v; name its cluster in the rules "+
				"under clusters)", names.Quote(upstream), err)
		}
		t.refuse(server.Directive, "server %s: %s, and the address is not in the rules under pass",
			address, why)
		return
	}
	if to != address {
		t.edit.ReplaceArg(server.Directive, 0, to)
		t.changed(server.Directive, "pass", "%s is mapped to %s", address, to)
	}
}

// snippets adds the driver's snippets.
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
	for _, b := range s.Once {
		b.Body = strings.ReplaceAll(strings.ReplaceAll(b.Body, TreeID, t.id), SelectID,
			t.rules.selectors())
		if n, ok := have[b.Name]; ok {
			t.edit.Prepend(n.Directive, "do\n"+strings.TrimSuffix(b.Body, "\n")+"\nend")
			t.changed(n.Directive, "driver", "the driver's code runs first")
			continue
		}
		base := strings.TrimSuffix(b.Name, "_block")
		first := "do\n" + strings.TrimSuffix(b.Body, "\n") + "\nend"
		replaced := false
		for _, other := range []string{base, base + "_file"} {
			if n, ok := have[other]; ok {
				replaced = true
				if t.asBlock(n, first) {
					t.changed(n.Directive, "driver", "becomes %s: the driver's code runs first",
						b.Name)
				}
			}
		}
		if replaced {
			continue
		}
		t.extra.WriteString(b.Name + " {\n" + strings.TrimSuffix(b.Body, "\n") + "\n}\n")
	}
	hooked := t.hooks(http)
	if s.HTTP != "" {
		reset, zones := t.reset(hooked)
		text := strings.ReplaceAll(strings.ReplaceAll(s.HTTP, TreeID, t.id), Reset, reset)
		t.extra.WriteString(zones + strings.TrimSuffix(text, "\n") + "\n")
	}
}

// hooks adds the blocks that the tree needs, and returns their names.
func (t *transform) hooks(http conf.Node) map[string]bool {
	s := t.rules.Snippets
	added := map[string]bool{}
	add := func(why string, b Block) {
		if b.Name != "" {
			added[b.Name] = true
			t.hook(http, why, b)
		}
	}
	if t.driven {
		add("an upstream of the driver", s.Ended)
	}
	if t.tokens {
		add("what Nginx keeps for each version", s.Token)
	}
	if t.stated {
		add("the default key of a cache", s.URI)
		// which reads it for each request: Nginx logs a warning about a variable that is not set
		t.extra.WriteString("map \"\" $sluice_at {\n    default \"\";\n}\n")
	}
	t.exceptedVersions()
	if len(t.spoken) > 0 || t.speaksAny {
		for _, b := range s.Unavailable {
			add("an upstream without an instance", b)
		}
	}
	return added
}

// hook adds a block to the http context and to every block that has one of its name, which would
// hide it.
func (t *transform) hook(http conf.Node, why string, hook Block) {
	base := strings.TrimSuffix(hook.Name, "_block")
	first := "do\n" + strings.TrimSuffix(hook.Body, "\n") + "\nend"
	outside := true
	reason := "the driver's code runs first: " + why
	for _, n := range t.below(hook.Name) {
		t.edit.Prepend(n.Directive, first)
		t.changed(n.Directive, "driver", "%s", reason)
		outside = outside && n.Parent() != http.Directive
	}
	for _, name := range []string{base, base + "_file"} {
		for _, n := range t.below(name) {
			if !t.asBlock(n, first) {
				continue
			}
			t.changed(n.Directive, "driver", "becomes %s: %s", hook.Name, reason)
			outside = outside && n.Parent() != http.Directive
		}
	}
	if outside {
		t.extra.WriteString(hook.Name + " {\n" + strings.TrimSuffix(hook.Body, "\n") + "\n}\n")
	}
}

// asBlock makes a *_by_lua or *_by_lua_file a *_by_lua_block, with text first in it.
func (t *transform) asBlock(n conf.Node, first string) bool {
	base, isFile := strings.CutSuffix(n.Name(), "_file")
	body := n.Arg(0)
	if isFile {
		if strings.Contains(body, "$") {
			t.refuse(n.Directive, "%s %s: the file is known only at run time, and the driver's "+
				"code must run first; write it as %s_block", n.Name(), body, base)
			return false
		}
		if to, ok := t.mapped(body); ok {
			body = to
		}
		body = "return package.loaded[\"sluice.routes\"].file(" + strconv.Quote(body) + ")()"
	}
	block := base + "_block {\n" + first + "\n" + body + "\n}"
	if err := conf.Check(n.File().Name, block); err != nil {
		t.refuse(n.Directive, "%s: the driver's code must run first, and the text is no block of "+
			"Lua; write it as %s_block", n.Name(), base)
		return false
	}
	t.edit.Replace(n.Directive, block)
	return true
}
