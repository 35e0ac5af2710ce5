package builder

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Severity ranks a [Finding].
type Severity string

// Load and every [Engine] refuse a Dockerfile with an Error; a Warning is for the reader.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that [Lint] has to say about a Dockerfile.
type Finding struct {
	Line     int      `json:"line"`
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
}

// String is "line 7: error: message (rule)".
func (f Finding) String() string {
	return fmt.Sprintf("line %d: %s: %s (%s)", f.Line, f.Severity, f.Message, f.Rule)
}

// Lint checks a Dockerfile and returns its findings in the order of lines. Its rules:
//
//   - parse (error): BuildKit's parser refuses it
//   - directive (error): a "# syntax=" or "# escape=" line, which lets the file choose its own
//     parser
//   - cache-arg (error): ARG CACHE that no RUN follows before the next COPY or ADD, so that a new
//     value rebuilds nothing
//   - onbuild (error): ONBUILD, which acts in other people's builds
//   - remote-add (error): ADD of a URL or a git repository, which is another file tomorrow
//   - base-digest (warning): FROM without a digest
//   - root (warning): the last stage ends without a USER other than root
//   - shell-entrypoint (warning): ENTRYPOINT in shell form, whose shell keeps signals from the
//     service
//   - secret (warning): ARG or ENV with the name of a secret, which each holder of the image can
//     read
func Lint(dockerfile []byte) []Finding {
	if f := directives(dockerfile); len(f) > 0 {
		return f
	}
	ast, err := parse(dockerfile)
	if err != nil {
		f := Finding{Line: 1, Rule: "parse", Severity: Error, Message: err.Error()}
		var at *parser.LocationError
		if errors.As(err, &at) && len(at.Locations) > 0 && len(at.Locations[0]) > 0 {
			f.Line = max(1, at.Locations[0][0].Start.Line)
		}
		return []Finding{f}
	}
	l := linter{stages: map[string]bool{}}
	for _, n := range ast.Children {
		l.instruction(n)
	}
	l.endStage()
	if l.user == "" && l.from > 0 {
		l.add(l.from, "root", Warning, "the service runs as root: end with a USER")
	}
	return l.findings
}

func directives(dockerfile []byte) []Finding {
	var found []Finding
	add := func(name string, where []parser.Range) {
		line := 1
		if len(where) > 0 {
			line = max(line, where[0].Start.Line)
		}
		found = append(found, Finding{Line: line, Rule: "directive", Severity: Error,
			Message: "parser directive " + name + " is refused: remove the line"})
	}
	if _, _, where, ok := parser.DetectSyntax(dockerfile); ok {
		add("syntax", where)
	}
	if _, _, where, ok := parser.ParseDirective("escape", dockerfile); ok {
		add("escape", where)
	}
	return found
}

type linter struct {
	findings []Finding
	from     int             // line of the stage's FROM
	stages   map[string]bool // names, in lower case
	user     string          // of the stage, "" for root
	cacheArg int             // line of an ARG CACHE that no RUN has read yet
}

func (l *linter) add(line int, rule string, s Severity, message string) {
	l.findings = append(l.findings, Finding{Line: line, Rule: rule, Severity: s, Message: message})
}

var (
	remoteSource = regexp.MustCompile(`^([a-z][a-z0-9+.-]*://|git@)|\.git(#.*)?$`)
	secretName   = regexp.MustCompile(
		`(?i)(^|_)(passwd|password|secret|token|api_?key|private_?key|credentials?)(_|$)`)
)

func (l *linter) instruction(n *parser.Node) {
	args := arguments(n)
	switch keyword := strings.ToUpper(n.Value); keyword {
	case "FROM":
		l.endStage()
		l.from, l.user = n.StartLine, ""
		if len(args) > 0 && args[0] != "scratch" && !strings.Contains(args[0], "@sha256:") &&
			!strings.Contains(args[0], "$") && !l.stages[strings.ToLower(args[0])] {
			l.add(n.StartLine, "base-digest", Warning,
				fmt.Sprintf("base image %s is not pinned by digest: write name@sha256:…", args[0]))
		}
		if len(args) == 3 { // FROM image AS name
			l.stages[strings.ToLower(args[2])] = true
		}
	case "ARG", "ENV":
		l.variables(n.StartLine, keyword, args)
	case "RUN":
		l.cacheArg = 0
	case "COPY", "ADD":
		if l.cacheArg > 0 {
			l.cacheUnread()
		}
		if keyword == "ADD" && len(args) > 0 && len(n.Heredocs) == 0 {
			for _, src := range args[:len(args)-1] {
				if remoteSource.MatchString(src) {
					l.add(n.StartLine, "remote-add", Error,
						"ADD of a remote source: put the file into the build context and COPY it")
				}
			}
		}
	case "ONBUILD":
		l.add(n.StartLine, "onbuild", Error,
			"ONBUILD acts in the builds of other images: write the instruction there")
	case "USER":
		l.user = ""
		if name, _, _ := strings.Cut(strings.Join(args, ""), ":"); name != "root" && name != "0" {
			l.user = name
		}
	case "ENTRYPOINT":
		if !n.Attributes["json"] {
			l.add(n.StartLine, "shell-entrypoint", Warning,
				`ENTRYPOINT in shell form keeps signals from the service: write ["program", "argument"]`)
		}
	}
}

func (l *linter) variables(line int, keyword string, args []string) {
	// ARG has one NAME[=value] per node, ENV has name, value and delimiter.
	step := 1
	if keyword == "ENV" {
		step = 3
	}
	for i := 0; i < len(args); i += step {
		name, _, _ := strings.Cut(args[i], "=")
		if keyword == "ARG" && name == "CACHE" && l.from > 0 {
			l.cacheArg = line
		}
		if secretName.MatchString(name) {
			l.add(line, "secret", Warning,
				fmt.Sprintf("%s %s: everyone who has the image can read it, give secrets at start",
					keyword, name))
		}
	}
}

func (l *linter) endStage() {
	if l.cacheArg > 0 {
		l.cacheUnread()
	}
}

func (l *linter) cacheUnread() {
	l.add(l.cacheArg, "cache-arg", Error,
		"ARG CACHE rebuilds nothing: a RUN that fetches the code must follow it before the next "+
			"COPY or ADD")
	l.cacheArg = 0
}

func arguments(n *parser.Node) []string {
	var args []string
	for a := n.Next; a != nil; a = a.Next {
		args = append(args, a.Value)
	}
	return args
}

// lintErrors returns the findings of severity [Error], each as a [DockerfileError].
func lintErrors(dockerfile []byte) []error {
	var errs []error
	for _, f := range Lint(dockerfile) {
		if f.Severity == Error {
			errs = append(errs, f.err())
		}
	}
	return errs
}

func (f Finding) err() error {
	return at(f.Line, "%s (%s)", f.Message, f.Rule)
}
