package start

import (
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// script looks at a script in the image. run means that it is executed and not given to a shell.
func (l *linter) script(name string, args []string, run bool, init string) {
	shown := name
	if !path.IsAbs(name) {
		if run && !strings.Contains(name, "/") {
			return // looked up in PATH
		}
		name = path.Join("/", l.image.Dir, name)
	}
	if l.depth++; l.depth > 4 {
		return
	}
	defer func(source string) { l.source = source; l.depth-- }(l.source)
	l.source = shown
	name = strings.TrimPrefix(path.Clean(name), "/")
	info, err := fs.Stat(l.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		l.report(0, "is not in the image")
	}
	if err != nil {
		return // a link that begins with a slash leads out of root
	}
	if run && info.Mode().Perm()&0o111 == 0 {
		l.report(0, "is not executable: mode %04o", info.Mode().Perm())
	}
	data, err := fs.ReadFile(l.root, name)
	if err != nil || len(data) > maxFile || strings.HasPrefix(string(data), "\x7fELF") {
		return
	}
	text := string(data)
	first, _, _ := strings.Cut(text, "\n")
	shell := true
	if interpreter, ok := strings.CutPrefix(first, "#!"); ok {
		fields := strings.Fields(interpreter)
		switch {
		case strings.HasSuffix(first, "\r"):
			l.report(1, "the first line ends in a carriage return, so that the interpreter is "+
				"not found")
		case len(fields) == 0:
			l.report(1, "the first line names no interpreter")
		default:
			_, err := fs.Stat(l.root, strings.TrimPrefix(fields[0], "/"))
			if errors.Is(err, fs.ErrNotExist) {
				l.report(1, "the interpreter %s is not in the image", fields[0])
			}
			inner, _ := peel(fields)
			shell = !run || len(inner) > 0 && isShell(inner[0])
			if len(inner) > 0 && run && !shell && err == nil {
				l.service(1, append(inner, append([]string{"/" + name}, args...)...), init)
			}
		}
	} else if run {
		l.report(1, "has no #! line")
	}
	if shell {
		l.text(text, args, init)
	}
}

// text looks at the text of a shell script.
func (l *linter) text(text string, args []string, init string) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(
		strings.NewReader(strings.ReplaceAll(text, "\r\n", "\n")), "")
	if err != nil {
		var syntaxError syntax.ParseError
		if errors.As(err, &syntaxError) {
			l.report(int(syntaxError.Pos.Line()), "is no valid shell script: %s",
				cut(syntaxError.Text))
		}
		return
	}
	s := &script{linter: l, args: args, init: init, functions: map[string]*syntax.Stmt{}}
	for node := range nodes(file) {
		if f, ok := node.(*syntax.FuncDecl); ok {
			s.functions[f.Name.Value] = f.Body
		}
	}
	s.look(file)
	s.ends(file.Stmts)
}

// nodes returns a node and all nodes below it, each before its children.
func nodes(root syntax.Node) iter.Seq[syntax.Node] {
	return func(yield func(syntax.Node) bool) {
		more := true
		syntax.Walk(root, func(n syntax.Node) bool {
			if n != nil && more {
				more = yield(n)
			}
			return more
		})
	}
}

func cut(text string) string { return text[:min(len(text), 80)] }

// script is a shell script that is looked at.
type script struct {
	*linter
	args      []string // the values of "$@"
	init      string
	functions map[string]*syntax.Stmt
	trapped   int  // the line of a trap for SIGTERM
	behind    bool // something is in the background
	waited    bool // and is waited for
	lingers   bool // the script stays after the end of the service
	calls     int
}

