package platform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/internal/names"
)

// BuildRequest asks for the image of one version of a cluster.
type BuildRequest struct {
	// ID names the build for a caller that may have to ask again: 1 to 63 letters, digits, ".",
	// "_" and "-". The same request under the same ID is the same build. The default is the id that
	// the server gives: "b" and a number of six digits or more, which no caller may choose.
	ID      string `json:"id,omitempty"`
	Cluster string `json:"cluster"`
	Version string `json:"version"`
	// of the catalogue
	Template string `json:"template"`
	// the directory that is built: one that was uploaded, or that the server fetches From
	Source string         `json:"source,omitempty"`
	From   *source.Source `json:"from,omitempty"`
	// of the template; CLUSTER_NAME is the cluster if it is not given
	Params map[string]string `json:"params,omitempty"`
	// Team shares the builders fairly: the team with the fewest builds that run goes first.
	Team string `json:"team,omitempty"`
	// Policy rules the builds of one cluster: parallel, serial (one at a time, in order), or
	// latestOnly (this one supersedes all that have not ended). The default is
	// Config.BuildPolicy.
	Policy string `json:"policy,omitempty"`
	Actor  string `json:"actor"`
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
	// a newer build of its cluster took its place
	BuildSuperseded BuildState = "superseded"
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
	// CancelledBy is the actor of the cancellation, and Reason the reason that was given; it may
	// have succeeded before that.
	CancelledBy string `json:"cancelledBy,omitempty"`
	Reason      string `json:"reason,omitempty"`
	// Tries counts how often the build was begun: again after the end of a server.
	Tries int `json:"tries,omitempty"`
	// Identity names the files that From gave, and gives to each try.
	Identity *source.Identity `json:"identity,omitempty"`
	// Failure says why a build failed, for a program.
	Failure *builder.Failure `json:"failure,omitempty"`
	// Log says, of a build that has ended, how much of its log there is.
	Log *builds.LogState `json:"log,omitempty"`
}

// Ended reports whether nothing more will happen to a build in this state.
func (s BuildState) Ended() bool {
	return s == BuildSucceeded || s == BuildFailed || s == BuildCancelled || s == BuildSuperseded
}

// SubmitBuild checks the request, renders its Dockerfile and puts it into the queue, which Run
// works off, Config.Builds at a time. An uploaded source that is not there is ErrNotFound; a
// template that this server's engine cannot build, wrong parameters of it, and a source that lacks
// a file of the template or has a mistake in its configuration are ErrInvalid, and change nothing.
// The build takes the source as it is now. An ID that belongs to a build of another request is ErrConflict;
// of the same request, by any actor, it is that build. Once the build is recorded, the end of ctx
// changes nothing for it.
func (p *Platform) SubmitBuild(ctx context.Context, request BuildRequest) (Build, error) {
	err := checkNames(names.Cluster(request.Cluster), names.Version(request.Version),
		p.checkFrom(request), checkActor(request.Actor), checkBuildID(request.ID),
		checkTeam(request.Team), checkPolicy(request.Policy))
	if err != nil {
		return Build{}, err
	}
	if request.ID == "" {
		return p.submitBuild(request, nil)
	}
	unlock, err := p.locks.lock(ctx, "build "+request.ID)
	if err != nil {
		return Build{}, err
	}
	defer unlock()
	sum := request.sum()
	known, found, err := p.buildIDs.get(request.ID)
	if err != nil {
		return Build{}, err
	}
	if found {
		there, err := p.Build(ctx, request.ID)
		switch {
		case errors.Is(err, ErrNotFound): // a crash came before its record
		case err != nil:
			return Build{}, err
		case known.Sum != sum:
			return Build{}, fmt.Errorf("build %s: %s has asked for another build under this id: "+
				"take another id: %w", request.ID, there.Actor, ErrConflict)
		default:
			return there, nil
		}
	}
	return p.submitBuild(request, func(key string) error {
		_, err := p.buildIDs.update(request.ID, func(buildID) (buildID, error) {
			return buildID{key, sum}, nil
		})
		return err
	})
}

