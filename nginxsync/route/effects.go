package route

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// effect is one directive that counts for the requests of a location.
type effect struct {
	text    string // name, arguments and body, without layout
	at      conf.Node
	ordered bool // its place among the others counts
}

// units are the settings that inner blocks inherit, by name. Settings that share a unit are
// inherited together. A setting of a module (proxy_…) counts where the module's pass does.
var units = map[string]string{
	"root": "root", "alias": "root", "index": "index", "autoindex": "autoindex",
	"error_page": "error_page", "recursive_error_pages": "recursive_error_pages",
	"satisfy": "satisfy", "allow": "access", "deny": "access", "auth_request": "auth_request",
	"auth_basic": "auth_basic", "auth_basic_user_file": "auth_basic_user_file",
	"absolute_redirect": "absolute_redirect", "port_in_redirect": "port_in_redirect",
	"server_name_in_redirect": "server_name_in_redirect", "mirror": "mirror", "ssi": "ssi",
	"add_before_body": "add_before_body", "add_after_body": "add_after_body",
	"add_header": "add_header", "more_set_headers": "more_set_headers",
	"more_clear_headers": "more_clear_headers", "more_set_input_headers": "more_set_input_headers",
	"more_clear_input_headers": "more_clear_input_headers",
}

// moduleSettings are the settings of a module that change the request to its upstream.
var moduleSettings = []string{"set_header", "param", "set_body", "method", "http_version",
	"pass_request_headers", "pass_request_body", "intercept_errors", "redirect", "hide_header",
	"pass_header", "index", "split_path_info", "ssl_name", "ssl_server_name", "pass_trailers"}

// local reports whether a directive counts for its own location only: it rewrites or answers.
func local(name string) bool {
	switch name {
	case "rewrite", "return", "if", "set", "break", "try_files", "internal", "limit_except", "perl",
		"js_content", "empty_gif", "stub_status", "dav_methods", "flv", "mp4", "hls",
		"random_index":
		return true
	}
	return strings.HasSuffix(name, "_pass") || strings.HasPrefix(name, "echo") ||
		strings.Contains(name, "_by_lua")
}

// serverEffects are the directives of a server that run before any location is looked for.
func (r *Router) serverEffects(server conf.Node) []effect {
	var list []effect
	for n := range server.Children() {
		switch name := n.Name(); {
		case name == "rewrite" || name == "return" || name == "if" || name == "set" ||
			name == "break" || strings.HasPrefix(name, "set_by_lua") ||
			strings.HasPrefix(name, "server_rewrite_by_lua") || name == "merge_slashes":
			list = append(list, effect{textOf(n), n, true})
		}
	}
	return r.closed(list, server, map[string]bool{})
}

// locationEffects are the directives that count for the requests of a location.
func (r *Router) locationEffects(location, server conf.Node) []effect {
	return r.closed(r.ownEffects(location), server, map[string]bool{})
}

func (r *Router) ownEffects(block conf.Node) []effect {
	var list []effect
	have := map[string]bool{} // units
	modules := map[string]bool{}
	for depth, n := 0, block; n.Directive != nil && n.Directive != r.http.Directive; depth,
		n = depth+1,
		outer(n) {
		here := map[string]bool{}
		for c := range n.Children() {
			name := c.Name()
			unit := unitOf(name)
			switch {
			case depth == 0 && local(name) && (block.Name() != "server" || !rewriting(name)):
				list = append(list, effect{textOf(c), c, true})
				passModules(c, modules)
			case unit != "" && !have[unit]:
				here[unit] = true
				list = append(list, effect{textOf(c), c, false})
			case depth > 0 && codeInherited(name) && !have[name]:
				here[name] = true
				list = append(list, effect{textOf(c), c, false})
			}
		}
		for unit := range here {
			have[unit] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.general)) {
		nodes, unit := r.general[name], unitOf(name)
		if unit == "" && codeInherited(name) {
			unit = name
		}
		if unit == "" || have[unit] {
			continue
		}
		for _, n := range nodes {
			list = append(list, effect{textOf(n.node), n.node, false})
		}
	}
	kept := list[:0]
	for _, e := range list {
		if module, setting := ofModule(e.at.Name()); setting && !modules[module] {
			continue // no request of the location comes to the module
		}
		kept = append(kept, e)
	}
	return kept
}

// rewriting reports whether a directive of a server belongs to serverEffects.
func rewriting(name string) bool {
	switch name {
	case "rewrite", "return", "if", "set", "break":
		return true
	}
	return strings.HasPrefix(name, "set_by_lua") || strings.HasPrefix(name, "server_rewrite_by_lua")
}

func codeInherited(name string) bool {
	return strings.HasPrefix(name, "rewrite_by_lua") || strings.HasPrefix(name, "access_by_lua") ||
		strings.HasPrefix(name, "precontent_by_lua") || strings.Contains(name, "_filter_by_lua")
}

