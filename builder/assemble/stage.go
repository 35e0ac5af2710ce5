package assemble

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/sluice-deploy/sluice/builder"
)

// stage is a build in progress: the image so far.
type stage struct {
	ctx     context.Context
	engine  *Engine
	options []remote.Option
	files   *buildContext
	dir     string // for spooled layers
	epoch   time.Time
	args    map[string]string // given by the request
	log     *progress

	base      v1.Image
	baseName  string // by digest, "" for scratch
	layerType types.MediaType
	config    *v1.ConfigFile
	tree      tree
	meta      map[string]string // values of ARG before FROM
	vars      map[string]string // values of ARG since FROM
	declared  map[string]bool   // names of ARG
	layers    []*layer
	history   []v1.History
	cmdSet    bool // CMD stands in this Dockerfile, not only in the base
}

func (s *stage) environment() environment {
	return environment{env: s.config.Config.Env, args: s.vars}
}

func (s *stage) labels() map[string]string {
	if s.config.Config.Labels == nil {
		s.config.Config.Labels = map[string]string{}
	}
	return s.config.Config.Labels
}

// step carries out one instruction.
func (s *stage) step(c instructions.Command) error {
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	code := sourceOf(c)
	s.log.step(lineOf(c.Location()), code)
	made, err := s.do(c)
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if err != nil {
		return &builder.DockerfileError{Line: lineOf(c.Location()), Instruction: code, Err: err}
	}
	h := v1.History{Created: v1.Time{Time: s.epoch}, CreatedBy: code, EmptyLayer: true}
	if made != nil && len(made.entries) > 0 {
		l, err := made.write(s.ctx, s.dir, s.epoch)
		if err != nil {
			return &stepError{lineOf(c.Location()), code, err}
		}
		l.mediaType, l.known = s.layerType, &s.engine.known
		s.layers = append(s.layers, l)
		s.log.layer(made.entries)
		h.EmptyLayer = false
	}
	s.history = append(s.history, h)
	return nil
}

// stepError is an instruction that failed for a reason outside of the Dockerfile and its context.
type stepError struct {
	line int
	code string
	err  error
}

func (e *stepError) Error() string {
	return (&builder.DockerfileError{Line: e.line, Instruction: e.code, Err: e.err}).Error()
}

func (e *stepError) Unwrap() error { return e.err }

// sourceOf is the instruction as the Dockerfile has it, on one line.
func sourceOf(c instructions.Command) string {
	code, _, _ := strings.Cut(fmt.Sprint(c), "\n")
	return code
}

func (s *stage) do(c instructions.Command) (*changes, error) {
	env := s.environment()
	if expands, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		if err := expands.Expand(env.word); err != nil {
			return nil, err
		}
	}
	if expands, ok := c.(instructions.SupportsSingleWordExpansionRaw); ok {
		if err := expands.ExpandRaw(env.heredoc); err != nil {
			return nil, err
		}
	}
	config := &s.config.Config
	switch c := c.(type) {
	case *instructions.CopyCommand:
		return s.copy(c.SourcesAndDest, c.Chown, c.Chmod, false)
	case *instructions.AddCommand:
		return s.copy(c.SourcesAndDest, c.Chown, c.Chmod, true)
	case *instructions.WorkdirCommand:
		return s.workdir(c.Path)
	case *instructions.ArgCommand:
		s.arg(c)
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			config.Env = setEnv(config.Env, kv.Key, kv.Value)
		}
	case *instructions.LabelCommand:
		for _, kv := range c.Labels {
			s.labels()[kv.Key] = kv.Value
		}
	case *instructions.UserCommand:
		config.User = c.User
	case *instructions.ExposeCommand:
		return nil, s.expose(c, env)
	case *instructions.VolumeCommand:
		for _, v := range c.Volumes {
			if config.Volumes == nil {
				config.Volumes = map[string]struct{}{}
			}
			config.Volumes[v] = struct{}{}
		}
	case *instructions.EntrypointCommand:
		config.Entrypoint = s.commandLine(c.ShellDependantCmdLine)
		if !s.cmdSet {
			config.Cmd = nil // the base's arguments were meant for the base's program
		}
	case *instructions.CmdCommand:
		config.Cmd, s.cmdSet = s.commandLine(c.ShellDependantCmdLine), true
	case *instructions.ShellCommand:
		config.Shell = c.Shell
	case *instructions.StopSignalCommand:
		config.StopSignal = c.Signal
	case *instructions.HealthCheckCommand:
		config.Healthcheck = &v1.HealthConfig{
			Test: c.Health.Test, Interval: c.Health.Interval, Timeout: c.Health.Timeout,
			StartPeriod: c.Health.StartPeriod, Retries: c.Health.Retries,
		}
	case *instructions.MaintainerCommand:
		s.config.Author = c.Maintainer
	default:
		return nil, fmt.Errorf("%s: %w", strings.ToUpper(c.Name()), builder.ErrUnsupported)
	}
	return nil, nil
}

