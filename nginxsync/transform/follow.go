package transform

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// maxValues is how many texts an expression may have before the transform gives up following it.
const maxValues = 512

// passVariable handles a target with variables. It stays a variable, since Nginx does not map the
// URI of those as it does of literal ones.
func (t *transform) passVariable(p *pass) bool {
	to, ruled, _ := t.rule(p.Node, p.target, p.rest)
	values, followed := t.expand(p.Node, p.target, 0)
	switch {
	case ruled && to != p.target:
		return t.passTo(p, to)
	case followed:
		return t.passValues(p, values, ruled)
	case ruled:
		return t.guard(p)
	}
	t.refuse(p.Directive, "%s %s: the target is known only at run time; map %q to an upstream, "+
		"or to itself if it yields only names of upstreams, in the rules under pass",
		p.Name(), p.Arg(0), p.target)
	return false
}

// passTo maps every value of the expression to one upstream.
func (t *transform) passTo(p *pass, to string) bool {
	scheme, whole := p.scheme, p.scheme == "" && p.Name() == "proxy_pass"
	if whole {
		scheme = "http://" // the expression had it
	}
	host := p.target
	if whole {
		host = "" // it stands within what the expression yields
	}
	name, ok := t.reach(p.Node, scheme, host, to)
	if !ok {
		return false
	}
	t.changed(p.Directive, "pass", "%s is mapped to %s", p.target, to)
	if whole {
		name = scheme + name
	}
	variable := t.variable("pass", p.target, name)
	t.guards[variable] = fmt.Sprintf("# %s is mapped.\nmap \"\" %s {\n    default %s;\n}\n",
		p.target, variable, conf.Quote(name))
	p.target = variable
	return true
}

// passValues maps each text that the expression may have like a literal one. Where all are
// upstreams nothing changes. held is whether the rules accept the expression as far as it yields
// upstreams: then other texts are answered with 500, else refused.
func (t *transform) passValues(p *pass, values []string, held bool) bool {
	whole := p.scheme == "" && p.Name() == "proxy_pass"
	table := map[string]string{}
	same := !t.rules.TrustCode // which may set the variable to something else
	good, mapped := true, false
	for _, value := range values {
		scheme, host, rest := p.scheme, value, ""
		switch {
		case whole:
			scheme, host, rest = splitTarget(value)
		case strings.HasSuffix(value, ":") && strings.HasPrefix(value, "unix:"):
			host, rest = value[:len(value)-1], ":" // the URI follows
		case strings.HasSuffix(value, ":"):
			continue // Nginx answers 500: the port is missing
		}
		if host == "" {
			continue
		}
		name := host
		if !t.inTree[strings.ToLower(host)] {
			to, ok, _ := t.rule(p.Node, host, rest)
			if !ok && held {
				t.changed(p.Directive, "pass", "%s, which %s may yield, is answered with 500",
					value, p.target)
				same, mapped = false, true
				continue
			}
			if !ok {
				t.refuse(p.Directive, "%s %s: %q, which %s may yield, is not an upstream of the "+
					"tree; map it to one in the rules under pass",
					p.Name(), p.Arg(0), host, p.target)
				good = false
				continue
			}
			if to != host {
				if name, ok = t.reach(p.Node, scheme, host, to); !ok {
					good = false
					continue
				}
				if strings.HasPrefix(host, "unix:") && !strings.HasPrefix(name, "unix:") {
					rest = strings.TrimPrefix(rest, ":")
				}
			}
		} else {
			t.speaks(p.Node, scheme, host)
		}
		yields := name + rest
		if whole {
			yields = scheme + yields
		}
		table[value] = yields
		same = same && yields == value
		mapped = mapped || yields != value
	}
	if good && !same && !mapped && held && !whole {
		return t.guard(p) // to which code may set it as well
	}
	if !good || same {
		if same {
			t.changed(p.Directive, "pass", "%s yields names of upstreams only: %s", p.target,
				shortList(values))
		}
		return good
	}
	var b strings.Builder
	keys := slices.Sorted(maps.Keys(table))
	written, times := map[string]string{}, map[string]int{} // by key in lower case, as in Nginx
	for _, value := range keys {
		times[strings.ToLower(value)]++
	}
	for _, value := range keys {
		yields, lower := table[value], strings.ToLower(value)
		if yields == value && times[lower] > 1 {
			yields = p.target // in the case that it has
		}
		first, again := written[lower]
		if again && first != yields {
			t.refuse(p.Directive, "%s %s: %s may yield texts that differ in case only, such as "+
				"%q, which a map cannot tell apart; map %q to one upstream in the rules under "+
				"pass", p.Name(), p.Arg(0), p.target, value, p.target)
			return false
		}
		if written[lower] = yields; !again {
			fmt.Fprintf(&b, "    %s %s;\n", mapKey(value), conf.Quote(yields))
		}
		if table[value] != value {
			t.changed(p.Directive, "pass", "%s, which %s may yield, is mapped to %s", value,
				p.target, table[value])
		}
	}
	variable := t.variable("pass", p.target, b.String())
	t.guards[variable] = fmt.Sprintf("# What %s may yield.\nmap %s %s {\n    volatile; # another "+
		"location may set it to another value\n    default \"\";\n%s}\n",
		p.target, conf.Quote(p.target), variable, b.String())
	p.target = variable
	return true
}

