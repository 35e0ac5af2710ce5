package transform

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// code reports whether a directive holds a program: the table says so, or it has the name of its
// kind.
func code(name string) bool {
	return directives()[name].is(program) || strings.Contains(name, "_by_lua_") ||
		strings.HasPrefix(name, "js_") ||
		strings.HasPrefix(name, "perl_") || strings.HasPrefix(name, "passenger_") ||
		strings.HasPrefix(name, "mruby_") ||
		strings.HasPrefix(name, "proxy_wasm")
}

// code refuses programs in the configuration unless the rules trust them, and reports the trusted
// ones as changes.
func (t *transform) code(n conf.Node) {
	if !t.rules.TrustCode {
		t.refuse(n.Directive, "%s: code can open connections that no rule sees; set trustCode in "+
			"the rules to accept it", n.Name())
		return
	}
	t.changed(n.Directive, "code", "%s is kept as it is: trustCode is set, and what it connects "+
		"to no rule sees", n.Name())
}

func (t *transform) egress(n conf.Node) {
	name := n.Name()
	switch {
	case name == "resolver":
		if t.rules.Resolver == "" {
			t.edit.Remove(n.Directive)
			t.changed(n.Directive, "resolver", "production's resolver is removed: a name that no "+
				"upstream has stays unresolved")
			return
		}
		t.edit.ReplaceArgs(n.Directive, strings.Fields(t.rules.Resolver)...)
		t.changed(n.Directive, "resolver", "the resolver is %s", t.rules.Resolver)
	case n.Arg(0) == "off":
	case strings.HasSuffix(name, "_bind"):
		t.edit.ReplaceArgs(n.Directive, "off")
		t.changed(n.Directive, "egress", "%s: the source address is one of production's machines",
			name)
	default:
		t.edit.ReplaceArgs(n.Directive, "off")
		t.changed(n.Directive, "egress", "%s would ask the certificate's issuer", name)
	}
}

// inertSuffixes end the names of directives that are inert in any case, with or without an entry in
// the table.
var inertSuffixes = []string{"_set_header", "_param", "_pass", "_bind", "_cache_key",
	"_cache_purge", "_set_headers", "_set_input_headers", "_zone", "_store"}

// skipChildren reports whether the rules ignore the content of the block, except include: table
// entries, or the body of an upstream that the driver replaces.
func (t *transform) skipChildren(block *conf.Directive) bool {
	return block != nil && (t.info(block.Name()).is(table) || block.Name() == "upstream" &&
		t.routed(block.Arg(0)))
}

// mayNameHost reports whether an argument of the directive may be a machine to connect to.
func mayNameHost(name string) bool {
	return !directives()[name].is(inert|outbound) &&
		!slices.ContainsFunc(inertSuffixes, func(s string) bool {
			return strings.HasSuffix(name, s)
		})
}

// hostPort matches a text that begins with a name and a port, such as consul.example:8500/v1.
var hostPort = regexp.MustCompile(
	`^(?:[A-Za-z0-9_-]+\.[A-Za-z0-9._-]*[A-Za-z]|localhost):[0-9]{1,5}(?:/|$)`)

// namesHost reports whether an argument names a machine, or several with commas between them. It
// does not recognize a text that could be any word: a host without dots ("kafka1:9092", "db-7"), a
// name without a port ("redis.internal"), a unix socket.
func namesHost(arg string) bool {
	if first, others, ok := strings.Cut(arg, ","); ok && !strings.Contains(arg, "://") {
		return namesHost(first) || namesHost(others)
	}
	if _, value, ok := strings.Cut(arg, "="); ok {
		arg = value
	}
	if strings.Contains(arg, "://") {
		return true
	}
	if !strings.ContainsAny(arg, ".:") {
		return false
	}
	host, _, _ := strings.Cut(arg, "/")
	if _, err := netip.ParseAddrPort(host); err == nil {
		return true
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil &&
		(a.Is4() || strings.Count(host, ":") > 1) {
		return true
	}
	return hostPort.MatchString(arg)
}

// connects refuses a directive that may open a connection that the rules do not map: one that is
// known to open connections, and any other that names a machine and is not known to leave it alone.
func (t *transform) connects(n conf.Node) {
	name := n.Name()
	if slices.Contains(t.rules.Accept, name) {
		t.changed(n.Directive, "accept", "%s is kept as it is: the rules accept it", name)
		return
	}
	if t.info(name).is(opens) {
		if n.NumArgs() == 1 && n.Arg(0) == "off" {
			return
		}
		t.refuse(n.Directive, "%s: it opens connections that nothing maps; name it in the rules "+
			"under drop to leave it out, or under accept to keep it", name)
		return
	}
	for i := range n.NumArgs() {
		if a := n.Arg(i); namesHost(a) {
			t.refuse(n.Directive, "%s %s: nothing says what this address is for; name %s in the "+
				"rules under drop to leave it out, or under accept if it connects to nothing of "+
				"production",
				name, a, name)
			return
		}
	}
}

// dropped removes a directive that the rules drop, and reports whether the directive is dropped, by
// itself or with a block around it.
func (t *transform) dropped(n conf.Node) bool {
	if len(t.rules.Drop) == 0 {
		return false
	}
	for _, p := range n.Parents {
		if slices.Contains(t.rules.Drop, p.Name()) {
			return true
		}
	}
	if !slices.Contains(t.rules.Drop, n.Name()) {
		return false
	}
	t.edit.Remove(n.Directive)
	t.changed(n.Directive, "drop", "%s is left out", n.Name())
	return true
}
