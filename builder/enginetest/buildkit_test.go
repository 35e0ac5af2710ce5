//go:build linux

package enginetest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/enginetest"
	"github.com/sluice-deploy/sluice/builder/internal/push"
	"github.com/sluice-deploy/sluice/internal/testbed/buildkit"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/registry"
)

// TestBuildKit holds BuildKit to the suite, behind an engine that checks the request, gives every
// file of the context one of two modes, and writes the tag itself.
func TestBuildKit(t *testing.T) {
	t.Parallel()
	oci := registry.Start(t)
	engine := &engine{daemon: buildkit.Start(t, oci.Addr)}
	base := image.Base(t, oci.Addr)
	enginetest.Run(t, func(t *testing.T) enginetest.Harness {
		return enginetest.Harness{Engine: engine, RunBase: base,
			// a path of the registry for each case
			Registry: oci.Addr + "/" + regexp.MustCompile(`[^a-z]+`).ReplaceAllString(
				strings.ToLower(t.Name()), "-")}
	})
}

// engine is a builder.Engine by way of buildctl.
type engine struct {
	daemon *buildkit.Daemon
	tags   sync.Mutex // held while a tag is looked up and written
	sent   push.Sent
}

func (e *engine) Build(ctx context.Context, r builder.Request) (builder.Result, error) {
	plan, err := builder.Check(ctx, r)
	if err != nil {
		return builder.Result{}, err
	}
	if len(r.Platforms) > 0 {
		return builder.Result{}, fmt.Errorf("platforms: %w", builder.ErrUnsupported)
	}
	if err := steps(ctx, r, plan); err != nil {
		return builder.Result{}, err
	}
	dir, err := os.MkdirTemp("", "context-*")
	if err != nil {
		return builder.Result{}, err
	}
	defer os.RemoveAll(dir)
	if r.Context != nil {
		if err := normalised(dir, r.Context); err != nil {
			return builder.Result{}, err
		}
	}
	b := buildkit.Build{Dockerfile: string(r.Dockerfile), Context: dir, Repository: r.Repository}
	for _, k := range slices.Sorted(maps.Keys(r.Args)) {
		b.Options = append(b.Options, "build-arg:"+k+"="+r.Args[k])
	}
	for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
		b.Options = append(b.Options, "label:"+k+"="+r.Labels[k])
	}
	digest, err := e.daemon.Build(ctx, b)
	if ctx.Err() != nil {
		return builder.Result{}, context.Cause(ctx)
	}
	if err != nil {
		return builder.Result{}, located(err)
	}
	res, img, err := e.result(ctx, r.Repository, digest)
	if err == nil && r.Tag != "" {
		err = e.tag(ctx, r, res, img)
	}
	if err != nil {
		return builder.Result{}, err
	}
	r.Emit(builder.Event{Kind: builder.EventDone, Text: "digest " + res.Digest})
	return res, nil
}

// steps emits an event for each instruction of the Dockerfile before BuildKit begins.
func steps(ctx context.Context, r builder.Request, p builder.Plan) error {
	var lines []builder.Event
	for _, s := range p.Stages {
		lines = append(lines, builder.Event{Line: s.Location[0].Start.Line, Text: s.SourceCode})
		for _, c := range s.Commands {
			lines = append(
				lines,
				builder.Event{Line: c.Location()[0].Start.Line, Text: fmt.Sprint(c)},
			)
		}
	}
	for i, e := range lines {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e.Kind, e.Step, e.Steps = builder.EventStep, i+1, len(lines)
		r.Emit(e)
	}
	return nil
}

// normalised copies the context to a directory with the modes that an image has.
func normalised(dir string, files fs.FS) error {
	return fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := filepath.Join(dir, name)
		switch d.Type() {
		case fs.ModeDir:
			return os.MkdirAll(at, 0o755)
		case fs.ModeSymlink:
			target, err := fs.ReadLink(files, name)
			if err != nil {
				return err
			}
			return os.Symlink(target, at)
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info, err := d.Info(); err == nil && info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		return errors.Join(os.WriteFile(at, content, mode), os.Chmod(at, mode))
	})
}

var atLine = regexp.MustCompile(`(?m)^Dockerfile:(\d+)$`)

// located makes an error of buildctl that names a line one of the Dockerfile.
func located(err error) error {
	if m := atLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1])
		return &builder.DockerfileError{Line: line, Err: err}
	}
	return err
}

// result reads the image that was pushed.
func (e *engine) result(ctx context.Context, repository, digest string) (builder.Result, v1.Image,
	error) {
	ref, err := name.NewDigest(repository + "@" + digest)
	if err != nil {
		return builder.Result{}, nil, err
	}
	img, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return builder.Result{}, nil, err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return builder.Result{}, nil, err
	}
	var m v1.Manifest
	config, err := img.ConfigFile()
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		return builder.Result{}, nil, err
	}
	res := builder.Result{Digest: digest, Reference: ref.String(), Size: int64(len(raw)),
		Layers: []builder.Layer{}}
	var made []string
	for _, h := range config.History {
		if !h.EmptyLayer {
			made = append(made, strings.TrimSuffix(h.CreatedBy, " # buildkit"))
		}
	}
	e.sent.Add(&res, repository, &m, made)
	return res, img, nil
}

// tag writes the tag unless it names another image.
func (e *engine) tag(
	ctx context.Context,
	r builder.Request,
	res builder.Result,
	img v1.Image,
) error {
	e.tags.Lock()
	defer e.tags.Unlock()
	tag, err := name.NewTag(r.Repository + ":" + r.Tag)
	if err != nil {
		return err
	}
	now, err := remote.Head(tag, remote.WithContext(ctx))
	var answer *transport.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
	case err != nil:
		return err
	case now.Digest.String() != res.Digest && !r.ReplaceTag:
		return &builder.TagExistsError{Reference: tag.String(), Existing: now.Digest.String(),
			Built: res.Digest}
	}
	return remote.Tag(tag, img, remote.WithContext(ctx))
}
