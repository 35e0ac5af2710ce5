package assemble

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/sluice-deploy/sluice/builder"
)

// plan is a Dockerfile that this engine can build, as far as its text shows.
type plan struct {
	stage instructions.Stage
	meta  []instructions.ArgCommand // ARG before FROM
	args  map[string]string
	epoch time.Time
}

// Check returns the error of [Engine.Build] that reading the Dockerfile and the arguments alone
// gives, before the engine looks for the base image or for a file of the context. It matches
// [builder.ErrInvalid] or [builder.ErrUnsupported]. Repository and Context of the request may be
// missing.
func Check(r builder.Request) error {
	_, err := read(r)
	return err
}

// read parses the Dockerfile and refuses, before anything is done, instructions that this engine
// cannot build.
func read(r builder.Request) (plan, error) {
	if _, ok := r.Args["BUILDKIT_SYNTAX"]; ok {
		return plan{}, fmt.Errorf("build argument BUILDKIT_SYNTAX: leave it out: %w",
			builder.ErrInvalid)
	}
	epoch, err := epochOf(r.Args)
	if err != nil {
		return plan{}, err
	}
	parsed, err := parser.Parse(bytes.NewReader(r.Dockerfile))
	if err != nil {
		return plan{}, located(err)
	}
	for _, n := range parsed.AST.Children {
		if keyword := strings.ToUpper(n.Value); keyword == "FROM" {
			break
		} else if keyword != "ARG" {
			return plan{}, &builder.DockerfileError{Line: n.StartLine,
				Err: fmt.Errorf("%s stands before the first FROM", keyword)}
		}
	}
	stages, meta, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return plan{}, located(err)
	}
	if len(stages) == 0 {
		return plan{}, &builder.DockerfileError{Err: errors.New("has no FROM")}
	}
	if len(stages) > 1 {
		return plan{}, &builder.UnsupportedError{Line: lineOf(stages[1].Location),
			What: "a second FROM", Hint: needsSandbox}
	}
	for _, c := range stages[0].Commands {
		if err := supported(c); err != nil {
			return plan{}, err
		}
	}
	return plan{stage: stages[0], meta: meta, args: r.Args, epoch: epoch}, nil
}

const needsSandbox = "build it with an engine that runs commands (BuildKit, kaniko or buildah, " +
	"for instance in a Kubernetes Job)"

// supported returns an error for an instruction that this engine cannot build.
func supported(c instructions.Command) error {
	refuse := func(what, hint string) error {
		return &builder.UnsupportedError{Line: lineOf(c.Location()), What: what, Hint: hint}
	}
	const copyPlain = "copy from the build context without it, or build with BuildKit"
	switch c := c.(type) {
	case *instructions.RunCommand:
		return refuse("RUN", needsSandbox)
	case *instructions.OnbuildCommand:
		return refuse("ONBUILD", "write the instruction into the image that needs it")
	case *instructions.CopyCommand:
		switch {
		case c.From != "":
			return refuse("COPY --from", copyPlain)
		case c.Link:
			return refuse("COPY --link", copyPlain)
		case c.Parents:
			return refuse("COPY --parents", copyPlain)
		case len(c.ExcludePatterns) > 0:
			return refuse("COPY --exclude", "use .dockerignore")
		}
	case *instructions.AddCommand:
		switch {
		case c.Link:
			return refuse("ADD --link", copyPlain)
		case c.Checksum != "" || c.KeepGitDir != nil || c.Unpack != nil:
			return refuse("a flag of ADD for archives and remote sources", copyPlain)
		case len(c.ExcludePatterns) > 0:
			return refuse("ADD --exclude", "use .dockerignore")
		}
	}
	return nil
}

func lineOf(where []parser.Range) int {
	if len(where) == 0 {
		return 0
	}
	return where[0].Start.Line
}

var parserPrefix = regexp.MustCompile(`^dockerfile parse error on line \d+: `)

// located returns a parser's error with its line, once.
func located(err error) error {
	e := &builder.DockerfileError{Err: errors.New(parserPrefix.ReplaceAllString(err.Error(), ""))}
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 {
		e.Line = lineOf(at.Locations[0])
	}
	return e
}

// environment holds the values of $NAME. ENV wins over ARG, as in Docker.
type environment struct {
	env  []string // name=value, in order
	args map[string]string
}

var _ shell.EnvGetter = environment{}

// Get implements shell.EnvGetter.
func (e environment) Get(key string) (string, bool) {
	for _, kv := range e.env {
		if k, v, _ := strings.Cut(kv, "="); k == key {
			return v, true
		}
	}
	v, ok := e.args[key]
	return v, ok
}

// Keys implements shell.EnvGetter.
func (e environment) Keys() []string {
	var keys []string
	for _, kv := range e.env {
		k, _, _ := strings.Cut(kv, "=")
		keys = append(keys, k)
	}
	for k := range e.args {
		keys = append(keys, k)
	}
	return keys
}

func (e environment) word(word string) (string, error) {
	v, _, err := shell.NewLex(parser.DefaultEscapeToken).ProcessWord(word, e)
	if err != nil {
		// The lexer puts the character that it missed into its message, which may be NUL.
		return "", fmt.Errorf("expand %s: %s", word,
			strings.ReplaceAll(err.Error(), "\x00", "end of line"))
	}
	return v, nil
}

func (e environment) words(word string) ([]string, error) {
	return shell.NewLex(parser.DefaultEscapeToken).ProcessWords(word, e)
}

// heredoc expands the text of a file in the Dockerfile, whose quotes mean nothing.
func (e environment) heredoc(text string) (string, error) {
	lex := shell.NewLex(parser.DefaultEscapeToken)
	lex.SkipProcessQuotes = true
	v, _, err := lex.ProcessWord(text, e)
	return v, err
}

// setEnv replaces or appends name=value.
func setEnv(env []string, key, value string) []string {
	for i, kv := range env {
		if k, _, _ := strings.Cut(kv, "="); k == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

// platformArgs are the arguments that exist before the first FROM, as in BuildKit.
func (e *Engine) platformArgs() map[string]string {
	p := e.config.Platform
	variant := ""
	if p.Variant != "" {
		variant = "/" + p.Variant
	}
	return map[string]string{
		"TARGETPLATFORM": cmp.Or(p.OS, "linux") + "/" + p.Architecture + variant,
		"TARGETOS":       p.OS, "TARGETARCH": p.Architecture, "TARGETVARIANT": p.Variant,
	}
}
