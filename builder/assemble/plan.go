package assemble

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/sluice-deploy/sluice/builder"
)

// plan is a Dockerfile that this engine can build, as far as its text shows.
type plan struct {
	stages []instructions.Stage
	meta   []instructions.ArgCommand // ARG before FROM
	args   map[string]string
	epoch  time.Time
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
	for _, s := range stages {
		for _, c := range s.Commands {
			if err := supported(c); err != nil {
				return plan{}, err
			}
		}
	}
	return plan{stages: stages, meta: meta, args: r.Args, epoch: epoch}, nil
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
		if c.Parents {
			return refuse("COPY --parents", copyPlain)
		}
	case *instructions.AddCommand:
		switch {
		case c.Checksum != "" || c.KeepGitDir != nil:
			return refuse("a flag of ADD for remote sources", copyPlain)
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

// environment holds the values of $NAME: of ENV and ARG, the later one wins, as BuildKit has it (its
// reference says that ENV always wins).
type environment map[string]string

var _ shell.EnvGetter = environment{}

// Get implements shell.EnvGetter.
func (e environment) Get(key string) (string, bool) {
	v, ok := e[key]
	return v, ok
}

// Keys implements shell.EnvGetter.
func (e environment) Keys() []string { return slices.Collect(maps.Keys(e)) }

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

// platformArgs are the arguments that exist before the first FROM, as in BuildKit; stage is the name
// of the last one.
func (e *Engine) platformArgs(stage string) environment {
	p := e.config.Platform
	variant := ""
	if p.Variant != "" {
		variant = "/" + p.Variant
	}
	return environment{
		"TARGETPLATFORM": cmp.Or(p.OS, "linux") + "/" + p.Architecture + variant,
		"TARGETOS":       p.OS, "TARGETARCH": p.Architecture, "TARGETVARIANT": p.Variant,
		"TARGETSTAGE":   cmp.Or(stage, "default"),
		"BUILDPLATFORM": "linux/" + runtime.GOARCH,
		"BUILDOS":       "linux", "BUILDARCH": runtime.GOARCH, "BUILDVARIANT": "",
	}
}
