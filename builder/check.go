package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"

	"github.com/sluice-deploy/sluice/builder/internal/buildcontext"
	"github.com/sluice-deploy/sluice/builder/internal/dockerfile"
)

// Plan is a Dockerfile that was read.
type Plan struct {
	// Stages are in the order of the file; the last one is the image.
	Stages []instructions.Stage
	// Args are the ARG before the first FROM.
	Args []instructions.ArgCommand
}

// Check returns everything that is wrong with a request and can be found without a registry and
// without running an instruction, joined: the problems of [Request.Validate], a Repository that is no
// name of a repository, an instruction that BuildKit's parser refuses, and, as far as its variables
// are known without the base image, COPY and ADD of files that the context lacks, that .dockerignore
// excludes, that lie outside of the context, that no layer can have, or that are several for one
// name, EXPOSE of no port and STOPSIGNAL of no signal. It reads names and types of the context's
// files, not their content. Every [Engine] calls it before it begins. An error that matches
// [ErrInvalid] is of the request, others are of reading the context or of ctx.
func Check(ctx context.Context, r Request) (Plan, error) {
	var errs []error
	if err := r.Validate(); err != nil {
		errs = append(errs, err)
	}
	if _, err := name.NewRepository(r.Repository, name.StrictValidation); err != nil {
		errs = append(errs, fmt.Errorf("repository: %w: %w", err, ErrInvalid))
	}
	files, err := buildcontext.Open(r.Context)
	if pattern := (*buildcontext.PatternError)(nil); errors.As(err, &pattern) {
		errs = append(errs, fmt.Errorf("%w: %w", err, ErrInvalid))
	} else if err != nil {
		return Plan{}, errors.Join(append(errs, err)...)
	}
	plan, err := r.Plan()
	if err != nil || len(errs) > 0 {
		return Plan{}, errors.Join(append(errs, err)...)
	}
	c := checker{ctx: ctx, request: r, files: files, plan: plan}
	if err := c.run(); err != nil {
		return Plan{}, err
	}
	return plan, nil
}

// Plan reads the Dockerfile. An error is a [*DockerfileError].
func (r *Request) Plan() (Plan, error) {
	parsed, err := parser.Parse(bytes.NewReader(r.Dockerfile))
	if err != nil {
		return Plan{}, parserError(err)
	}
	for _, n := range parsed.AST.Children {
		if keyword := strings.ToUpper(n.Value); keyword == "FROM" {
			break
		} else if keyword != "ARG" {
			return Plan{}, at(n.StartLine, "%s stands before the first FROM", keyword)
		}
	}
	stages, args, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return Plan{}, parserError(err)
	}
	if len(stages) == 0 {
		return Plan{}, at(0, "has no FROM")
	}
	return Plan{Stages: stages, Args: args}, nil
}

func parserError(err error) error {
	line, err := dockerfile.ParserError(err)
	return &DockerfileError{Line: line, Err: err}
}

// checker is one call of Check.
type checker struct {
	ctx     context.Context
	request Request
	files   *buildcontext.Files
	plan    Plan
	errs    []error
}

// variables are the values of $NAME that are known in a stage.
type variables struct {
	values dockerfile.Environment
	// open says that a name without a value may have one: of the base image or of the platform.
	open bool
	// unknown are names whose value is not known here.
	unknown map[string]bool
}

// word fills in a word; ok is false if a value is not known here.
func (v variables) word(text string) (filled string, ok bool) {
	asked := &asking{variables: v}
	filled, err := dockerfile.Word(text, asked)
	return filled, err == nil && !asked.missed
}

// asking notes whether a value was asked for that is not known here.
type asking struct {
	variables
	missed bool
}

// Get implements shell.EnvGetter.
func (a *asking) Get(key string) (string, bool) {
	value, ok := a.values[key]
	if a.unknown[key] || !ok && a.open {
		a.missed = true
	}
	return value, ok
}

// Keys implements shell.EnvGetter.
func (a *asking) Keys() []string { return a.values.Keys() }

func (c *checker) run() error {
	global := variables{values: dockerfile.Environment{}, open: true, unknown: map[string]bool{}}
	for _, a := range c.plan.Args {
		c.arg(a.Args, global, global.values)
	}
	stages := make([]variables, len(c.plan.Stages))
	for i, s := range c.plan.Stages {
		v := variables{values: dockerfile.Environment{}, open: true, unknown: map[string]bool{}}
		if from, ok := global.word(s.BaseName); ok {
			v.open = from != "scratch"
			for j := range i {
				if n := c.plan.Stages[j].Name; n != "" && strings.EqualFold(n, from) {
					v = variables{maps.Clone(stages[j].values), stages[j].open,
						maps.Clone(stages[j].unknown)}
				}
			}
		}
		for _, command := range s.Commands {
			if c.ctx.Err() != nil {
				return context.Cause(c.ctx)
			}
			if err := c.command(command, v, global.values, i); err != nil {
				return err
			}
		}
		stages[i] = v
	}
	return errors.Join(c.errs...)
}

