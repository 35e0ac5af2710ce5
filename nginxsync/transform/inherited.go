package transform

import (
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// Reset stands, in Snippets.HTTP, for directives that undo the settings that a server of the driver
// would inherit from the http context of the tree: access rules, limits, programs, filters.
const Reset = "{{reset}}"

// resetZones holds the zones that some lines of a reset need in the http context: a key that is
// empty is not counted.
var resetZones = map[string]string{
	"limit_conn": `limit_conn_zone "" zone=sluice_uncounted:32k;`,
	"limit_req":  `limit_req_zone "" zone=sluice_unlimited:32k rate=1r/s;`,
}

// phases are the programs that a server inherits. It is an empty one that hides them.
var phases = []string{"access", "body_filter", "header_filter", "log", "rewrite", "server_rewrite"}

// reset returns the text that takes the place of Reset, and the zones that it needs in the http
// context.
func (t *transform) reset(hooked map[string]bool) (text, zones string) {
	var lines, needs []string
	for name := range t.inHTTP {
		if line := t.info(name).undo; line != "" {
			lines = append(lines, line)
		}
		if line := resetZones[name]; line != "" {
			needs = append(needs, line+"\n")
		}
	}
	for _, phase := range phases {
		block := phase + "_by_lua_block"
		if base := phase + "_by_lua"; hooked[block] || t.inHTTP[base] != nil ||
			t.inHTTP[block] != nil || t.inHTTP[base+"_file"] != nil {
			lines = append(lines, block+" { }")
		}
	}
	slices.Sort(lines)
	slices.Sort(needs)
	return strings.Join(lines, "\n    "), strings.Join(needs, "")
}

// codeCache takes lua_code_cache off away: each request would have a driver of its own, without
// routes.
func (t *transform) codeCache(n conf.Node) {
	if n.Arg(0) == "off" && t.rules.Snippets.Upstream != nil {
		t.edit.Remove(n.Directive)
		t.changed(n.Directive, "driver", "lua_code_cache off is left out: the driver lives in "+
			"the cache")
	}
}
