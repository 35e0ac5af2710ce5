package transform

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// altPort is the port of a service on the same host, as Alt-Svc offers it (RFC 7838, section 3).
var altPort = regexp.MustCompile(`(h[23][a-z0-9-]*=":)([0-9]+)"`)

// altSvc maps the ports that an Alt-Svc header offers: in a directive that adds it, and in the
// texts that a set or a map gives to a variable.
func (t *transform) altSvc(n conf.Node) {
	switch n.Name() {
	case "map":
		for entry := range n.Children() {
			t.altPorts(entry, 0)
		}
	case "more_set_headers":
		for i := range n.NumArgs() {
			if name, _, _ := strings.Cut(n.Arg(i), ":"); strings.EqualFold(name, "alt-svc") {
				t.altPorts(n, i)
			}
		}
	case "set":
		t.altPorts(n, 1)
	default:
		if strings.EqualFold(n.Arg(0), "alt-svc") {
			t.altPorts(n, 1)
		}
	}
}

// altPorts maps the ports in one argument.
func (t *transform) altPorts(n conf.Node, i int) {
	to := altPort.ReplaceAllStringFunc(n.Arg(i), func(offer string) string {
		parts := altPort.FindStringSubmatch(offer)
		port, err := strconv.Atoi(parts[2])
		if to, ok := t.rules.Listen[port]; ok && err == nil {
			return parts[1] + strconv.Itoa(to) + `"`
		}
		return offer
	})
	if to != n.Arg(i) {
		t.edit.ReplaceArg(n.Directive, i, to)
		t.changed(n.Directive, "listen", "Alt-Svc offers the test ports")
	}
}
