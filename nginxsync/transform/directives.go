package transform

import (
	_ "embed"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

//go:embed directives.tsv
var directivesTSV string

// directive is a row of directives.tsv.
type directive struct {
	source string // nginx, nginx-plus, openresty, tengine, angie, third-party
	module string
	does   deeds
	writes string // where the path stands that Nginx writes to: see place
	reads  string // where the path stands that Nginx reads only
	undo   string // undoes in a server what it inherits from the http context
}

// deeds is a set of the effects of a directive that concern a rule.
type deeds uint16

const (
	// opens connections that nothing maps
	opens deeds = 1 << iota
	// talks to others on Nginx's own account, and can be turned off or elsewhere
	outbound
	// names addresses and connects to none, or another rule looks at them
	inert
	// holds or loads a program
	program
	// writes a file
	writes
	// reads a file
	reads
	// states the key under which Nginx keeps something
	keys
	// keeps data in which no rule separates the versions
	shares
	// shows or changes the state of Nginx
	status
	// chooses among the servers of an upstream
	picks
	// holds connections of an upstream, or the file or zone of it
	pools
	// is a block of entries, which are no directives
	table
)

var deedNames = map[string]deeds{
	"opens": opens, "outbound": outbound, "inert": inert, "code": program, "writes": writes,
	"reads": reads, "keys": keys,
	"shares": shares, "status": status, "picks": picks, "pools": pools, "table": table,
}

func (d directive) is(what deeds) bool { return d.does&what != 0 }

// directives is the table by name. It is read when the first tree is transformed.
var directives = sync.OnceValue(func() map[string]directive {
	table := make(map[string]directive, strings.Count(directivesTSV, "\n"))
	for line := range strings.Lines(directivesTSV) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		var d directive
		name, rest, _ := strings.Cut(line, "\t")
		d.source, rest, _ = strings.Cut(rest, "\t")
		d.module, rest, _ = strings.Cut(rest, "\t")
		rest, d.undo, _ = strings.Cut(rest, "\t")
		for rest != "" {
			var word string
			word, rest, _ = strings.Cut(rest, " ")
			deed, place, _ := strings.Cut(word, "=")
			switch what := deedNames[deed]; what {
			case writes:
				d.writes = place
				d.does |= what
			case reads:
				d.reads = place
				d.does |= what
			default:
				d.does |= what
			}
		}
		table[name] = d
	}
	return table
})

// understood reports whether the name of a directive alone shows its effect, or marks it as an
// entry of a block.
func understood(name string) bool {
	return passes(name) || code(name) || strings.HasPrefix(name, "$")
}

// unknown reports once that the transform does not know a directive. The contents of a block of
// such a name need no notice of their own.
func (t *transform) unknown(n conf.Node) {
	name, a := n.Name(), t.info(n.Name())
	_, set := t.rules.Main[name]
	drivers := func(d string) bool { return strings.HasPrefix(d, name+" ") }
	if a.told || set || slices.Contains(t.rules.Accept, name) ||
		slices.ContainsFunc(t.rules.Snippets.Defaults, drivers) {
		return
	}
	if parent := n.Parent(); parent != nil && t.info(parent.Name()).rules&unknownRule != 0 {
		return
	}
	a.told = true
	t.changed(n.Directive, "unknown",
		"%s stays as it is, and no rule sees what it does: name it in the rules under drop to "+
			"leave it out, or under accept", name)
}

// shared reports once that all versions share the data that Nginx keeps under a directive.
func (t *transform) shared(n conf.Node) {
	a := t.info(n.Name())
	if a.told || slices.Contains(t.rules.Accept, n.Name()) {
		return
	}
	a.told = true
	t.changed(n.Directive, "shared", "what %s keeps is one for all VIPs and versions", n.Name())
}