func shortList(values []string) string {
	if len(values) > 8 {
		return fmt.Sprintf("%s and %d more", strings.Join(values[:8], ", "), len(values)-8)
	}
	return strings.Join(values, ", ")
}

// variable names a variable after its purpose, so that the name stays when production changes
// elsewhere. It has at most 46 bytes: longer ones do not fit the default variables_hash_bucket_size
// of Nginx, 64.
func (t *transform) variable(kind, expression, content string) string {
	sum := sha256.Sum256([]byte(expression + "\n" + content))
	plain := strings.Trim(strings.Map(func(r rune) rune {
		if alphanumeric(r) {
			return r
		}
		return '_'
	}, expression), "_")
	return "$sluice_" + kind + "_" + plain[:min(len(plain), 22)] + "_" + hex.EncodeToString(sum[:4])
}

// address matches a text that Nginx takes for an address to connect to, and not for a name: see
// ngx_parse_url.
const address = `^(?:unix:|\[|[0-9.]+(?:[:/?]|$))`

var addressPattern = regexp.MustCompile("(?i)" + address)

// guard lets an expression through as far as it yields the name of an upstream.
func (t *transform) guard(p *pass) bool {
	if p.scheme == "" && strings.HasPrefix(p.Name(), "proxy") {
		t.refuse(p.Directive, "%s %s: the scheme too is known only at run time, so nothing can "+
			"hold it to upstreams; map %q to an upstream in the rules under pass",
			p.Name(), p.Arg(0), p.target)
		return false
	}
	if p.Name() != "proxy_pass" || p.scheme != "http://" || t.http2(p.Node) {
		t.speaksAny = true
	}
	variable := t.variable("pass", p.target, "")
	t.guards[variable] = p.target
	t.changed(p.Directive, "pass", "%s is accepted as far as it yields the name of an upstream",
		p.target)
	p.target = variable
	return true
}

// writeGuards adds the maps that the guards need, when all upstreams are known.
func (t *transform) writeGuards(http conf.Node) {
	if len(t.guards) == 0 {
		return
	}
	for _, need := range []struct {
		name string
		size int
	}{{"map_hash_bucket_size", 256}, {"map_hash_max_size", 65536}} {
		line := fmt.Sprintf("%s %d;", need.name, need.size)
		have := t.inHTTP[need.name]
		if len(have) == 0 {
			t.edit.Prepend(http.Directive, line) // before the first map, as Nginx wants it
		} else if size, err := strconv.Atoi(have[0].Arg(0)); err == nil && size < need.size {
			t.edit.ReplaceArg(have[0].Directive, 0, strconv.Itoa(need.size))
			t.changed(have[0].Directive, "pass", "%s grows to %d, for the maps of targets",
				need.name, need.size)
		}
	}
	for _, variable := range slices.Sorted(maps.Keys(t.guards)) {
		text := t.guards[variable]
		if !strings.HasPrefix(text, "#") {
			text = t.guardText(variable, text)
		}
		t.extra.WriteString(text)
	}
}