// arg notes the values of ARG.
func (c *checker) arg(args []instructions.KeyValuePairOptional, v variables,
	global dockerfile.Environment) {
	for _, a := range args {
		delete(v.unknown, a.Key)
		if given, ok := c.request.Args[a.Key]; ok {
			v.values[a.Key] = given
		} else if a.Value != nil {
			c.assign(a.Key, *a.Value, v)
		} else if value, ok := global[a.Key]; ok {
			v.values[a.Key] = value
		} else if _, known := v.values[a.Key]; !known {
			v.unknown[a.Key] = true // of the platform, or of the base image
		}
	}
}

func (c *checker) assign(key, text string, v variables) {
	value, ok := v.word(text)
	if v.unknown[key] = !ok; ok {
		v.values[key] = value
	}
}

// command checks one instruction of stage i. Its error is one of reading the context.
func (c *checker) command(command instructions.Command, v variables, global dockerfile.Environment,
	i int) error {
	wrong := func(err error) {
		c.errs = append(c.errs, &DockerfileError{Line: dockerfile.LineOf(command.Location()),
			Instruction: dockerfile.SourceOf(command), Err: err})
	}
	switch command := command.(type) {
	case *instructions.ArgCommand:
		c.arg(command.Args, v, global)
	case *instructions.EnvCommand:
		before := variables{maps.Clone(v.values), v.open, maps.Clone(v.unknown)}
		for _, kv := range command.Env {
			value, ok := before.word(kv.Value)
			if v.unknown[kv.Key] = !ok; ok {
				v.values[kv.Key] = value
			}
		}
	case *instructions.ExposeCommand:
		for _, p := range command.Ports {
			if filled, ok := v.word(p); ok {
				for _, word := range strings.Fields(filled) {
					if _, err := dockerfile.Ports(word); err != nil {
						wrong(err)
					}
				}
			}
		}
	case *instructions.StopSignalCommand:
		if s, ok := v.word(command.Signal); ok && !dockerfile.KnownSignal(s) {
			wrong(fmt.Errorf("%q is no signal of Linux: write SIGTERM, TERM or 15", s))
		}
	case *instructions.CopyCommand:
		if command.From != "" {
			if n, err := strconv.Atoi(command.From); err == nil && n >= i {
				wrong(fmt.Errorf("--from=%d: no stage before this one has the number: stages are "+
					"counted from 0", n))
			}
			return nil
		}
		if command.Parents {
			return nil
		}
		return c.copy(command.SourcesAndDest, command.ExcludePatterns, v, wrong)
	case *instructions.AddCommand:
		return c.copy(command.SourcesAndDest, command.ExcludePatterns, v, wrong)
	}
	return nil
}

// copy checks the sources of COPY and ADD.
func (c *checker) copy(what instructions.SourcesAndDest, exclude []string, v variables,
	wrong func(error)) error {
	var left *patternmatcher.PatternMatcher
	if len(exclude) > 0 {
		var err error
		if left, err = patternmatcher.New(exclude); err != nil {
			wrong(fmt.Errorf("--exclude: %w", err))
			return nil
		}
	}
	n, all := len(what.SourceContents), true
	for _, text := range what.SourcePaths {
		pattern, ok := v.word(text)
		if all = all && ok; !ok {
			continue
		}
		found, err := c.files.Find(pattern)
		if err != nil {
			if n, all = n+1, false; outside(err) {
				return err
			}
			wrong(err)
			continue
		}
		n += len(found)
		for _, f := range found {
			if err := c.source(f, left, wrong); err != nil {
				return err
			}
		}
	}
	dest, ok := v.word(what.DestPath)
	last := path.Base(dest)
	switch {
	case n == 0 && all:
		wrong(fmt.Errorf("no file of the %s matches", c.files.Name()))
	case n > 1 && ok && !strings.HasSuffix(dest, "/") && last != "." && last != "..":
		wrong(fmt.Errorf("%d sources need a directory: end the destination with /", n))
	}
	return nil
}

// outside reports whether an error is of the file system, not of the request.
func outside(err error) bool {
	var pathError *fs.PathError
	return errors.As(err, &pathError) && !errors.Is(err, fs.ErrNotExist)
}

// source looks in a source of COPY or ADD for files that no layer can have.
func (c *checker) source(s buildcontext.Source, exclude *patternmatcher.PatternMatcher,
	wrong func(error)) error {
	look := func(at string, info fs.FileInfo) {
		if strings.HasPrefix(path.Base(at), ".wh.") {
			wrong(
				fmt.Errorf(
					"%s: layers keep names that start with .wh. for deleted files: rename it",
					at,
				),
			)
		}
		if kind := info.Mode().Type(); !slices.Contains(
			[]fs.FileMode{0, fs.ModeDir, fs.ModeSymlink},
			kind,
		) {
			wrong(
				fmt.Errorf("%s is %s: only files, directories and symbolic links can be copied", at,
					dockerfile.Describe(info.Mode())),
			)
		}
	}
	look(s.Name, s.Info)
	if !s.Info.IsDir() {
		return nil
	}
	return c.files.Walk(s.Real, exclude, func(rel string, info fs.FileInfo) error {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		look(path.Join(s.Real, rel), info)
		return nil
	})
}
