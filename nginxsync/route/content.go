package route

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// content finds the final answer's origin: the pass directive of the if or limit_except block that
// counts, or of the location; else files.
func (w *walk) content(in conf.Node) error {
	if err := w.programs(); err != nil {
		return err
	}
	if err := w.access(); err != nil {
		return err
	}
	for n := range w.at.Find("try_files") { // no block inherits it
		return w.tryFiles(n, in)
	}
	return w.handler(in)
}

// ownCode begins the code that luadriver.Snippets adds to a test tree. In the rewrite phase it sets
// variables of its own and leads no request elsewhere.
const ownCode = `package.loaded["sluice.routes"].`

// programs is undecided when code, which may go anywhere, runs before the answer.
func (w *walk) programs() error {
	for _, kind := range []string{"rewrite_by_lua", "access_by_lua", "precontent_by_lua"} {
		for n := range w.inherited(w.at, kind, kind+"_block", kind+"_file") {
			if strings.HasPrefix(strings.TrimSpace(n.Body()), ownCode) {
				continue
			}
			return undecided(n.Directive, "%s", n.Name())
		}
	}
	return nil
}

// handler is content behind try_files.
func (w *walk) handler(in conf.Node) error {
	for _, block := range []conf.Node{w.at, in} {
		if block.Directive == nil {
			continue
		}
		for n := range block.Children() {
			switch name := n.Name(); {
			case w.held != nil && block.Directive != w.at.Directive && name != w.held.Name():
				continue // the handler of that if is of another module
			case strings.HasSuffix(name, "_pass") && n.NumArgs() > 0:
				return w.pass(n, in)
			case strings.HasPrefix(name, "content_by") || name == "js_content" || name == "perl" ||
				name == "random_index" ||
				strings.HasPrefix(name, "echo") || name == "flv" || name == "mp4" ||
				name == "hls":
				return undecided(n.Directive, "%s", name)
			case (name == "empty_gif" || name == "stub_status") && w.method != http.MethodGet &&
				w.method != http.MethodHead:
				w.step(n.Directive, "%s is for GET and HEAD: 405", name)
				return w.special(http.StatusMethodNotAllowed, w.at)
			case name == "empty_gif" || name == "stub_status":
				w.step(n.Directive, "%s", name)
				return w.finished(http.StatusOK)
			}
		}
	}
	if w.held != nil {
		// Nginx keeps the handler of that if, and has no upstream for it in this one.
		w.step(w.held, "an if behind this one holds too, and has no upstream: 500")
		return w.special(http.StatusInternalServerError, w.at)
	}
	return w.files()
}

// pass is the upstream and the URI that it is asked for.
func (w *walk) pass(n, location conf.Node) error {
	value := n.Arg(0)
	variable := strings.Contains(value, "$")
	expanded, err := w.expand(n.Directive, value)
	if err != nil {
		return err
	}
	if i := strings.Index(expanded, "://"); i >= 0 {
		expanded = expanded[i+3:]
	}
	target, uri := expanded, ""
	if socket, ok := strings.CutPrefix(expanded, "unix:"); ok {
		// The path of the socket ends at a colon.
		path, rest, _ := strings.Cut(socket, ":")
		target, uri = "unix:"+path, rest
	} else if i := strings.IndexAny(expanded, "/?"); i >= 0 {
		target, uri = expanded[:i], expanded[i:]
		if uri[0] == '?' {
			uri = "/" + uri
		}
	}
	query := ""
	if w.args != "" {
		query = "?" + w.args
	}
	escaped := func(path string) string {
		if w.quoted || w.internal {
			return escape(path)
		}
		return path
	}
	asked := ""
	switch {
	case n.Name() != "proxy_pass" && n.Name() != "grpc_pass":
		asked = w.raw
	case uri == "" && w.rawUsed:
		asked = w.raw
	case uri == "" || !w.located && !variable:
		// A rewrite with break inside the location takes the place of proxy_pass's own URI.
		asked = escaped(w.uri) + query
	case variable:
		asked = uri
	default:
		modifier, text := pattern(location)
		cut := 0
		if modifier != "~" && modifier != "~*" {
			cut = len(text)
		}
		asked = uri + escaped(w.uri[min(cut, len(w.uri)):]) + query
	}
	if strings.ContainsAny(asked, "\r\n") {
		return undecided(n.Directive, "a line break in the request line")
	}
	w.answer.Upstream = cmp.Or(w.router.names[strings.ToLower(target)], target)
	w.answer.URI = asked
	w.headers(n)
	w.upstreamSays(n)
	w.step(n.Directive, "%s to %s, asked for %s", n.Name(), target, asked)
	return nil
}

// headers adds the headers that the directive's module adds to the request.
func (w *walk) headers(pass conf.Node) {
	module := strings.TrimSuffix(pass.Name(), "_pass")
	for n := range w.inherited(w.at, module+"_set_header", module+"_param") {
		w.answer.Headers = append(w.answer.Headers,
			Step{At: n.Pos(), Text: strings.Join(append([]string{n.Name()}, n.Args()...), " ")})
		w.headerNodes = append(w.headerNodes, n)
	}
}
