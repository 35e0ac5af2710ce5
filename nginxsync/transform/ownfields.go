package transform

import (
	"fmt"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// field is a header, or a parameter that stands for one, which a block sets by a directive.
type field struct {
	block           *conf.Directive
	directive, name string // the name in lower case
}

// ownField edits a header of the tree that the transform would add a second time, so that
// instances get one: the VIP takes the place of the tree's, and the tree's baggage comes behind
// the VIP's.
func (t *transform) ownField(n conf.Node) {
	name := strings.ToLower(n.Arg(0))
	const vip, member = "$sluice_vip", "$sluice_baggage"
	switch name {
	case "x-env-vip", "http_x_env_vip":
		t.edit.ReplaceArg(n.Directive, 1, vip)
	case "baggage", "http_baggage":
		if !t.addsBaggage() {
			return
		}
		t.edit.ReplaceArg(n.Directive, 1, t.joined(member, n.Arg(1)))
	default:
		return
	}
	t.changed(n.Directive, "headers", "%s goes out once, with the VIP", n.Arg(0))
	if t.own == nil {
		t.own = map[field]bool{}
	}
	t.own[field{n.Parent(), n.Name(), name}] = true
}

// joined is the value of baggage that has the VIP's member and the tree's.
func (t *transform) joined(member, value string) string {
	switch {
	case value == "" || value == "$http_baggage" || value == "${http_baggage}":
		return member // which has the members of the request
	case !strings.Contains(value, "$"):
		return member + "," + value
	}
	variable := t.variable("baggage", value, "")
	t.guards[variable] = fmt.Sprintf("# The baggage of the tree.\nmap %s %s {\n    volatile;\n"+
		"    \"\" %s;\n    default %s;\n}\n", conf.Quote(value), variable, member,
		conf.Quote(member+","+value))
	return variable
}

// without leaves out the added lines whose header a block sets itself.
func (t *transform) without(block *conf.Directive, h header) []string {
	if len(t.own) == 0 {
		return h.lines
	}
	var lines []string
	for _, line := range h.lines {
		_, rest, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(rest, " ")
		if !t.own[field{block, h.directive, strings.ToLower(name)}] {
			lines = append(lines, line)
		}
	}
	return lines
}

// addsBaggage reports whether instances get the VIP in a header baggage, too.
func (t *transform) addsBaggage() bool { return t.rules.chosen() && len(t.rules.TrustVIPHeader) > 0 }
