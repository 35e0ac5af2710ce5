package transform

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// pages sees to it that cached pages are kept under the token, and that the version of a page is
// known: in each location that passes requests on and caches the answers.
func (t *transform) pages() {
	stated := map[*conf.Directive]bool{}
	// A location has one key: that of its own pass, before those of its limit_except.
	passed := slices.Clone(t.passed)
	slices.SortStableFunc(passed, func(a, b pass) int {
		return cmp.Compare(len(a.Parents), len(b.Parents))
	})
	for _, p := range passed {
		if set, _ := t.effective(p.Node, "srcache_fetch"); len(set) > 0 {
			t.tokens = true
			t.pageVersion(p)
		}
		family := strings.TrimSuffix(p.Name(), "_pass")
		if len(t.below(family+"_cache")) == 0 {
			continue
		}
		if set, _ := t.effective(p.Node, family+"_cache"); len(set) == 0 || set[0].Arg(0) == "off" {
			continue
		}
		t.tokens = true
		t.pageVersion(p)
		if set, _ := t.effective(p.Node, family+"_cache_key"); len(set) > 0 {
			continue
		}
		if family == "proxy" {
			t.pageKey(p, stated)
		} else {
			t.sharedKey(p, family, stated)
		}
	}
}

// storedPages keeps answers out of the stores of srcache that no cache would keep either.
func (t *transform) storedPages(http conf.Node) {
	if len(t.below("srcache_store")) == 0 {
		return
	}
	for _, n := range t.below("srcache_store_skip") {
		t.edit.ReplaceArg(n.Directive, 0, n.Arg(0)+"$sluice_fleeting")
		t.changed(n.Directive, "cache-key", "an answer that is of no single version is not stored")
	}
	if len(t.inHTTP["srcache_store_skip"]) == 0 {
		t.extra.WriteString("srcache_store_skip $sluice_fleeting;\n")
	}
}

// sharedKey states the key of a cache that has no default one: Nginx keeps one page for all
// requests then.
func (t *transform) sharedKey(p pass, family string, stated map[*conf.Directive]bool) {
	block := locationOf(p.Node).Directive
	if block != nil && !stated[block] {
		stated[block] = true
		t.edit.Prepend(block, family+"_cache_key "+tokenVariable+";")
		t.changed(block, "cache-key", "the cache has no key, and all its requests one page: the "+
			"token of who serves is the key")
	}
}

// pageVersion sets $sluice_version before the cache is asked: on a hit no upstream is.
func (t *transform) pageVersion(p pass) {
	version, cluster := t.rules.Snippets.Version, t.clusterOf(p)
	if version == nil || cluster == "" {
		return
	}
	location := locationOf(p.Node)
	if excepted(p) || hasExcept(location) {
		if t.excepted == nil {
			t.excepted = map[*conf.Directive]exceptedPage{}
		}
		t.excepted[location.Directive] = exceptedPage{p.Node, cluster}
	}
	switch {
	case excepted(p): // where no variable may be set
	case strings.Contains(p.target, "$"):
		t.edit.InsertBefore(p.Directive, version(cluster))
	default:
		t.edit.Prepend(p.Parent(), version(cluster))
	}
}

// clusterOf is the cluster that makes the pages, as text or as a variable, "" where it is not
// known.
func (t *transform) clusterOf(p pass) string {
	switch {
	case !strings.Contains(p.target, "$"):
		if t.upstreams[strings.ToLower(p.target)] && t.routed(p.target) {
			return t.cluster(p.target)
		}
		return ""
	case p.scheme == "" && p.Name() == "proxy_pass": // a whole URL
		return ""
	}
	return t.clusterVariable(p.target)
}

// exceptedPage is the pass for the methods that limit_except excludes.
type exceptedPage struct {
	pass    conf.Node
	cluster string
}

// exceptedVersions sets $sluice_version for the methods that limit_except excludes, in a block of
// code: that one they inherit from the location, whose rewrites they do not run.
func (t *transform) exceptedVersions() {
	for n := range t.tree.All() {
		e, ok := t.excepted[n.Directive]
		if !ok || t.rules.Snippets.Excepted == nil {
			continue
		}
		delete(t.excepted, n.Directive) // a file may stand in two places
		block := t.rules.Snippets.Excepted(e.cluster)
		base := strings.TrimSuffix(block.Name, "_block")
		own := false
		for _, name := range []string{base, base + "_block", base + "_file"} {
			set, _ := t.effective(e.pass, name)
			own = own || len(set) > 0
		}
		if own {
			t.changed(n.Directive, "cache-key", "%s of the tree runs here: for the methods that "+
				"limit_except excludes, X-Sluice-Version is empty on a cache hit", base)
			continue
		}
		if uri := t.rules.Snippets.URI; t.stated && uri.Name == block.Name {
			block.Body += "\n" + uri.Body // which the block hides
		}
		t.edit.Append(n.Directive, block.Name+" {\n"+block.Body+"\n}")
		t.changed(n.Directive, "cache-key", "the version of a page, also for the methods that "+
			"limit_except excludes")
	}
}