// look finds mistakes in all parts of the script.
func (s *script) look(file *syntax.File) {
	for node := range nodes(file) {
		switch n := node.(type) {
		case *syntax.Stmt:
			if n.Background {
				s.behind = true
			}
		case *syntax.CallExpr:
			s.call(n)
		case *syntax.WhileClause:
			for _, inner := range n.Do {
				if c, ok := inner.Cmd.(*syntax.CallExpr); ok && len(c.Args) > 0 &&
					c.Args[0].Lit() == "sleep" {
					s.lingers = true
				}
			}
		}
	}
	for node := range nodes(file) {
		if n, ok := node.(*syntax.Stmt); ok && n.Background && !s.waits &&
			!(s.trapped > 0 && s.waited) && !(s.wrapped && s.waited) && isService(n) {
			s.report(int(n.Pos().Line()), "puts a process into the background: run the service "+
				"in the foreground, or use envconfig --on-main-exit=wait")
		}
	}
}

// isService reports whether a statement runs a program, and not only a piece of the shell's own
// work.
func isService(s *syntax.Stmt) bool {
	c, ok := s.Cmd.(*syntax.CallExpr)
	if !ok || len(c.Args) == 0 {
		return true
	}
	return !slices.Contains([]string{"echo", "sleep", "true", ":", "printf", "touch"},
		c.Args[0].Lit())
}

func (s *script) call(c *syntax.CallExpr) {
	argv := literal(c.Args)
	if len(argv) == 0 {
		return
	}
	line := int(c.Pos().Line())
	switch argv[0] {
	case "wait":
		s.waited = true
	case "trap":
		if slices.ContainsFunc(argv[1:], func(a string) bool { return signal(a) == "TERM" }) {
			if argv[1] == "" {
				s.report(line, "ignores SIGTERM, for itself and all that it starts")
			} else if argv[1] != "-" {
				s.trapped = line
			}
		}
	case "tail":
		if slices.Contains(argv, "/dev/null") {
			s.lingers = true
			s.report(line, "keeps the container alive whatever becomes of the service")
		}
	case "sleep":
		if slices.Contains(argv, "infinity") {
			s.lingers = true
			s.report(line, "keeps the container alive whatever becomes of the service")
		}
	default:
		service, _ := peel(argv)
		if len(service) > 0 && argv[0] != "exec" && detaches(service) &&
			!s.inConfig(service) {
			s.behind = true
			if name := program(service[0]); (name == "catalina.sh" || name == "startup.sh") &&
				!s.waits {
				s.report(line, "starts Tomcat in the background: use catalina.sh run, or "+
					"envconfig --on-main-exit=wait")
			} else if !s.waits {
				s.report(line, "%s puts the service into the background: run it in the "+
					"foreground, or use envconfig --on-main-exit=wait", name)
			}
		}
	}
}

// literal are the words of a command up to the first that is not known here, which is empty and the
// last.
func literal(list []*syntax.Word) (argv []string) {
	for _, w := range list {
		text, ok := plain(w.Parts)
		if argv = append(argv, text); !ok {
			argv[len(argv)-1] = ""
		}
	}
	return argv
}

