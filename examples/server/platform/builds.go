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
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
)

// BuildRequest asks for the image of one version of a cluster.
type BuildRequest struct {
	Cluster string `json:"cluster"`
	Version string `json:"version"`
	// of the catalogue
	Template string `json:"template"`
	// the directory that is built
	Source string `json:"source"`
	// of the template; CLUSTER_NAME is the cluster if it is not given
	Params map[string]string `json:"params,omitempty"`
	Actor  string            `json:"actor"`
}

// BuildState says how far a build is.
type BuildState string

// The states of a build.
const (
	BuildQueued    BuildState = "queued"
	BuildRunning   BuildState = "running"
	BuildSucceeded BuildState = "succeeded"
	BuildFailed    BuildState = "failed"
	BuildCancelled BuildState = "cancelled"
)

// Build is one request and its outcome.
type Build struct {
	ID string `json:"id"`
	BuildRequest
	Dockerfile string     `json:"dockerfile"`
	State      BuildState `json:"state"`
	Error      string     `json:"error,omitempty"`
	Digest     string     `json:"digest,omitempty"`
	// of the image, compressed, in bytes
	Size int64 `json:"size,omitempty"`
	// of these, the layers that the registry did not have yet
	Uploaded int64     `json:"uploaded,omitempty"`
	Queued   time.Time `json:"queued"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	// CancelledBy is the actor of the cancellation; it may have succeeded before that.
	CancelledBy string `json:"cancelledBy,omitempty"`
}

// Ended reports whether nothing more will happen to a build in this state.
func (s BuildState) Ended() bool {
	return s == BuildSucceeded || s == BuildFailed || s == BuildCancelled
}

// SubmitBuild checks the request, renders its Dockerfile and puts it into the queue, which Run
// works off in order, Config.Builds at a time. A source that is not there is ErrNotFound; a
// template that this server's engine cannot build, wrong parameters of it, and a source that lacks
// a file of the template or has a mistake in its configuration are ErrInvalid, and change nothing.
// The build takes the source as it is now.
func (p *Platform) SubmitBuild(request BuildRequest) (Build, error) {
	err := checkNames(names.Cluster(request.Cluster), names.Version(request.Version),
		checkSource(request.Source), checkActor(request.Actor))
	if err != nil {
		return Build{}, err
	}
	template, err := p.Catalog().Template(request.Template)
	if err != nil {
		return Build{}, invalid("%v", err)
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
	if err := assemble.Check(builder.Request{Dockerfile: dockerfile}); err != nil {
		return Build{}, invalid("template %s: %v; then name the image with POST /api/v1/versions",
			template.ID(), err)
	}
	request.Template = template.ID() // a newer version may come before the build's turn
	n, err := p.builds.next()
	if err != nil {
		return Build{}, err
	}
	build := Build{
		ID: fmt.Sprintf("b%06d", n), BuildRequest: request, Dockerfile: string(dockerfile),
		State: BuildQueued, Queued: time.Now().UTC(),
	}
	err = p.keepSource(build, func(files fs.FS) error {
		return template.CheckContext(files, params)
	})
	if err == nil {
		build, err = p.builds.update(build.ID, func(Build) (Build, error) { return build, nil })
	}
	if err != nil {
		return Build{}, errors.Join(err, os.RemoveAll(p.keptSource(build.ID)))
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

// BuildsAfter returns the n builds that keep accepts after the one of the id, newest first, and
// whether there are more; an empty id begins with the newest. Only builds with the lower-case text
// in one of their fields are looked at.
func (p *Platform) BuildsAfter(id string, n int, text string, keep func(Build) bool) (
	builds []Build, more bool, err error) {
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

func (p *Platform) build(ctx context.Context, build Build, log io.Writer) (builder.Result, error) {
	files, labels, done, err := p.buildContext(build)
	if err != nil {
		return builder.Result{}, err
	}
	defer done()
	template, err := p.Catalog().Template(build.Template)
	if err != nil {
		return builder.Result{}, err
	}
	maps.Copy(labels, template.Labels())
	labels["org.opencontainers.image.title"] = build.Cluster
	labels["org.opencontainers.image.version"] = build.Version
	// The tag comes last: a build whose version cannot be bound leaves its name free.
	result, err := p.engine.Build(ctx, builder.Request{
		Dockerfile: []byte(build.Dockerfile), Context: files,
		Repository: p.repository(build.Cluster), Labels: labels, Log: log,
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
	if err := p.setTag(ctx, build, digest); err != nil {
		fmt.Fprintln(log, "the version is bound, its tag is not set:", err)
	}
	return result, nil
}

// repositories returns the names of the repositories that hold images, for layers that clusters
// share.
func (p *Platform) repositories() []string {
	builds, _ := p.builds.list() // without the list, a shared layer is sent once more
	slices.SortFunc(builds, func(a, b Build) int { return b.Started.Compare(a.Started) })
	var list []string
	known := map[string]bool{}
	for _, b := range builds {
		if b.State == BuildSucceeded && !known[b.Cluster] {
			known[b.Cluster] = true
			list = append(list, p.repository(b.Cluster))
		}
	}
	return list
}
