package transform

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// passes reports whether the argument of a directive is where requests go to: proxy_pass and its
// kind, of any module.
func passes(name string) bool {
	return strings.HasSuffix(name, "_pass") && name != "upload_pass" // which names a location
}

// pass is a directive that passes requests on, with the parts of its argument as they are in the
// transformed tree.
type pass struct {
	conf.Node
	scheme, target, rest string
}

// argument is the whole of the directive's argument.
func (p pass) argument() string { return p.scheme + p.target + p.rest }

// rule returns the rules' new target for the target of a pass: rules by place come first, then
// rules by text.
func (t *transform) rule(n conf.Node, target, rest string) (to string, ok, byPlace bool) {
	for _, r := range t.rules.PassAt {
		if r.matches(n, target) {
			return r.To, true, true
		}
	}
	if to, ok := t.rules.Pass[target]; ok {
		return to, true, false
	}
	to, ok = t.rules.Pass[target+rest]
	if ok && to == target+rest {
		to = target
	}
	return to, ok, false
}

func (r PassRule) matches(n conf.Node, target string) bool {
	if r.Target != "" && r.Target != target {
		return false
	}
	if ok, _ := path.Match(r.File, n.File().Name); r.File != "" && !ok {
		return false
	}
	server, location := r.Server == "", r.Location == ""
	for i, p := range n.Parents {
		switch p.Name() {
		case "server":
			for c := range (conf.Node{Directive: p, Parents: n.Parents[:i]}).Children() {
				server = server || c.Name() == "server_name" && slices.Contains(c.Args(), r.Server)
			}
		case "location":
			location = location || strings.Join(p.Args(), " ") == r.Location
		}
	}
	return server && location
}

// pass lets a request go to an upstream of the tree, or to the target that the rules give, and
// nowhere else.
func (t *transform) pass(n conf.Node) {
	if n.NumArgs() == 0 {
		return
	}
	p := pass{Node: n}
	p.scheme, p.target, p.rest = splitTarget(t.secretQuery(n.Arg(0)))
	before, ok := p.argument(), false
	if strings.Contains(p.target, "$") {
		ok = t.passVariable(&p)
	} else {
		ok = t.passLiteral(&p)
	}
	if !ok {
		return
	}
	switch {
	case p.argument() != before:
		t.edit.ReplaceArg(n.Directive, 0, p.argument())
	case before != n.Arg(0):
		t.stripTo(n, 0, "a parameter", before)
	}
	t.passed = append(t.passed, p)
}

func (t *transform) passLiteral(p *pass) bool {
	to, ok, byPlace := t.rule(p.Node, p.target, p.rest)
	if t.inTree[strings.ToLower(p.target)] && !byPlace || ok && to == p.target {
		if ok && to == p.target {
			t.changed(p.Directive, "pass", "%s is accepted as it is by the rules", p.target)
		}
		t.speaks(p.Node, p.scheme, p.target)
		return true
	}
	if !ok {
		t.refuse(p.Directive, "%s %s: %q is not an upstream of the tree; map it to one in the "+
			"rules under pass", p.Name(), p.Arg(0), p.target)
		return false
	}
	name, ok := t.reach(p.Node, p.scheme, p.target, to)
	if !ok {
		return false
	}
	t.changed(p.Directive, "pass", "%s is mapped to %s", p.target, to)
	t.redirects(p)
	if strings.HasPrefix(p.target, "unix:") && !strings.HasPrefix(name, "unix:") {
		p.rest = strings.TrimPrefix(p.rest, ":")
	}
	p.target = name
	return true
}

// effective are the directives of a name that count where n stands, with the block that has them:
// those of the innermost block that has any.
func (t *transform) effective(n conf.Node, name string) (found []conf.Node, block *conf.Directive) {
	for i := len(n.Parents) - 1; i >= 0 && len(found) == 0; i-- {
		block = n.Parents[i]
		if i == 0 {
			return t.inHTTP[name], block
		}
		for c := range (conf.Node{Directive: block, Parents: n.Parents[:i]}).Children() {
			if c.Name() == name {
				found = append(found, c)
			}
		}
	}
	return found, block
}