func plain(parts []syntax.WordPart) (string, bool) {
	var b strings.Builder
	for _, p := range parts {
		switch p := p.(type) {
		case *syntax.Lit:
			b.WriteString(strings.ReplaceAll(p.Value, `\`, ""))
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			inner, ok := plain(p.Parts)
			if !ok {
				return "", false
			}
			b.WriteString(inner)
		default:
			return "", false
		}
	}
	return b.String(), true
}

// words1 are the words of a line that is one command, or nil.
func words1(line string) []string {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(line),
		"")
	if err != nil || len(file.Stmts) != 1 {
		return nil
	}
	c, ok := file.Stmts[0].Cmd.(*syntax.CallExpr)
	if !ok || file.Stmts[0].Background {
		return nil
	}
	return literal(c.Args)
}

// ends looks at how a script ends: the service has to take the shell's place, unless envconfig is
// in front.
func (s *script) ends(list []*syntax.Stmt) {
	if len(list) == 0 {
		return
	}
	last := list[len(list)-1]
	line := int(last.Pos().Line())
	switch how := s.ending(last, false); {
	case s.wrapped || how == executes || how == unknown:
	case s.lingers, s.behind && how != inPipe && s.trapped == 0 && !s.waited, s.behind && s.waited:
	case how == inPipe:
		s.report(line, "exec in a pipeline or in parentheses replaces another shell than the one "+
			"that is process 1: SIGTERM does not reach the service")
	case s.trapped > 0 && !s.waited:
		s.report(s.trapped, "the trap runs only when the command that the shell waits for has "+
			"ended: start the service with & and wait for it, or use exec")
	case s.init != "":
		s.report(line, "the last command has no exec: %s ends with the shell, and the service is "+
			"killed before it has finished", s.init)
	default:
		s.report(line, "the last command has no exec: the shell stays process 1 and SIGTERM does "+
			"not reach the service")
	}
}

// How a statement ends.
type ending int

const (
	stays    ending = iota // the shell waits for a command
	executes               // a command takes its place
	inPipe                 // a command takes the place of another shell
	unknown                // the end is not known here
)

// ending is how a statement ends; sub means that another shell than process 1 runs it.
func (s *script) ending(stmt *syntax.Stmt, sub bool) ending {
	if stmt == nil || stmt.Background {
		return stays
	}
	switch c := stmt.Cmd.(type) {
	case *syntax.CallExpr:
		return s.callEnding(c, sub)
	case *syntax.BinaryCmd:
		if c.Op == syntax.Pipe || c.Op == syntax.PipeAll {
			if s.ending(c.X, true) == inPipe || s.ending(c.Y, true) == inPipe {
				return inPipe
			}
			return stays
		}
		return s.ending(c.Y, sub)
	case *syntax.Subshell:
		return s.last(c.Stmts, true)
	case *syntax.Block:
		return s.last(c.Stmts, sub)
	case *syntax.IfClause:
		return s.branches(c, sub)
	case *syntax.CaseClause:
		worst := executes
		for _, item := range c.Items {
			if e := s.last(item.Stmts, sub); e == stays || e == inPipe {
				worst = e
			}
		}
		return worst
	}
	return stays
}

func (s *script) last(list []*syntax.Stmt, sub bool) ending {
	if len(list) == 0 {
		return stays
	}
	return s.ending(list[len(list)-1], sub)
}

func (s *script) branches(c *syntax.IfClause, sub bool) ending {
	for ; c != nil; c = c.Else {
		if e := s.last(c.Then, sub); e == stays || e == inPipe {
			return e
		}
		if c.Else == nil && len(c.Cond) > 0 {
			return unknown // when no condition holds, the script ends
		}
	}
	return executes
}

func (s *script) callEnding(c *syntax.CallExpr, sub bool) ending {
	argv := literal(c.Args)
	if len(argv) == 0 {
		return unknown
	}
	switch name := argv[0]; {
	case name == "exec" && len(argv) > 1:
		if sub {
			return inPipe
		}
		s.executed(c, argv[1:])
		return executes
	case name == "exec", name == ".", name == "source", name == "eval", name == "":
		return unknown
	case name == "wait" && s.behind:
		return unknown
	case s.functions[name] != nil && s.calls < 8:
		s.calls++
		return s.ending(s.functions[name], sub)
	}
	return stays
}

// executed checks the command that takes the script's place.
func (s *script) executed(c *syntax.CallExpr, argv []string) {
	line := int(c.Pos().Line())
	if isArguments(c.Args[1]) {
		argv = s.args
	} else if argv[0] == "" || slices.Contains(argv, "") && isShell(argv[0]) {
		return // the rest of a line is not known
	}
	service, init := peel(argv)
	if len(service) == 0 || service[0] == "" {
		return
	}
	if isShell(service[0]) {
		s.shell(line, service, init)
		return
	}
	if init == "" {
		init = s.init
	}
	s.service(line, service, init)
}

// isArguments reports whether a word is "$@" or $*.
func isArguments(w *syntax.Word) bool {
	for node := range nodes(w) {
		if p, ok := node.(*syntax.ParamExp); ok && p.Param != nil &&
			(p.Param.Value == "@" || p.Param.Value == "*") {
			return true
		}
	}
	return false
}
