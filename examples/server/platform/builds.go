package platform

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
)

// BuildRequest asks for the image of one version of a cluster.
type BuildRequest struct {
	Cluster  string            `json:"cluster"`
	Version  string            `json:"version"`
	Template string            `json:"template"`         // of the catalogue
	Source   string            `json:"source"`           // the folder that is built
	Params   map[string]string `json:"params,omitempty"` // of the template; CLUSTER_NAME is the cluster if it is not given
	Actor    string            `json:"actor"`
}

// BuildState says how far a build is.
type BuildState string

// The states of a build.
const (
	BuildQueued    BuildState = "queued"
	BuildRunning   BuildState = "running"
	BuildSucceeded BuildState = "succeeded"
	BuildFailed    BuildState = "failed"
)

// Build is one request and what became of it.
type Build struct {
	ID string `json:"id"`
	BuildRequest
	Dockerfile string     `json:"dockerfile"`
	State      BuildState `json:"state"`
	Error      string     `json:"error,omitempty"`
	Digest     string     `json:"digest,omitempty"`
	Size       int64      `json:"size,omitempty"`     // of the image, compressed, in bytes
	Uploaded   int64      `json:"uploaded,omitempty"` // of these, what the registry did not have yet
	Queued     time.Time  `json:"queued"`
	Started    time.Time  `json:"started,omitzero"`
	Ended      time.Time  `json:"ended,omitzero"`
}

// Ended tells whether nothing more will happen to a build in this state.
func (s BuildState) Ended() bool { return s == BuildSucceeded || s == BuildFailed }

// SubmitBuild checks the request, renders its Dockerfile and puts it into the queue, which Run works off in order. What is
// wrong with the template's parameters is said at once. What is built is the source as it is now.
func (p *Platform) SubmitBuild(request BuildRequest) (Build, error) {
	if err := checkNames(names.Cluster(request.Cluster), names.Version(request.Version), checkSource(request.Source)); err != nil {
		return Build{}, err
	}
	template, err := p.Catalog.Template(request.Template)
	if err != nil {
		return Build{}, invalid("template %q: %v", request.Template, err)
	}
	params := map[string]string{}
	for _, param := range template.Params {
		if param.Name == "CLUSTER_NAME" {
			params[param.Name] = request.Cluster
		}
	}
	for name, value := range request.Params {
		params[name] = value
	}
	dockerfile, err := template.Render(params)
	if err != nil {
		return Build{}, invalid("%v", err)
	}
	n, err := p.builds.next()
	if err != nil {
		return Build{}, err
	}
	build := Build{
		ID: fmt.Sprintf("b%06d", n), BuildRequest: request, Dockerfile: string(dockerfile), State: BuildQueued, Queued: time.Now().UTC(),
	}
	if err := p.keepSource(build); err != nil {
		return Build{}, err
	}
	build, err = p.builds.update(build.ID, func(Build) (Build, error) { return build, nil })
	if err != nil {
		return Build{}, err
	}
	p.Events.Bump()
	return build, nil
}

// Builds returns all builds, newest first.
func (p *Platform) Builds() ([]Build, error) {
	builds, err := p.builds.list()
	slices.Reverse(builds)
	return builds, err
}

// BuildsAfter returns the n builds that keep accepts after the one of the id, newest first, and whether there are more; an
// empty id begins with the newest. Only builds with the lower-case text in one of their fields are looked at.
func (p *Platform) BuildsAfter(id string, n int, text string, keep func(Build) bool) (builds []Build, more bool, err error) {
	err = p.builds.after(id, text, func(b Build) bool {
		switch {
		case !keep(b):
		case len(builds) == n:
			more = true
		default:
			builds = append(builds, b)
		}
		return !more
	})
	return builds, more, err
}

// Build returns one build, or ErrNotFound.
func (p *Platform) Build(id string) (Build, error) {
	build, found, err := p.builds.get(id)
	if err == nil && !found {
		err = fmt.Errorf("build %q: %w", id, ErrNotFound)
	}
	return build, err
}

// BuildLog returns the path of the build's log, which grows while the build runs.
func (p *Platform) BuildLog(id string) string {
	return filepath.Join(p.config.Dir, "builds", id+".log")
}

// runBuilds works off the queue. A build that a crash has cut off is run again: the same input gives the same digest.
func (p *Platform) runBuilds(ctx context.Context) error {
	for seen := uint64(0); ; {
		builds, err := p.builds.list()
		if err != nil {
			return err
		}
		for _, build := range builds {
			if build.State.Ended() {
				continue
			}
			if err := p.runBuild(ctx, build); err != nil {
				return err
			}
		}
		if seen, err = p.Events.Wait(ctx, seen); err != nil {
			return err
		}
	}
}

// runBuild returns an error only when the build's record cannot be written or ctx is done.
func (p *Platform) runBuild(ctx context.Context, build Build) error {
	build.State, build.Started = BuildRunning, time.Now().UTC()
	if err := p.saveBuild(build); err != nil {
		return err
	}
	log, err := os.Create(p.BuildLog(build.ID))
	if err != nil {
		return err
	}
	defer log.Close()
	result, err := p.build(ctx, build, io.MultiWriter(log, notifier{&p.Events}))
	if ctx.Err() != nil {
		return context.Cause(ctx) // it stays "running" on disk and is run again after the next start
	}
	build.Ended = time.Now().UTC()
	build.Digest, build.Size, build.Uploaded = result.Digest, result.Size, result.Uploaded
	if build.State = BuildSucceeded; err != nil {
		build.State, build.Error = BuildFailed, err.Error()
		fmt.Fprintln(log, "failed:", err)
	}
	if err := p.saveBuild(build); err != nil {
		return err
	}
	return os.RemoveAll(p.keptSource(build.ID))
}

func (p *Platform) build(ctx context.Context, build Build, log io.Writer) (builder.Result, error) {
	files, labels, done, err := p.buildContext(build)
	if err != nil {
		return builder.Result{}, err
	}
	defer done()
	template, err := p.Catalog.Template(build.Template)
	if err != nil {
		return builder.Result{}, err
	}
	maps.Copy(labels, template.Labels())
	labels["org.opencontainers.image.title"] = build.Cluster
	labels["org.opencontainers.image.version"] = build.Version
	repository := p.repository(build.Cluster)
	result, err := p.engine.Build(ctx, builder.Request{
		Dockerfile: []byte(build.Dockerfile), Context: files, Repository: repository, Tag: build.Version, Labels: labels, Log: log,
	})
	if err != nil {
		return result, err
	}
	digest, err := promote.ParseDigest(result.Digest)
	if err != nil {
		return result, err
	}
	return result, p.promoter.Bind(ctx, promote.Binding{
		Cluster: build.Cluster, Version: build.Version, Digest: digest, Repository: repository, Actor: build.Actor,
	})
}

// repositories names those that hold images, for layers that clusters share.
func (p *Platform) repositories() []string {
	builds, _ := p.builds.list() // without the list, a shared layer is sent once more
	var list []string
	for _, b := range builds {
		if b.State == BuildSucceeded {
			list = append(list, p.repository(b.Cluster))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (p *Platform) repository(cluster string) string { return p.config.Registry + "/" + cluster }

func (p *Platform) saveBuild(build Build) error {
	_, err := p.builds.update(build.ID, func(Build) (Build, error) { return build, nil })
	p.Events.Bump()
	return err
}

// notifier bumps the events for everything that is written to it.
type notifier struct{ events *Events }

func (n notifier) Write(data []byte) (int, error) {
	n.events.Bump()
	return len(data), nil
}
