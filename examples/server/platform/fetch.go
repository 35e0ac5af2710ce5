package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/archivesource"
	"github.com/sluice-deploy/sluice/builder/source/artifactsource"
	"github.com/sluice-deploy/sluice/builder/source/gitsource"
	"github.com/sluice-deploy/sluice/builder/source/rsyncsource"
)

// fetchers makes the fetcher of each kind of source.
var fetchers = map[source.Kind]func() (source.Fetcher, error){
	source.KindRsync: func() (source.Fetcher, error) {
		return rsyncsource.New(rsyncsource.Config{})
	},
	source.KindGit: func() (source.Fetcher, error) {
		return gitsource.New(gitsource.Config{})
	},
	source.KindArchive: func() (source.Fetcher, error) {
		return archivesource.New(archivesource.Config{})
	},
	source.KindArtifact: func() (source.Fetcher, error) {
		return artifactsource.New(artifactsource.Config{})
	},
}

func checkKind(kind string) error {
	if fetchers[source.Kind(kind)] == nil {
		return fmt.Errorf("%q: want rsync, git, archive or artifact", kind)
	}
	return nil
}

// openSpool opens the place for sources that the server fetches, if it fetches any.
func (p *Platform) openSpool(ctx context.Context) error {
	if len(p.config.Fetch) == 0 {
		return nil
	}
	made := map[source.Kind]source.Fetcher{}
	for _, kind := range p.config.Fetch {
		f, err := fetchers[source.Kind(kind)]()
		if err != nil {
			return err
		}
		made[source.Kind(kind)] = f
	}
	spool, err := source.Open(ctx, source.Config{Dir: filepath.Join(p.buildsDir(), "spool"),
		Fetcher: source.Set{Rsync: made[source.KindRsync], Git: made[source.KindGit],
			Archive: made[source.KindArchive], Artifact: made[source.KindArtifact]}})
	if err == nil {
		p.spool = spool
	}
	return err
}

// checkFrom checks where a build gets its files from: an upload or, where the server may fetch
// them, another place.
func (p *Platform) checkFrom(r BuildRequest) error {
	if r.From == nil {
		return checkSource(r.Source)
	}
	kind := string(r.From.Kind())
	switch {
	case r.Source != "":
		return errors.New("source and from: want one of the two")
	case kind == "":
		return errors.New("from: is empty: want one of rsync, git, archive, artifact")
	case !slices.Contains(p.config.Fetch, kind):
		return fmt.Errorf("from.%s: this server does not fetch sources of this kind: upload one, "+
			"or start the server with -fetch %s", kind, kind)
	case len(r.From.Secrets()) > 0:
		return fmt.Errorf("from.%s.secret: this server has no secrets: want none", kind)
	}
	return r.From.Validate()
}

// fetchedFrom names where the files of a build come from.
func (r BuildRequest) fetchedFrom() string {
	if r.From != nil {
		return r.From.String()
	}
	return r.Source
}

// buildContext gives a build the source that was kept for it, or the files that it names.
func (p *Platform) buildContext(ctx context.Context, r builds.ContextRequest) (builds.Context,
	error) {
	if r.Order.Source != (source.Source{}) {
		if p.spool == nil {
			return builds.Context{}, &builder.Failure{Reason: builder.ReasonRequest,
				Err:  fmt.Errorf("%s: this server fetches no sources any more", r.Order.Source),
				Hint: "upload the source, or start the server with -fetch"}
		}
		return builds.FetchFrom(p.spool)(ctx, r)
	}
	root, err := os.OpenRoot(p.keptSource(r.Order.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return builds.Context{}, &builder.Failure{Reason: builder.ReasonSourceNotFound,
			Err:  errors.New("the source that was kept for this build is gone"),
			Hint: "submit the build again"}
	}
	if err != nil {
		return builds.Context{}, err
	}
	return builds.Context{Files: builder.RootFS(root), Close: root.Close}, nil
}