// reach returns the replacement of the target: an address, or an upstream, which is added when the
// tree has none of the name. The upstream sees the Host and, over TLS, the name that it would see
// in production.
func (t *transform) reach(n conf.Node, scheme, target, to string) (string, bool) {
	_, err := netip.ParseAddrPort(to)
	literal := err == nil || strings.HasPrefix(to, "unix:")
	if !literal && !t.upstreams[strings.ToLower(to)] {
		if t.rules.Snippets.Upstream == nil {
			t.refuse(n.Directive, "%s %s: no driver, and the tree has no upstream %q", n.Name(),
				n.Arg(0), to)
			return "", false
		}
		if err := names.Cluster(t.cluster(to)); err != nil {
			t.refuse(n.Directive, "%s %s: upstream %q is added by the rules under pass: %v",
				n.Name(), n.Arg(0), to, err)
			return "", false
		}
	}
	name := to
	if host, hosted := t.hostOf(n, scheme, target); hosted {
		name = t.hostUpstream(to, host, literal)
		t.keepHost(n, scheme)
	}
	if !literal || name != to {
		t.addUpstream(name, to)
	}
	t.speaks(n, scheme, name)
	return name, true
}

// hostOf returns the value of $proxy_host in production, and whether the upstream gets to see it. A
// target of "" is not known.
func (t *transform) hostOf(n conf.Node, scheme, target string) (string, bool) {
	if n.Name() != "proxy_pass" || target == "" {
		return "", false
	}
	host := target
	switch {
	case strings.HasPrefix(target, "unix:"):
		host = "localhost"
	case scheme == "http://":
		host = strings.TrimSuffix(target, ":80")
	case scheme == "https://":
		host = strings.TrimSuffix(target, ":443")
	}
	if scheme != "http://" {
		return host, true
	}
	set, _ := t.effective(n, "proxy_set_header")
	return host, t.mentionsHost() || !slices.ContainsFunc(set, func(c conf.Node) bool {
		return strings.EqualFold(c.Arg(0), "host")
	})
}

// hostUpstream is the name of the upstream that stands for a host of production: the one that the
// rules name, or a name made of both where that upstream stands for another host, too.
func (t *transform) hostUpstream(to, host string, literal bool) string {
	key := strings.ToLower(to)
	known, used := t.hosts[key]
	if used && known == host || !used && !t.inTree[key] && !literal {
		t.hosts[key] = host
		return to
	}
	sum := sha256.Sum256([]byte(host))
	name := "sluice_" + identifier(to) + "_" + hex.EncodeToString(sum[:4])
	t.hosts[strings.ToLower(name)] = host
	return name
}

// keepHost has the upstream see the Host and the name of production, where the tree says nothing
// else.
func (t *transform) keepHost(n conf.Node, scheme string) {
	set, block := t.effective(n, "proxy_set_header")
	named := slices.ContainsFunc(set, func(c conf.Node) bool {
		return strings.EqualFold(c.Arg(0), "host")
	})
	if len(set) > 0 && !named && block.Name() != "http" {
		t.edit.Append(block, "proxy_set_header Host $sluice_host;")
		t.changed(block, "headers", "an upstream that takes the place of a host sees "+
			"production's Host")
	} else if !named {
		t.hostHeader = true
	}
	if name, _ := t.effective(n, "proxy_ssl_name"); scheme != "http://" && len(name) == 0 {
		t.hostName = true
	}
}

// writeHosts adds $sluice_host, which has the value of $proxy_host in production.
func (t *transform) writeHosts() {
	if len(t.hosts) == 0 && !t.keyedByHost {
		return
	}
	t.extra.WriteString("# What $proxy_host is in production.\nmap $proxy_host $sluice_host {\n  " +
		"  volatile;\n    default $proxy_host;\n")
	for _, name := range slices.Sorted(maps.Keys(t.hosts)) {
		fmt.Fprintf(&t.extra, "    %s %s;\n", mapKey(name), conf.Quote(t.hosts[name]))
	}
	t.extra.WriteString("}\n")
	if t.mentionsHost() {
		t.extra.WriteString("# What $proxy_port is in production.\nmap $proxy_host $sluice_port {\n" +
			"    volatile;\n    default $proxy_port;\n")
		for _, name := range slices.Sorted(maps.Keys(t.hosts)) {
			if _, port, err := net.SplitHostPort(t.hosts[name]); err == nil {
				fmt.Fprintf(&t.extra, "    %s %s;\n", mapKey(name), conf.Quote(port))
			}
		}
		t.extra.WriteString("}\n")
	}
	if t.hostHeader {
		t.extra.WriteString("proxy_set_header Host $sluice_host;\n")
	}
	if t.hostName {
		t.extra.WriteString("proxy_ssl_name $sluice_host;\n")
	}
}

// proxyHost matches the variables of the host that a request is passed to.
var proxyHost = regexp.MustCompile(`\$(?:proxy_(host|port)\b|\{proxy_(host|port)\})`)