func (s *stage) commandLine(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return c.CmdLine
	}
	sh := s.config.Config.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(sh), c.CmdLine...)
}

// arg gives each name the request's value, else its default, else the value of ARG before FROM.
func (s *stage) arg(c *instructions.ArgCommand) {
	for _, a := range c.Args {
		s.declared[a.Key] = true
		if v, ok := s.args[a.Key]; ok {
			s.vars[a.Key] = v
		} else if a.Value != nil {
			s.vars[a.Key] = *a.Value
		} else if v, ok := s.meta[a.Key]; ok {
			s.vars[a.Key] = v
		}
	}
}

func (s *stage) expose(c *instructions.ExposeCommand, env environment) error {
	for _, word := range c.Ports {
		ports, err := env.words(word)
		if err != nil {
			return err
		}
		for _, p := range ports {
			if err := s.exposeOne(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *stage) exposeOne(spec string) error {
	ports, protocol, ok := strings.Cut(strings.ToLower(spec), "/")
	if !ok {
		protocol = "tcp"
	}
	from, to, ok := strings.Cut(ports, "-")
	if !ok {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil || first > last ||
		!slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return fmt.Errorf("%q is no port: write 8080, 8080/udp or 8000-8010", spec)
	}
	if s.config.Config.ExposedPorts == nil {
		s.config.Config.ExposedPorts = map[string]struct{}{}
	}
	for p := first; p <= last; p++ {
		s.config.Config.ExposedPorts[fmt.Sprintf("%d/%s", p, protocol)] = struct{}{}
	}
	return nil
}

// workdir moves to a directory, and makes it for the user of the image when it is missing, as
// BuildKit does.
func (s *stage) workdir(dir string) (*changes, error) {
	if dir == "" {
		return nil, fmt.Errorf("the path is empty")
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", s.config.Config.WorkingDir, dir)
	}
	dir = path.Clean(dir)
	s.config.Config.WorkingDir = dir
	if n, ok := s.tree.find(dir); ok && n.kind == isDir {
		return nil, nil
	}
	who := owner{}
	if user := s.config.Config.User; user != "" && user != "root" {
		var err error
		if who, err = parseOwner(user); err != nil {
			return nil, fmt.Errorf("make %s for user %s: %w", dir, user, err)
		}
	}
	c := s.changes()
	_, err := c.folder(dir, who)
	return c, err
}

func (s *stage) changes() *changes {
	return &changes{tree: s.tree, entries: map[string]entry{}}
}

// parseOwner reads uid[:gid]; a missing group is the user's number.
func parseOwner(spec string) (owner, error) {
	user, group, ok := strings.Cut(spec, ":")
	if !ok {
		group = user
	}
	uid, err := strconv.ParseUint(user, 10, 31)
	gid, err2 := strconv.ParseUint(group, 10, 31)
	if err != nil || err2 != nil {
		return owner{}, fmt.Errorf("owner %q is not numeric, and names are not looked up in the "+
			"image: write uid:gid: %w",
			spec, builder.ErrUnsupported)
	}
	return owner{int(uid), int(gid)}, nil
}

// from starts the image: empty, or the base image.
func (s *stage) from(p plan) error {
	s.meta, s.vars, s.declared = s.engine.platformArgs(), map[string]string{}, map[string]bool{}
	for _, c := range p.meta {
		c.Args = slices.Clone(c.Args)
		if err := c.Expand(environment{args: s.meta}.word); err != nil {
			return &builder.DockerfileError{Line: lineOf(c.Location()), Err: err}
		}
		before := s.vars
		s.vars = maps.Clone(s.meta)
		s.arg(&c)
		s.meta, s.vars = s.vars, before
	}
	line := lineOf(p.stage.Location)
	s.log.step(line, p.stage.SourceCode)
	from, err := environment{args: s.meta}.word(p.stage.BaseName)
	if err == nil && p.stage.Platform != "" {
		err = &builder.UnsupportedError{Line: line, What: "FROM --platform",
			Hint: "the engine's configuration says the platform"}
	}
	if err == nil {
		err = s.start(from)
	}
	if err != nil {
		return &stepError{line, "FROM " + from, err}
	}
	return nil
}

// image puts base, layers and configuration together, for a push to the repository.
func (s *stage) image(to name.Repository) (v1.Image, error) {
	layers, err := s.mountable(to)
	if err != nil {
		return nil, err
	}
	add := make([]mutate.Addendum, len(layers))
	for i, l := range layers {
		add[i] = mutate.Addendum{Layer: l, MediaType: s.layerType}
	}
	img, err := mutate.Append(s.base, add...)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	s.config.RootFS = config.RootFS
	s.config.Created = v1.Time{Time: s.epoch}
	s.config.History = append(s.config.History, s.history...)
	return mutate.ConfigFile(img, s.config)
}
