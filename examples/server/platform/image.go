package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"testing/fstest"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/promote"
)

// imageEngine builds the image of an order, and binds the version that the record of the build
// names to it.
type imageEngine struct{ p *Platform }

// Build implements builder.Engine.
func (e imageEngine) Build(ctx context.Context, r builder.Request) (builder.Result, error) {
	p := e.p
	_, build, err := p.buildRecord(r.ID)
	if err != nil {
		return builder.Result{}, err
	}
	result, err := p.build(ctx, build, r)
	if err != nil {
		return result, p.explained(build, err)
	}
	return result, nil
}

// explained adds the parameters of the template that stand at the line of a failure.
func (p *Platform) explained(build Build, err error) error {
	f := *builder.FailureOf(err)
	if errors.Is(err, ErrInvalid) { // the configuration in a source that was fetched
		f.Reason, f.Retryable, f.Hint = builder.ReasonRequest, false, "correct the source"
	}
	if errors.Is(err, promote.ErrRebound) {
		f.Reason, f.Retryable = builder.ReasonTagExists, false
		f.Hint = "choose another version: a version is one image for ever"
	}
	template, lost := p.Catalog().Template(build.Template)
	if lost != nil {
		return &f
	}
	if instructions, lost := template.Explain(p.templateParams(template, build)); lost == nil {
		f = f.Explained(instructions)
	}
	return &f
}

// build builds, binds and tags the image of a request.
func (p *Platform) build(ctx context.Context, build Build, r builder.Request) (builder.Result,
	error) {
	files, labels, err := p.configured(build.fetchedFrom(), r.Context)
	if err != nil {
		return builder.Result{}, err
	}
	template, err := p.Catalog().Template(build.Template)
	if err == nil && build.From != nil { // an upload was checked when it was kept
		err = template.CheckContext(files, p.templateParams(template, build))
	}
	if err != nil {
		return builder.Result{}, err
	}
	maps.Copy(labels, template.Labels())
	labels["org.opencontainers.image.title"] = build.Cluster
	labels["org.opencontainers.image.version"] = build.Version
	// The tag comes last: a build whose version cannot be bound leaves its name free.
	result, err := p.engine.Build(ctx, builder.Request{
		Dockerfile: r.Dockerfile, Context: files, Repository: p.repository(build.Cluster),
		Labels: labels, Log: r.Log, Events: r.Events,
	})
	if err != nil {
		return result, err
	}
	digest, err := promote.ParseDigest(result.Digest)
	if err != nil {
		return result, err
	}
	if err := p.untagged(ctx, build, digest); err != nil {
		return result, err
	}
	err = p.promoter.Bind(ctx, promote.Binding{
		Cluster: build.Cluster, Version: build.Version, Digest: digest,
		Repository: stored(build.Cluster), Actor: build.Actor,
	})
	if err != nil {
		return result, err
	}
	if err := p.setTag(ctx, build, digest); err != nil && r.Log != nil {
		_, _ = io.WriteString(r.Log, "the version is bound, its tag is not set: "+err.Error()+"\n")
	}
	return result, nil
}

// configured is a source with the envconfig binary and, where there is configuration, its manifest;
// labels are the labels that the image gets for it.
func (p *Platform) configured(source string, files fs.FS) (_ fs.FS, labels map[string]string,
	err error) {
	dir, file := filepath.Split(p.config.Envconfig)
	binary, err := builder.Program(os.DirFS(filepath.Clean(dir)), file, "linux/"+runtime.GOARCH)
	if err != nil {
		return nil, nil, fmt.Errorf("envconfig binary: %v", err) // not the caller's fault
	}
	added := fstest.MapFS{"envconfig": {Data: binary, Mode: 0o755}}
	labels = map[string]string{}
	if _, err := fs.Stat(files, "envs"); err == nil {
		manifest, err := envconfig.Scan(files)
		if err != nil {
			return nil, nil, invalid("source %s: %v", source, err)
		}
		added[envconfig.ManifestName] = &fstest.MapFile{Data: manifest.JSON(), Mode: 0o644}
		key, value := manifest.Label()
		labels[key] = value
	}
	return overlayFS{files, added}, labels, nil
}

// templateParams are the values that a build gives to its template.
func (p *Platform) templateParams(template *builder.Template, build Build) map[string]string {
	params := map[string]string{}
	for _, param := range template.Params {
		if param.Name == "CLUSTER_NAME" {
			params[param.Name] = build.Cluster
		}
	}
	maps.Copy(params, build.Params)
	return params
}
