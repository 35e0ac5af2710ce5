package transform

import (
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// Reset stands, in Snippets.HTTP, for directives that undo what a server of the driver would inherit from the http context of the
// tree: access rules, limits, programs, filters.
const Reset = "{{reset}}"

// resets undo a directive of the http context, by its name. Nginx knows the directives, since the tree has one of the module.
var resets = map[string]string{
	"add_after_body":           `add_after_body "";`,
	"add_before_body":          `add_before_body "";`,
	"addition_types":           "addition_types application/x-none;",
	"auth_basic":               "auth_basic off;",
	"auth_delay":               "auth_delay 0;",
	"auth_jwt":                 "auth_jwt off;",
	"auth_request":             "auth_request off;",
	"autoindex":                "autoindex off;",
	"brotli":                   "brotli off;",
	"charset":                  "charset off;",
	"client_body_in_file_only": "client_body_in_file_only off;",
	"client_body_timeout":      "client_body_timeout 60s;",
	"client_header_timeout":    "client_header_timeout 60s;",
	"error_page":               "error_page 599 /;", // one of its own hides the others
	"gunzip":                   "gunzip off;",
	"gzip":                     "gzip off;",
	"image_filter":             "image_filter off;",
	"keepalive_disable":        "keepalive_disable none;",
	"limit_conn":               "limit_conn sluice_uncounted 1;",
	"limit_rate":               "limit_rate 0;",
	"limit_req":                "limit_req zone=sluice_unlimited;",
	"lua_need_request_body":    "lua_need_request_body off;",
	"mirror":                   "mirror off;",
	"modsecurity":              "modsecurity off;",
	"post_action":              "post_action off;",
	"satisfy":                  "satisfy all;",
	"send_timeout":             "send_timeout 60s;",
	"ssi":                      "ssi off;",
	"sub_filter":               "sub_filter_types application/x-none;",
	"subs_filter":              "subs_filter_types application/x-none;",
	"testcookie":               "testcookie off;",
	"zstd":                     "zstd off;",
}

// zones are what resets need in the http context: a key that is empty is not counted.
var resetZones = map[string]string{
	"limit_conn": `limit_conn_zone "" zone=sluice_uncounted:32k;`,
	"limit_req":  `limit_req_zone "" zone=sluice_unlimited:32k rate=1r/s;`,
}

// phases are the programs that a server inherits. It is an empty one that hides them.
var phases = []string{"access", "body_filter", "header_filter", "log", "rewrite", "server_rewrite"}

// reset is the text that takes the place of Reset, and what it needs in the http context.
func (t *transform) reset(hooked map[string]bool) (text, zones string) {
	var lines, needs []string
	for name := range t.inHTTP {
		if line := resets[name]; line != "" {
			lines = append(lines, line)
		}
		if line := resetZones[name]; line != "" {
			needs = append(needs, line+"\n")
		}
	}
	for _, phase := range phases {
		block := phase + "_by_lua_block"
		if base := phase + "_by_lua"; hooked[block] || t.inHTTP[base] != nil || t.inHTTP[block] != nil || t.inHTTP[base+"_file"] != nil {
			lines = append(lines, block+" { }")
		}
	}
	slices.Sort(lines)
	slices.Sort(needs)
	return strings.Join(lines, "\n    "), strings.Join(needs, "")
}

// codeCache takes lua_code_cache off away: each request would have a driver of its own, without routes.
func (t *transform) codeCache(n conf.Node) {
	if n.Arg(0) == "off" && t.rules.Snippets.Upstream != nil {
		t.edit.Remove(n.Directive)
		t.changed(n.Directive, "driver", "lua_code_cache off is left out: the driver lives in the cache")
	}
}
