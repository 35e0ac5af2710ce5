package route

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// rewrites runs the rewrite directives of a server or a location. again means that the location has to be looked for again.
func (w *walk) rewrites(in conf.Node, server bool) (again bool, err error) {
	s := script{walk: w, server: server}
	_, err = s.run(in)
	return s.changed && !server, err
}

// script is one run through the directives of a block.
type script struct {
	*walk
	server  bool
	changed bool // the path changed and the location does not fit any more
}

// run reports whether the script ends here.
func (s *script) run(in conf.Node) (end bool, err error) {
	for n := range in.Children() {
		switch n.Name() {
		case "rewrite":
			end, err = s.rewrite(n)
		case "return":
			end, err = true, s.returns(n)
		case "break":
			if s.changed {
				s.located, s.changed = false, false
			}
			s.step(n.Directive, "break")
			end = true
		case "set":
			err = s.assign(n)
		case "if":
			var yes bool
			if yes, err = s.condition(n); yes {
				s.step(n.Directive, "if %s holds", strings.Join(n.Args(), " "))
				s.branch = n
				end, err = s.run(n)
			}
		}
		if end || err != nil {
			return end, err
		}
	}
	return false, nil
}

func (s *script) assign(n conf.Node) error {
	value, err := s.expand(n.Directive, n.Arg(1))
	s.set[strings.TrimPrefix(n.Arg(0), "$")] = value
	return err
}

func (s *script) rewrite(n conf.Node) (end bool, err error) {
	re, err := regexp.Compile(n.Arg(0))
	if err != nil {
		return false, undecided(n.Directive, "rewrite %s: %v", n.Arg(0), err)
	}
	if !s.match(re, s.uri) {
		return false, nil
	}
	flag, target := n.Arg(2), n.Arg(1)
	redirect := flag == "redirect" || flag == "permanent" || strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://") || strings.HasPrefix(target, "$scheme")
	keep := !strings.HasSuffix(target, "?") // the arguments of the request
	target = strings.TrimSuffix(target, "?")
	path, args, hasArgs := strings.Cut(target, "?")
	if path, err = s.expand(n.Directive, path); err != nil {
		return false, err
	}
	if args, err = s.expandWith(n.Directive, args, s.quoteArgs); err != nil {
		return false, err
	}
	switch {
	case hasArgs && keep && s.args != "":
		args += "&" + s.args
	case !hasArgs && keep:
		args = s.args
	}
	if redirect {
		if strings.Contains(s.raw, "%") {
			return false, undecided(n.Directive, "rewrite to a redirect of a path with percent signs")
		}
		s.answer.Status, s.answer.Location = http.StatusFound, path
		if flag == "permanent" {
			s.answer.Status = http.StatusMovedPermanently
		}
		if args != "" {
			s.answer.Location += "?" + args
		}
		s.step(n.Directive, "redirect to %s", s.answer.Location)
		return true, errDone
	}
	s.step(n.Directive, "rewritten from %s to %s %s", s.uri, path, flag)
	if path == "" {
		s.answer.Status = http.StatusInternalServerError
		return true, errDone
	}
	s.uri, s.args, s.rawUsed = path, args, false
	if flag == "break" {
		s.located, s.changed = false, false
	} else {
		s.changed = true
	}
	return flag == "last" || flag == "break", nil
}

// quoteArgs writes a capture into the arguments: escaped when the path of the request had escapes.
func (s *script) quoteArgs(capture string) string {
	if path, _, _ := strings.Cut(s.raw, "?"); !strings.ContainsAny(path, "%+") {
		return capture
	}
	return escapeBytes(capture, " #%&+;?")
}

func (s *script) returns(n conf.Node) error {
	code, err := strconv.Atoi(n.Arg(0))
	text := n.Arg(1)
	if err != nil {
		code, text = http.StatusFound, n.Arg(0)
	}
	s.answer.Status = code
	switch code {
	case 301, 302, 303, 307, 308:
		if s.answer.Location, err = s.expand(n.Directive, text); err != nil {
			return err
		}
		s.step(n.Directive, "redirect %d to %s", code, s.answer.Location)
	default:
		s.step(n.Directive, "return %d", code)
	}
	return errDone
}

