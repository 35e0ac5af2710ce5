package builds

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
)

// ContextRequest asks for the build context of one attempt.
type ContextRequest struct {
	Order Order
	// Secrets has the values of the names in Order.Secrets and Order.Source.
	Secrets map[string]string
	// Pinned is the Identity of an earlier attempt, which the source has to give again; the zero
	// Identity for the first one.
	Pinned source.Identity
	// Log is the build's.
	Log io.Writer
}

// Context is a build context, until the end of the attempt.
type Context struct {
	// Files are for builder.Request.Context. Nil is an empty context.
	Files fs.FS
	// Identity names the files: it is recorded, and the log has it. The zero Identity names none.
	Identity source.Identity
	// Close is called at the end of the attempt. Nil does nothing.
	Close func() error
}

// FetchFrom is a Config.Context that fetches Order.Source; an order without one has an empty
// context.
func FetchFrom(spool *source.Spool) func(context.Context, ContextRequest) (Context, error) {
	return func(ctx context.Context, r ContextRequest) (Context, error) {
		if r.Order.Source == (source.Source{}) {
			return Context{}, nil
		}
		f, err := spool.Fetch(ctx, source.Request{Source: r.Order.Source, Pinned: r.Pinned,
			Secrets: r.Secrets, Log: r.Log})
		if err != nil {
			return Context{}, err
		}
		return Context{Files: f.Files, Identity: f.Identity, Close: f.Close}, nil
	}
}

func noContext(_ context.Context, r ContextRequest) (Context, error) {
	if r.Order.Source != (source.Source{}) {
		return Context{}, fmt.Errorf("this builder fetches no source: set Config.Context: %w",
			builder.ErrInvalid)
	}
	return Context{}, nil
}