func unitOf(name string) string {
	if unit := units[name]; unit != "" {
		return unit
	}
	if _, ok := ofModule(name); ok {
		return name
	}
	return ""
}

// ofModule splits the name of a setting such as proxy_set_header.
func ofModule(name string) (module string, ok bool) {
	module, rest, _ := strings.Cut(name, "_")
	switch module {
	case "proxy", "fastcgi", "uwsgi", "scgi", "grpc", "memcached":
		for _, s := range moduleSettings {
			if rest == s {
				return module, true
			}
		}
	}
	return "", false
}

// passModules adds the modules of the passes in a directive and in its body.
func passModules(n conf.Node, modules map[string]bool) {
	if module, ok := strings.CutSuffix(n.Name(), "_pass"); ok {
		modules[module] = true
	}
	if n.IsBlock() && !n.IsLua() {
		for c := range n.Children() {
			passModules(c, modules)
		}
	}
}

// closed adds the definitions that the directives lead to: of variables, and of named locations of
// the server.
func (r *Router) closed(list []effect, server conf.Node, seen map[string]bool) []effect {
	for i := 0; i < len(list); i++ {
		for _, m := range variable.FindAllString(list[i].text, -1) {
			name := strings.ToLower(strings.Trim(m, "${}"))
			if seen["$"+name] {
				continue
			}
			seen["$"+name] = true
			if n, ok := r.codes[name]; ok {
				list = append(list, effect{textOf(n), n, false})
			}
			if n, ok := r.maps[name]; ok {
				head := textOfWords(n)
				list = append(list, effect{head, n, false})
				for c := range n.Children() {
					if c.Name() != "include" {
						list = append(list, effect{head + " " + textOf(c), c, true})
					}
				}
			}
		}
		for _, word := range list[i].at.Args() {
			if !strings.HasPrefix(word, "@") || seen[word] {
				continue
			}
			seen[word] = true
			for n := range server.Find("location") {
				if n.Arg(0) == word {
					list = append(list, r.ownEffects(n)...)
				}
			}
		}
	}
	return list
}

// textOf is a directive without layout and comments. Two directives that mean the same to Nginx may
// differ in it; two that are equal in it mean the same.
func textOf(n conf.Node) string {
	var b strings.Builder
	writeText(&b, n)
	return b.String()
}

func textOfWords(n conf.Node) string {
	var b strings.Builder
	writeWords(&b, n)
	return b.String()
}

func writeWords(b io.Writer, n conf.Node) {
	io.WriteString(b, n.Name())
	for i := range n.NumArgs() {
		fmt.Fprintf(b, " %s", conf.Quote(n.Arg(i)))
	}
}

func writeText(b io.Writer, n conf.Node) {
	writeWords(b, n)
	switch {
	case n.IsLua():
		fmt.Fprintf(b, " {%s}", n.Body())
	case n.IsBlock():
		io.WriteString(b, " {")
		for c := range n.Children() {
			if c.Name() == "include" && c.Included() != nil {
				continue // its directives follow
			}
			io.WriteString(b, " ")
			writeText(b, c)
		}
		io.WriteString(b, " }")
	default:
		io.WriteString(b, ";")
	}
}

// contextOf is a digest of the settings that a tree has for all its servers.
func contextOf(r *Router) string {
	h := sha256.New()
	if r.http.Directive == nil {
		return ""
	}
	for n := range r.http.Children() {
		switch n.Name() {
		case "server", "upstream", "log_format", "access_log", "include":
		default:
			writeText(h, n)
		}
	}
	return string(h.Sum(nil))
}

// digest reports whether two blocks have the same directives.
func digest(a, b conf.Node) bool {
	sum := func(n conf.Node) string {
		h := sha256.New()
		writeText(h, n)
		return string(h.Sum(nil))
	}
	return sum(a) == sum(b)
}

// differing returns the directives that only one of the two lists has, and the first ones that
// stand in another order, when nothing else differs.
func differing(old, new []effect) (onlyOld, onlyNew []effect) {
	count := map[string]int{}
	for _, e := range old {
		count[e.text]++
	}
	for _, e := range new {
		if count[e.text]--; count[e.text] < 0 {
			onlyNew = append(onlyNew, e)
		}
	}
	for i := len(old) - 1; i >= 0; i-- {
		if count[old[i].text] > 0 {
			count[old[i].text]--
			onlyOld = append(onlyOld, old[i])
		}
	}
	slices.Reverse(onlyOld)
	if onlyOld != nil || onlyNew != nil {
		return onlyOld, onlyNew
	}
	a, b := inOrder(old), inOrder(new)
	for i := range min(len(a), len(b)) {
		if a[i].text != b[i].text {
			return a[i : i+1], b[i : i+1]
		}
	}
	return nil, nil
}

func inOrder(list []effect) []effect {
	var found []effect
	for _, e := range list {
		if e.ordered {
			found = append(found, e)
		}
	}
	return found
}
