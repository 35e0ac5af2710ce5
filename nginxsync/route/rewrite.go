package route

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// rewrites runs the rewrite directives of a server or a location. again means that the location has
// to be looked for again.
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
		case "set_by_lua", "set_by_lua_file", "set_by_lua_block":
			name := variableName(n.Arg(0))
			if name == "args" {
				return false, undecided(n.Directive, "%s $args", n.Name())
			}
			s.code[name] = n
		case "if":
			var yes bool
			if yes, err = s.condition(n); yes {
				s.step(n.Directive, "if %s holds", strings.Join(n.Args(), " "))
				s.at = n
				s.held = cmp.Or(passOf(n), s.held)
				end, err = s.run(n)
			}
		}
		if end || err != nil {
			return end, err
		}
	}
	return false, nil
}

// passOf is the directive of the block itself that passes requests on, or nil.
func passOf(block conf.Node) *conf.Directive {
	for n := range block.Children() {
		if strings.HasSuffix(n.Name(), "_pass") && n.NumArgs() > 0 {
			return n.Directive
		}
	}
	return nil
}

func (s *script) assign(n conf.Node) error {
	value, err := s.expand(n.Directive, n.Arg(1))
	name := variableName(n.Arg(0))
	if name == "args" { // the query itself, with which an upstream is asked
		s.args, s.rawUsed = value, false
		return err
	}
	s.set[name] = value
	delete(s.code, name)
	return err
}

// matches is match for rewrite and if: an expression that does not match leaves no captures, those
// of the location neither (ngx_http_script_regex_start_code).
func (s *script) matches(d *conf.Directive, expr string, caseless bool, text string) (bool, error) {
	yes, err := s.match(d, expr, caseless, text)
	if !yes {
		s.captures = nil
	}
	return yes, err
}

func (s *script) rewrite(n conf.Node) (end bool, err error) {
	if yes, err := s.matches(n.Directive, n.Arg(0), false, s.uri); err != nil || !yes {
		return false, err
	}
	flag, target := n.Arg(2), n.Arg(1)
	redirect := flag == "redirect" || flag == "permanent" || strings.HasPrefix(target, "http://") ||
		strings.HasPrefix(target, "https://") || strings.HasPrefix(target, "$scheme")
	keep := !strings.HasSuffix(target, "?") // the arguments of the request
	target = strings.TrimSuffix(target, "?")
	path, args, hasArgs := strings.Cut(target, "?")
	quote := func(capture string) string { return capture }
	if redirect {
		quote = s.quoteArgs
	}
	if path, err = s.expandWith(n.Directive, path, quote); err != nil {
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
		code := http.StatusFound
		if flag == "permanent" {
			code = http.StatusMovedPermanently
		}
		s.answer.Location = unescapeRedirect(path)
		if args != "" {
			s.answer.Location += "?" + args
		}
		if err := checkHeader(n, s.answer.Location); err != nil {
			return false, err
		}
		s.step(n.Directive, "redirect to %s", s.answer.Location)
		s.rawUsed, s.internal = false, true // for an error page
		return true, s.special(code, s.at)
	}
	s.step(n.Directive, "rewritten from %s to %s %s", s.uri, path, flag)
	if path == "" {
		return true, s.special(http.StatusInternalServerError, s.at)
	}
	s.uri, s.args, s.rawUsed, s.internal = path, args, false, true
	if flag == "break" {
		s.located, s.changed = false, false
	} else {
		s.changed = true
	}
	return flag == "last" || flag == "break", nil
}

// quoteArgs writes a capture into the arguments: escaped when the path of the request had escapes.
func (s *script) quoteArgs(capture string) string {
	if !s.quoted && !s.plus {
		return capture
	}
	return escapeBytes(capture, " \"#%&+;<>?\\^`{|}")
}

func (s *script) returns(n conf.Node) error {
	code, err := strconv.Atoi(n.Arg(0))
	text := n.Arg(1)
	if err != nil {
		code, text = http.StatusFound, n.Arg(0)
	}
	switch code {
	case 301, 302, 303, 307, 308:
		if s.answer.Location, err = s.expand(n.Directive, text); err != nil {
			return err
		}
		if err := checkHeader(n, s.answer.Location); err != nil {
			return err
		}
		s.step(n.Directive, "redirect %d to %s", code, s.answer.Location)
		return s.special(code, s.at)
	}
	s.step(n.Directive, "return %d", code)
	if code < http.StatusBadRequest || n.NumArgs() > 1 {
		return s.finished(code) // with a text no error page is shown
	}
	return s.special(code, s.at)
}

// checkHeader is undecided about a line break, which would end the header: clients differ in how
// they read it.
func checkHeader(n conf.Node, text string) error {
	if strings.ContainsAny(text, "\r\n") {
		return undecided(n.Directive, "a line break in a header")
	}
	return nil
}

// condition decides an if.
func (s *script) condition(n conf.Node) (bool, error) {
	args := n.Args()
	if len(args) == 0 || !strings.HasPrefix(args[0], "(") || !strings.HasSuffix(args[len(args)-1],
		")") {
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
	case len(args) == 2 && strings.Contains("-f !-f -d !-d -e !-e", args[0]):
		return s.onDisk(n, args[0], args[1])
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
		yes, err := s.matches(n.Directive, args[2], strings.HasSuffix(operator, "*"), value)
		return yes != strings.HasPrefix(operator, "!"), err
	}
	return false, undecided(n.Directive, "if %s", strings.Join(n.Args(), " "))
}
