package transform

import (
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
	for _, p := range t.passed {
		family := strings.TrimSuffix(p.Name(), "_pass")
		if len(t.below(family+"_cache")) == 0 {
			continue
		}
		if set, _ := t.effective(p.Node, family+"_cache"); len(set) == 0 || set[0].Arg(0) == "off" {
			continue
		}
		t.tokens = true
		t.pageVersion(p)
		if family != "proxy" {
			continue // the others have no default key
		}
		if set, _ := t.effective(p.Node, "proxy_cache_key"); len(set) == 0 {
			t.pageKey(p, stated)
		}
	}
}

// pageVersion sets $sluice_version before the cache is asked: on a hit no upstream is.
func (t *transform) pageVersion(p pass) {
	version := t.rules.Snippets.Version
	switch {
	case version == nil || p.Parent().Name() == "limit_except": // where no variable may be set
	case !strings.Contains(p.target, "$"):
		if t.upstreams[strings.ToLower(p.target)] && t.routed(p.target) {
			t.edit.Prepend(p.Parent(), version(t.cluster(p.target)))
		}
	case p.scheme == "" && p.Name() == "proxy_pass": // a whole URL
	default:
		t.edit.InsertBefore(p.Directive, version(t.clusterVariable(p.target)))
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
	var location *conf.Directive
	for _, b := range p.Parents {
		if b.Name() == "location" {
			location = b
		}
	}
	if location == nil {
		return
	}
	host := p.scheme + "$proxy_host"
	if strings.HasPrefix(p.target, "unix:") || strings.Contains(p.target, "$") {
		host = p.scheme + p.target
	}
	uri := ""
	switch {
	case p.rest != "" && strings.Contains(p.target+p.rest, "$"):
		uri = p.rest // all of it is there
	case p.scheme == "" || t.rules.Snippets.URI.Name == "":
		uri = "$request_uri"
	default:
		uri = t.pageURI(p, location)
	}
	if !stated[location] {
		stated[location] = true
		t.edit.Prepend(location, "proxy_cache_key "+conf.Quote(host+uri+tokenVariable)+";")
		t.changed(location, "cache-key", "the default key is stated, with the token of who serves")
	}
}

// pageURI names a variable that the driver sets to the URI, and says how.
func (t *transform) pageURI(p pass, location *conf.Directive) string {
	pattern := location.Arg(location.NumArgs() - 1)
	sum := sha256.Sum256([]byte(strings.Join(location.Args(), " ")))
	name := "sluice_uri_" + hex.EncodeToString(sum[:6])
	if p.Parent().Name() == "limit_except" {
		return "$" + name
	}
	cut := fmt.Sprint(len(pattern))
	switch {
	case strings.HasPrefix(pattern, "@"):
		cut = "@"
	case p.rest == "":
		cut = "0"
	}
	t.stated = true
	t.edit.Prepend(p.Parent(), fmt.Sprintf("set $%s \"\";\nset $sluice_before $uri;\nset "+
		"$sluice_at %s;", name,
		conf.Quote(name+" "+cut+" "+strings.TrimPrefix(p.rest, ":"))))
	return "$" + name
}
