package assemble

import (
	"cmp"
	"runtime"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/dockerfile"
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
	p, err := r.Plan()
	if err != nil {
		return plan{}, err
	}
	epoch, err := r.SourceDate()
	if err != nil {
		return plan{}, err
	}
	for _, s := range p.Stages {
		for _, c := range s.Commands {
			if err := supported(c); err != nil {
				return plan{}, err
			}
		}
	}
	return plan{stages: p.Stages, meta: p.Args, args: r.Args, epoch: epoch}, nil
}

const needsSandbox = "build it with an engine that runs commands (BuildKit, kaniko or buildah, " +
	"for instance in a Kubernetes Job)"

// supported returns an error for an instruction that this engine cannot build.
func supported(c instructions.Command) error {
	refuse := func(what, hint string) error {
		return &builder.UnsupportedError{Line: dockerfile.LineOf(c.Location()), What: what, Hint: hint}
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
func (b *build) platformArgs(stage string) dockerfile.Environment {
	p := b.platform
	variant := ""
	if p.Variant != "" {
		variant = "/" + p.Variant
	}
	return dockerfile.Environment{
		"TARGETPLATFORM": cmp.Or(p.OS, "linux") + "/" + p.Architecture + variant,
		"TARGETOS":       p.OS, "TARGETARCH": p.Architecture, "TARGETVARIANT": p.Variant,
		"TARGETSTAGE":   cmp.Or(stage, "default"),
		"BUILDPLATFORM": "linux/" + runtime.GOARCH,
		"BUILDOS":       "linux", "BUILDARCH": runtime.GOARCH, "BUILDVARIANT": "",
	}
}