// guardText is the map of a guard. Without a resolver a name that no upstream has leads nowhere,
// and addresses alone must be held back; with one only the names of upstreams may pass. The
// expression cannot match a request's captures away: Nginx evaluates it only for values that would
// not pass.
func (t *transform) guardText(variable, target string) string {
	var b strings.Builder
	other, closed := conf.Quote(target), t.rules.Resolver != ""
	if closed {
		other = `""`
	}
	fmt.Fprintf(&b, "# %s reaches upstreams and nothing else.\nmap %s %s {\n    volatile; # "+
		"another location may set it to another value\n    default %s;\n",
		target, conf.Quote(target), variable, other)
	if !closed {
		fmt.Fprintf(&b, "    \"~*%s\" \"\";\n", strings.ReplaceAll(address, `\`, `\\`))
	}
	for _, name := range slices.Sorted(maps.Keys(t.upstreams)) {
		if closed || addressPattern.MatchString(name) {
			fmt.Fprintf(&b, "    %s %s;\n", mapKey(name), conf.Quote(target))
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// mapKey is a name as the key of a map, where some words and signs at the beginning have a meaning
// of their own.
func mapKey(name string) string {
	if strings.ContainsAny(name[:1], "~\\") ||
		slices.Contains([]string{"default", "include", "volatile", "hostnames"}, name) {
		return conf.Quote("\\" + name)
	}
	return conf.Quote(name)
}

// expand returns every text that the expression may have where n stands, sorted, or false when the
// tree does not say. $scheme is http or https; other variables of Nginx and of the request are not
// known.
func (t *transform) expand(n conf.Node, expression string, depth int) ([]string, bool) {
	texts := []string{""}
	add := func(parts []string) bool {
		if len(texts)*len(parts) > maxValues {
			return false
		}
		var longer []string
		for _, a := range texts {
			for _, b := range parts {
				longer = append(longer, a+b)
			}
		}
		texts = longer
		return true
	}
	at := 0
	for _, m := range variablePart.FindAllStringIndex(expression, -1) {
		parts, ok := t.valuesOf(n, strings.Trim(expression[m[0]:m[1]], "${}"), depth)
		if !ok || !add([]string{expression[at:m[0]]}) || !add(parts) {
			return nil, false
		}
		at = m[1]
	}
	if strings.Contains(expression[at:], "$") || !add([]string{expression[at:]}) {
		return nil, false
	}
	slices.Sort(texts)
	return slices.Compact(texts), true
}

// valuesOf returns the texts that a variable may have where n stands. The location's own values
// come first, then those of the server, then tables and other locations of the server.
func (t *transform) valuesOf(n conf.Node, name string, depth int) (values []string, ok bool) {
	name = strings.ToLower(name)
	if name == "scheme" {
		return []string{"http", "https"}, true
	}
	if depth > 8 {
		return nil, false
	}
	defs := t.definitions(name)
	if defs.other {
		return nil, false
	}
	sets, tables := defs.sets, defs.tables
	var location, server *conf.Directive
	for _, p := range n.Parents {
		switch p.Name() {
		case "location":
			location = p
		case "server":
			server = p
		}
	}
	if local := inside(sets, location); n.Parent().Name() != "limit_except" &&
		always(local, location) {
		sets, tables = local, nil
	} else if sets = inside(sets, server); always(sets, server) {
		tables = nil
	}
	for _, s := range sets {
		more, ok := t.expand(s, s.Arg(1), depth+1)
		if !ok {
			return nil, false
		}
		values = append(values, more...)
	}
	for _, table := range tables {
		for c := range table.Children() {
			if c.NumArgs() != 1 || c.Name() == "include" || table.Name() == "geo" &&
				slices.Contains([]string{"proxy", "delete"}, c.Name()) {
				continue
			}
			more, ok := t.expand(table, c.Arg(0), depth+1)
			if !ok {
				return nil, false
			}
			values = append(values, more...)
		}
	}
	return values, len(sets)+len(tables) > 0 && len(values) <= maxValues
}

// inside are the nodes within the block.
func inside(nodes []conf.Node, block *conf.Directive) (in []conf.Node) {
	for _, n := range nodes {
		if block != nil && slices.Contains(n.Parents, block) {
			in = append(in, n)
		}
	}
	return in
}

// always reports whether the block itself has one of the nodes, and every request that the block's
// rewrites leave in it has come by that one: no break stands before it.
func always(nodes []conf.Node, block *conf.Directive) bool {
	if block == nil {
		return false
	}
	i := slices.IndexFunc(nodes, func(n conf.Node) bool { return n.Parent() == block })
	if i < 0 {
		return false
	}
	set := nodes[i]
	for c := range (conf.Node{Directive: block, Parents: set.Parents[:len(set.Parents)-1]}).
		Children() {
		if c.Directive == set.Directive {
			return true
		}
		if breaks(c) {
			return false
		}
	}
	return false
}

// breaks reports whether a directive may end the rewrites of its block and leave the request there.
func breaks(n conf.Node) bool {
	switch n.Name() {
	case "break":
		return true
	case "rewrite":
		return n.Arg(2) == "break"
	case "if":
		for c := range n.Children() {
			if breaks(c) {
				return true
			}
		}
	}
	return false
}

// definitions holds the directives that give a variable its value.
type definitions struct {
	sets, tables []conf.Node
	other        bool // something else does, too
}

var none definitions

func (t *transform) definitions(name string) *definitions {
	if t.defined == nil {
		t.defined = map[string]*definitions{}
		of := func(variable string) *definitions {
			variable = variableName(variable)
			if t.defined[variable] == nil {
				t.defined[variable] = &definitions{}
			}
			return t.defined[variable]
		}
		for _, n := range t.setters {
			switch d := of(n.Arg(0)); {
			case n.Name() == "set":
				d.sets = append(d.sets, n)
			default:
				d.other = true
			}
		}
		for _, n := range t.tables {
			d := of(n.Arg(n.NumArgs() - 1))
			d.tables = append(d.tables, n)
		}
	}
	d := t.defined[strings.ToLower(name)]
	if d == nil {
		return &none
	}
	d.other = d.other || t.captures()[strings.ToLower(name)]
	return d
}

// captureName matches the name of a group of an expression.
var captureName = regexp.MustCompile(`\?P?[<']([A-Za-z_]\w*)[>']`)

// captures are the names of the groups of all expressions of the tree, in lower case: Nginx makes
// variables of them.
func (t *transform) captures() map[string]bool {
	if t.captured == nil {
		t.captured = map[string]bool{}
		for _, f := range t.tree.Files() {
			for _, m := range captureName.FindAllStringSubmatch(f.Text, -1) {
				t.captured[strings.ToLower(m[1])] = true
			}
		}
	}
	return t.captured
}

// variableName is the name of a variable as Nginx compares it: in lower case, without the "$".
func variableName(text string) string { return strings.ToLower(strings.TrimPrefix(text, "$")) }