// condition decides an if.
func (s *script) condition(n conf.Node) (bool, error) {
	args := n.Args()
	if len(args) == 0 || !strings.HasPrefix(args[0], "(") || !strings.HasSuffix(args[len(args)-1], ")") {
		return false, n.Errorf("invalid condition %q", strings.Join(args, " "))
	}
	args[0] = args[0][1:]
	args[len(args)-1] = strings.TrimSuffix(args[len(args)-1], ")")
	if args[0] == "" {
		args = args[1:]
	}
	if len(args) > 0 && args[len(args)-1] == "" {
		args = args[:len(args)-1]
	}
	switch {
	case len(args) == 1 && strings.HasPrefix(args[0], "$"):
		value, err := s.expand(n.Directive, args[0])
		return value != "" && value != "0", err
	case len(args) != 3 || !strings.HasPrefix(args[0], "$"):
		return false, undecided(n.Directive, "if %s", strings.Join(n.Args(), " "))
	}
	value, err := s.expand(n.Directive, args[0])
	if err != nil {
		return false, err
	}
	switch operator := args[1]; operator {
	case "=", "!=":
		want, err := s.expand(n.Directive, args[2])
		return (value == want) == (operator == "="), err
	case "~", "~*", "!~", "!~*":
		text := args[2]
		if strings.HasSuffix(operator, "*") {
			text = "(?i)" + text
		}
		re, err := regexp.Compile(text)
		if err != nil {
			return false, undecided(n.Directive, "if: %v", err)
		}
		return s.match(re, value) == !strings.HasPrefix(operator, "!"), nil
	}
	return false, undecided(n.Directive, "if %s", strings.Join(n.Args(), " "))
}

// content is what answers in the end: the pass directive of the block, or of the if block in it that was entered last.
func (w *walk) content(in conf.Node) error {
	for _, block := range []conf.Node{w.branch, in} {
		if block.Directive == nil || block.Directive == w.branch.Directive && block.Parent() != in.Directive {
			continue
		}
		for n := range block.Children() {
			switch name := n.Name(); {
			case strings.HasSuffix(name, "_pass") && n.NumArgs() > 0 && name != "proxy_pass_header":
				return w.pass(n, in)
			case name == "try_files" || strings.HasPrefix(name, "content_by") || strings.HasPrefix(name, "js_content") || strings.HasPrefix(name, "rewrite_by"):
				return undecided(n.Directive, "%s", name)
			}
		}
	}
	w.step(in.Directive, "nothing passes the request on: answered from files")
	return nil
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
	if i := strings.IndexAny(expanded, "/?"); i >= 0 && !strings.HasPrefix(expanded, "unix:") {
		target, uri = expanded[:i], expanded[i:]
		if uri[0] == '?' {
			uri = "/" + uri
		}
	}
	w.answer.Upstream = target
	query := ""
	if w.args != "" {
		query = "?" + w.args
	}
	switch {
	case n.Name() != "proxy_pass" && n.Name() != "grpc_pass":
		w.answer.URI = w.raw
	case uri == "" && w.rawUsed:
		w.answer.URI = w.raw
	case uri == "" || !w.located && !variable:
		// A rewrite with break inside the location takes the place of proxy_pass's own URI.
		w.answer.URI = escape(w.uri) + query
	case variable:
		w.answer.URI = uri
	default:
		modifier, text := pattern(location)
		cut := 0
		if modifier != "~" && modifier != "~*" {
			cut = len(text)
		}
		path := escape(w.uri[min(cut, len(w.uri)):])
		if !strings.Contains(w.raw, "%") && w.rawUsed {
			path = w.uri[min(cut, len(w.uri)):]
		}
		w.answer.URI = uri + path + query
	}
	w.step(n.Directive, "%s to %s, asked for %s", n.Name(), target, w.answer.URI)
	return nil
}
