package transform

import (
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// answerFilters are the directives that would change an answer of Sluice's own, which have an undo
// that a location may hold.
var answerFilters = []string{"add_after_body", "add_before_body", "image_filter", "modsecurity",
	"post_action", "ssi", "sub_filter_types", "subs_filter_types"}

// enter puts the checks of a request at the top of a server, and the locations that answer a
// request which does not pass them: who the client is first, so that a stranger learns nothing.
// captures is whether the server inherits a directive that may use captures.
func (t *transform) enter(server conf.Node, captures bool) {
	var top []string
	if len(t.rules.AllowClients) > 0 {
		top = append(top, "if ($sluice_client = 0) {\n    return 403;\n}")
		t.changed(server.Directive, "clients", "answers 403 to clients outside of allowClients")
	}
	if enter := t.rules.Snippets.Enter; enter != "" {
		to := `rewrite ^\.sluice/(?:grpc-)?(.+)$ .sluice/$1 last;`
		if len(t.below("grpc_pass")) > 0 {
			to = `rewrite ^\.sluice/(.+)$ .sluice/$1 last;`
		}
		// An if costs Nginx as much memory as a location. So it stands only where an expression that
		// does not match would take captures away.
		if captures || usesCaptures(server, false) {
			to = "if ($sluice_text) {\n    " + to + "\n}"
		}
		top = append(top, enter, to)
		t.edit.Append(server.Directive, t.answers(server))
		t.changed(server.Directive, "ended", "answers 410 on an address that no lease has")
	}
	if len(top) > 0 {
		t.edit.Prepend(server.Directive, strings.Join(top, "\n"))
	}
}

// numbered finds a capture by its number.
var numbered = regexp.MustCompile(`\$\{?[1-9]`)

func hasCapture(n conf.Node) bool {
	for i := range n.NumArgs() {
		if text := n.Arg(i); strings.Contains(text, "$") && numbered.MatchString(text) {
			return true
		}
	}
	return false
}

// inheritsCaptures is usesCaptures for what all servers inherit from the http context.
func (t *transform) inheritsCaptures() bool {
	for name, nodes := range t.inHTTP {
		if name == "map" || name == "geo" || name == "split_clients" {
			continue
		}
		if code(name) || slices.ContainsFunc(nodes, hasCapture) {
			return true
		}
	}
	return false
}

// usesCaptures reports whether a block has a numbered capture of an expression that is not around
// it, such as that of the server's name or of a location which led here by an internal redirect.
// within is whether one is around the block.
func usesCaptures(block conf.Node, within bool) bool {
	for n := range block.Children() {
		name := n.Name()
		if name == "rewrite" {
			continue // has an expression of its own
		}
		if code(name) || !within && hasCapture(n) {
			return true
		}
		if !n.IsBlock() {
			continue
		}
		matches := name == "location" && strings.HasPrefix(n.Arg(0), "~") ||
			name == "if" && (slices.Contains(n.Args(), "~") || slices.Contains(n.Args(), "~*"))
		if usesCaptures(n, within || matches) {
			return true
		}
	}
	return false
}

// answers are the locations with the answers of Sluice's own. A 410 may be cached unless it says
// otherwise (RFC 9110, section 15.5.11). A client of gRPC gets an answer without a message, of the
// status FAILED_PRECONDITION, or INVALID_ARGUMENT for 400: it must not try again.
func (t *transform) answers(server conf.Node) string {
	has := map[string]bool{}
	for name := range t.inHTTP {
		has[name] = true
	}
	for n := range server.Children() {
		has[n.Name()] = true
	}
	lines := []string{"internal;", "types { }"}
	for _, name := range answerFilters {
		if has[name] {
			lines = append(lines, t.info(name).undo)
		}
	}
	for _, phase := range []string{"body_filter", "header_filter"} {
		if base := phase + "_by_lua"; has[base] || has[base+"_block"] || has[base+"_file"] {
			lines = append(lines, base+"_block { }")
		}
	}
	lines = append(lines, t.answerHeaders()...)
	lines = append(lines, "add_header Cache-Control no-store always;")
	location := func(path string, more ...string) string {
		return "location = " + path + " {\n    " +
			strings.Join(slices.Concat(lines, more), "\n    ") + "\n}"
	}
	answers := []string{}
	add := func(name, status, grpc string) {
		answers = append(answers, location(".sluice/"+name, "default_type text/plain;",
			"return "+status+" $sluice_text;"))
		if len(t.below("grpc_pass")) > 0 {
			answers = append(answers, location(".sluice/grpc-"+name,
				"default_type application/grpc;", "add_header grpc-status "+grpc+" always;",
				"add_header grpc-message $sluice_reason always;", `return 200 "";`))
		}
	}
	add("gone", "410", "9")
	if t.rules.selectors() != "" {
		add("bad", "400", "3")
	}
	return strings.Join(answers, "\n")
}

// chosen reports whether the driver sets $sluice_vip.
func (r Rules) chosen() bool { return r.Snippets.Enter != "" && r.selectors() != "" }

// selectors is the text in the place of SelectID.
func (r Rules) selectors() string {
	var words []string
	if len(r.TrustVIPHeader) > 0 {
		words = append(words, "peers")
	}
	if r.Selector.Header != "" {
		words = append(words, "header "+r.Selector.Header)
	}
	if r.Selector.Cookie != "" {
		words = append(words, "cookie "+r.Selector.Cookie)
	}
	return strings.Join(words, " ")
}
