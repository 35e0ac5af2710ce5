package platform

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
)

// BuildLog returns the log of a build from an offset on, in part, as it is now.
func (p *Platform) BuildLog(ctx context.Context, id string, offset int64) (builds.LogPart, error) {
	return p.buildLog(ctx, id, offset, p.queue.ReadLog)
}

// FollowBuildLog is BuildLog, but waits until there is something, or until the build has ended.
func (p *Platform) FollowBuildLog(ctx context.Context, id string, offset int64) (builds.LogPart,
	error) {
	return p.buildLog(ctx, id, offset, p.queue.Log)
}

func (p *Platform) buildLog(ctx context.Context, id string, offset int64, read func(
	ctx context.Context, id string, offset int64) (builds.LogPart, error)) (builds.LogPart, error) {
	if offset < 0 {
		return builds.LogPart{}, invalid("offset %d: want 0 or more", offset)
	}
	if _, err := p.known(ctx, id); err != nil {
		return builds.LogPart{}, err
	}
	part, err := read(ctx, id, offset)
	if errors.Is(err, builder.ErrNotFound) {
		return p.oldLog(id, offset)
	}
	return part, err
}

// oldLog reads the log of a build that the journal does not have: one from before there was a
// journal, or one that it has forgotten, with its log.
func (p *Platform) oldLog(id string, offset int64) (builds.LogPart, error) {
	part := builds.LogPart{Next: offset, Ended: true, State: builds.LogState{Verdict: builds.Gap}}
	f, err := os.Open(filepath.Join(p.buildsDir(), id+".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return part, nil
	}
	if err != nil {
		return part, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return part, err
	}
	part.State = builds.LogState{Bytes: info.Size(), Verdict: builds.Complete}
	if offset > info.Size() {
		return part, invalid("log of build %s: offset %d: it has %d bytes", id, offset, info.Size())
	}
	part.Data, err = io.ReadAll(io.NewSectionReader(f, offset, 256<<10))
	part.Next = offset + int64(len(part.Data))
	part.Ended = part.Next >= info.Size()
	return part, err
}