// mentionsHost reports whether the tree itself names one of these variables.
func (t *transform) mentionsHost() bool {
	if t.mentions == nil {
		yes := false
		for _, f := range t.tree.Files() {
			yes = yes || strings.Contains(f.Text, "proxy_host") ||
				strings.Contains(f.Text, "proxy_port")
		}
		t.mentions = &yes
	}
	return *t.mentions
}

// productionHost is the text with the host that a request is passed to in production.
func (t *transform) productionHost(text string) string {
	if len(t.rules.Pass)+len(t.rules.PassAt) == 0 || !strings.Contains(text, "proxy_") {
		return text // no host is mapped, or it names none
	}
	return proxyHost.ReplaceAllString(text, "$${sluice_$1$2}")
}

// productionHosts has the directives of the tree use the host that a request is passed to in
// production.
func (t *transform) productionHosts(http conf.Node) {
	if len(t.hosts) == 0 || !t.mentionsHost() {
		return
	}
	for n := range http.All() {
		name := n.Name()
		// a key is edited already, and no rewrite knows the host yet
		if t.info(name).is(keys) || setsVariable(name) || passes(name) || holders[name] &&
			t.secret(n.Arg(0)) {
			continue
		}
		for i := range n.NumArgs() {
			if to := t.productionHost(n.Arg(i)); to != n.Arg(i) {
				t.edit.ReplaceArg(n.Directive, i, to)
				t.changed(n.Directive, "headers", "$proxy_host and $proxy_port are production's")
			}
		}
	}
}

// speaks notes in which protocol an upstream is asked where n stands.
func (t *transform) speaks(n conf.Node, scheme, upstream string) {
	key := strings.ToLower(upstream)
	if n.Name() != "proxy_pass" || scheme != "http://" || t.http2(n) {
		t.spoken[key] = true
	}
	if scheme != "http://" && strings.HasPrefix(scheme, "http") || scheme == "grpcs://" ||
		strings.Contains(scheme, "$") {
		t.tls[key] = true
	}
}

// http2 reports whether upstreams are asked by HTTP/2, which Nginx knows since 1.29.4.
func (t *transform) http2(n conf.Node) bool {
	version, _ := t.effective(n, "proxy_http_version")
	return len(version) > 0 && version[0].Arg(0) == "2"
}

// plain reports whether everything that asks the upstream speaks plain HTTP/1 to it.
func (t *transform) plain(upstream string) bool {
	return !t.speaksAny && !t.spoken[strings.ToLower(upstream)]
}

// addUpstream adds an upstream for the cluster of another one, unless it is there.
func (t *transform) addUpstream(name, of string) {
	if key := strings.ToLower(name); !t.upstreams[key] {
		t.upstreams[key] = true
		t.added = append(t.added, [2]string{name, of})
	}
}

func (t *transform) addUpstreams() {
	for _, u := range t.added {
		name, of := u[0], u[1]
		text := ""
		if _, err := netip.ParseAddrPort(of); err == nil || strings.HasPrefix(of, "unix:") {
			text = "server " + conf.Quote(of) + ";"
		} else {
			text = t.rules.Snippets.Upstream(Upstream{Name: name, Cluster: t.cluster(of),
				Plain: t.plain(name)})
		}
		t.extra.WriteString("upstream " + conf.Quote(name) + " {\n    " +
			strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n    ") + "\n}\n")
	}
}

// splitTarget cuts the argument of a pass directive into scheme, host and port, and URI. A scheme
// with another variable than $scheme, which is http or https, is of the target: it may yield a
// whole address.
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
	if i := uriStart(value); i >= 0 {
		target, rest = value[:i], value[i:]
	}
	if strings.Contains(scheme, "$") && scheme != "$scheme://" && scheme != "${scheme}://" {
		scheme, target = "", scheme+target
	}
	return scheme, target, rest
}

// pathVariables are those whose value begins a URI.
var pathVariables = set("$document_uri", "$request_uri", "$uri", "${document_uri}",
	"${request_uri}", "${uri}", "$is_args", "${is_args}")

// uriStart is where the URI begins behind the host, or -1.
func uriStart(value string) int {
	first := strings.IndexAny(value, "/?")
	for _, m := range variablePart.FindAllStringIndex(value, -1) {
		if (first < 0 || m[0] < first) && m[0] > 0 && pathVariables[value[m[0]:m[1]]] {
			return m[0]
		}
	}
	return first
}