// submitBuild records a build. Name, if set, is called with the key of the record before there is
// one.
func (p *Platform) submitBuild(request BuildRequest, name func(key string) error) (Build, error) {
	template, err := p.Catalog().Template(request.Template)
	if err != nil {
		return Build{}, invalid("%v", err)
	}
	params := p.templateParams(template, Build{BuildRequest: request})
	dockerfile, err := template.Render(params)
	if err != nil {
		return Build{}, invalid("%v", err)
	}
	if err := assemble.Check(builder.Request{Dockerfile: dockerfile}); err != nil {
		return Build{}, invalid("template %s: %v; then name the image with POST /api/v1/versions",
			template.ID(), err)
	}
	request.Template = template.ID() // a newer version may come before the build's turn
	request.Policy = cmp.Or(request.Policy, p.config.BuildPolicy)
	n, err := p.builds.next()
	if err != nil {
		return Build{}, err
	}
	key := fmt.Sprintf("b%06d", n)
	build := Build{
		ID: cmp.Or(request.ID, key), BuildRequest: request, Dockerfile: string(dockerfile),
		State: BuildQueued, Queued: time.Now().UTC(),
	}
	build.BuildRequest.ID = ""
	if err := order(build).Validate(); err != nil {
		return Build{}, err
	}
	if build.From == nil {
		err = p.keepSource(build, func(files fs.FS) error {
			return template.CheckContext(files, params)
		})
	}
	if err == nil && name != nil {
		err = name(key)
	}
	if err == nil {
		build, err = p.builds.update(key, func(Build) (Build, error) { return build, nil })
	}
	if err != nil {
		return Build{}, errors.Join(err, os.RemoveAll(p.keptSource(build.ID)))
	}
	p.open.add(key, build.ID)
	p.buildNews.Bump() // followBuilds puts it into the queue
	p.Events.Bump()
	return build, nil
}

// Builds returns all builds, newest first.
func (p *Platform) Builds(ctx context.Context) ([]Build, error) {
	list, err := p.builds.list()
	if err != nil {
		return nil, err
	}
	slices.Reverse(list)
	return list, p.allNow(ctx, list)
}

// BuildsAfter returns the n builds that keep accepts after the one of the id, newest first, and
// whether there are more; an empty id begins with the newest. Only builds with the lower-case text
// in one of their fields are looked at.
func (p *Platform) BuildsAfter(ctx context.Context, id string, n int, text string,
	keep func(Build) bool) (list []Build, more bool, err error) {
	key := id
	if named, found, err := p.buildIDs.get(id); err != nil {
		return nil, false, err
	} else if found {
		key = named.Key
	}
	err = p.builds.after(key, text, func(b Build) bool {
		switch {
		case !keep(b):
		case len(list) == n:
			more = true
		default:
			list = append(list, b)
		}
		return !more
	})
	if err == nil {
		err = p.allNow(ctx, list)
	}
	return list, more, err
}

// allNow brings the builds that have not ended up to date.
func (p *Platform) allNow(ctx context.Context, list []Build) (err error) {
	for i, b := range list {
		if b.State.Ended() {
			continue
		}
		if list[i], err = p.now(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// Build returns one build, or ErrNotFound.
func (p *Platform) Build(ctx context.Context, id string) (Build, error) {
	_, build, err := p.buildRecord(id)
	switch {
	case err != nil:
		return build, err
	case build.State.Ended():
		return build, nil
	}
	return p.now(ctx, build)
}

// repositories returns the names of the repositories that hold images, for layers that clusters
// share.
func (p *Platform) repositories() []string {
	built, _ := p.builds.list() // without the list, a shared layer is sent once more
	slices.SortFunc(built, func(a, b Build) int { return b.Started.Compare(a.Started) })
	var list []string
	known := map[string]bool{}
	for _, b := range built {
		if b.State == BuildSucceeded && !known[b.Cluster] {
			known[b.Cluster] = true
			list = append(list, p.repository(b.Cluster))
		}
	}
	return list
}
