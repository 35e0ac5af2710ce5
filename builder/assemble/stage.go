package assemble

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/dockerfile"
)

// stage is a stage in progress: the image so far.
type stage struct {
	*build
	number int

	base      v1.Image
	baseFiles *baseFiles
	baseName  string // by digest, "" for scratch
	layerType types.MediaType
	config    *v1.ConfigFile
	// startInterval belongs to config.Config.Healthcheck, whose type lacks it.
	startInterval time.Duration
	tree          tree
	vars          dockerfile.Environment // values of ENV, and of ARG since FROM
	layers        []*layer
	history       []v1.History
	cmdSet        bool // CMD stands in this Dockerfile, not only in the base
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
	code := dockerfile.SourceOf(c)
	s.log.step(dockerfile.LineOf(c.Location()), code)
	made, err := s.do(c)
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if err != nil {
		return &builder.DockerfileError{Line: dockerfile.LineOf(c.Location()), Instruction: code, Err: err}
	}
	h := v1.History{Created: v1.Time{Time: s.plan.epoch}, CreatedBy: code, EmptyLayer: true}
	if made != nil && len(made.entries) > 0 {
		l, err := made.write(s.ctx, s.dir, s.plan.epoch)
		if err != nil {
			return &stepError{dockerfile.LineOf(c.Location()), code, err}
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

func (s *stage) do(c instructions.Command) (*changes, error) {
	env := s.vars
	if expands, ok := c.(instructions.SupportsSingleWordExpansion); ok {
		if err := expands.Expand(env.Word); err != nil {
			return nil, err
		}
	}
	if expands, ok := c.(instructions.SupportsSingleWordExpansionRaw); ok {
		if err := expands.ExpandRaw(env.Heredoc); err != nil {
			return nil, err
		}
	}
	config := &s.config.Config
	switch c := c.(type) {
	case *instructions.CopyCommand:
		from, err := s.from(c.From)
		if err != nil {
			return nil, err
		}
		from.link = c.Link
		return s.copy(c.SourcesAndDest, from, c.Chown, c.Chmod, c.ExcludePatterns)
	case *instructions.AddCommand:
		from := s.context()
		from.unpack, from.link = c.Unpack == nil || *c.Unpack, c.Link
		return s.copy(c.SourcesAndDest, from, c.Chown, c.Chmod, c.ExcludePatterns)
	case *instructions.WorkdirCommand:
		return s.workdir(c.Path)
	case *instructions.ArgCommand:
		s.arg(c, s.vars)
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			config.Env = setEnv(config.Env, kv.Key, kv.Value)
			s.vars[kv.Key] = kv.Value
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
		if !dockerfile.KnownSignal(c.Signal) {
			return nil, fmt.Errorf("%q is no signal of Linux: write SIGTERM, TERM or 15", c.Signal)
		}
		config.StopSignal = c.Signal
	case *instructions.HealthCheckCommand:
		config.Healthcheck = &v1.HealthConfig{
			Test: c.Health.Test, Interval: c.Health.Interval, Timeout: c.Health.Timeout,
			StartPeriod: c.Health.StartPeriod, Retries: c.Health.Retries,
		}
		s.startInterval = c.Health.StartInterval
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
func (b *build) arg(c *instructions.ArgCommand, values dockerfile.Environment) {
	for _, a := range c.Args {
		b.declared[a.Key] = true
		if v, ok := b.plan.args[a.Key]; ok {
			values[a.Key] = v
		} else if a.Value != nil {
			values[a.Key] = *a.Value
		} else if v, ok := b.meta[a.Key]; ok {
			values[a.Key] = v
		}
	}
}

func (s *stage) expose(c *instructions.ExposeCommand, env dockerfile.Environment) error {
	for _, word := range c.Ports {
		ports, err := env.Words(word)
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
	ports, err := dockerfile.Ports(spec)
	if err != nil {
		return err
	}
	if s.config.Config.ExposedPorts == nil {
		s.config.Config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		s.config.Config.ExposedPorts[p] = struct{}{}
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
	s.config.Config.WorkingDir = dir
	if n, ok := s.tree.find(dir); ok && n.kind == isDir {
		return nil, nil
	}
	who := owner{}
	if user := s.config.Config.User; user != "" && user != "root" {
		var err error
		if who, err = s.parseOwner(user); err != nil {
			return nil, fmt.Errorf("make %s for user %s: %w", dir, user, err)
		}
	}
	c := s.changes()
	_, err := c.makeDir(dir, who)
	return c, err
}

func (s *stage) changes() *changes {
	return &changes{tree: s.tree, entries: map[string]entry{}}
}

// finish puts base, layers and configuration together, for a push to the repository.
func (s *stage) finish(to name.Repository) (v1.Image, error) {
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
	s.config.Created = v1.Time{Time: s.plan.epoch}
	s.config.History = append(s.config.History, s.history...)
	raw, err := marshalConfig(s.config, s.startInterval)
	if err != nil {
		return nil, err
	}
	return withConfig(img, raw)
}