// clusterVariable is a variable with the cluster of the upstream that the expression yields.
func (t *transform) clusterVariable(target string) string {
	renamed := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(t.upstreams)) {
		if cluster := t.cluster(name); cluster != name {
			renamed[name] = cluster
		}
	}
	for _, u := range t.added {
		renamed[strings.ToLower(u[0])] = t.cluster(u[1])
	}
	if len(renamed) == 0 {
		return target
	}
	variable := t.variable("cluster", target, "")
	if t.guards[variable] == "" {
		var b strings.Builder
		fmt.Fprintf(&b, "# The cluster of the upstream.\nmap %s %s {\n    volatile;\n    default "+
			"%s;\n", conf.Quote(target), variable, conf.Quote(target))
		for _, name := range slices.Sorted(maps.Keys(renamed)) {
			fmt.Fprintf(&b, "    %s %s;\n", mapKey(name), renamed[name])
		}
		t.guards[variable] = b.String() + "}\n"
	}
	return variable
}

// pageKey states the default key of a location with the token: scheme, host and the URI that the
// upstream is asked for.
func (t *transform) pageKey(p pass, stated map[*conf.Directive]bool) {
	location := locationOf(p.Node)
	if location.Directive == nil {
		return
	}
	host := p.scheme + "$proxy_host"
	if strings.HasPrefix(p.target, "unix:") || strings.Contains(p.target, "$") {
		host = p.scheme + p.target
	}
	variable := uriVariable(location)
	uri := ""
	switch {
	case excepted(p):
		uri = variable
	case p.rest != "" && strings.Contains(p.target+p.rest, "$"):
		uri = p.rest // all of it is there
	case t.rules.Snippets.URI.Name == "":
		uri = "$request_uri"
	default:
		uri = variable
		t.pageURI(p, location, variable)
	}
	if stated[location.Directive] {
		return
	}
	stated[location.Directive] = true
	if hasExcept(location) {
		uri = t.exceptURI(location, uri)
	}
	t.edit.Prepend(location.Directive, "proxy_cache_key "+conf.Quote(host+uri+tokenVariable)+";")
	t.changed(location.Directive, "cache-key", "the default key is stated, with the token of who "+
		"serves")
}

// locationOf is the innermost location around n, or the zero Node.
func locationOf(n conf.Node) conf.Node {
	for i := len(n.Parents) - 1; i >= 0; i-- {
		if n.Parents[i].Name() == "location" {
			return conf.Node{Directive: n.Parents[i], Parents: n.Parents[:i]}
		}
	}
	return conf.Node{}
}

// uriVariable is the variable of a location that the driver sets to the URI.
func uriVariable(location conf.Node) string {
	sum := sha256.Sum256([]byte(strings.Join(location.Args(), " ")))
	return "$sluice_uri_" + hex.EncodeToString(sum[:6])
}

// pageURI says how the driver makes the URI that it sets the variable to.
func (t *transform) pageURI(p pass, location conf.Node, variable string) {
	pattern := location.Arg(location.NumArgs() - 1)
	cut := fmt.Sprint(len(pattern))
	switch {
	case strings.HasPrefix(pattern, "@"):
		cut = "@"
	case p.rest == "":
		cut = "0"
	}
	t.stated = true
	t.edit.Prepend(p.Parent(), fmt.Sprintf("set %s \"\";\nset $sluice_before $uri;\nset "+
		"$sluice_at %s;", variable,
		conf.Quote(variable[1:]+" "+cut+" "+strings.TrimPrefix(p.rest, ":"))))
}

func excepted(p pass) bool { return p.Parent().Name() == "limit_except" }

func hasExcept(location conf.Node) bool {
	for n := range location.Children() {
		if n.Name() == "limit_except" {
			return true
		}
	}
	return false
}

// exceptURI is the URI in the key of a location with limit_except. Nginx runs none of the
// location's rewrites for the methods that it excludes, so that their URI is not known; the key of
// those has everything that the URI is made of, so that two requests with one key are asked for one
// page.
func (t *transform) exceptURI(location conf.Node, uri string) string {
	ran := uriVariable(location)
	if uri != ran {
		t.edit.Prepend(location.Directive, "set "+ran+" -;")
	} else {
		t.edit.Prepend(location.Directive, "set "+ran+" \"\";") // so that the variable exists
	}
	variable := t.variable("uri", strings.Join(location.Args(), " "), uri)
	all := variable[1:] + " $server_name:$server_port $request_uri $uri$is_args$args"
	t.guards[variable] = fmt.Sprintf("# The URI of a key, also where no rewrites of the location "+
		"ran.\nmap %s %s {\n    volatile;\n    \"\" %s;\n    default %s;\n}\n", ran, variable,
		conf.Quote(all), conf.Quote(uri))
	return variable
}
