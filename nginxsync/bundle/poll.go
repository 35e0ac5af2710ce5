package bundle

import (
	"cmp"
	"context"
	"io/fs"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Polling turns a source that can only be looked at into one that can be waited for.
type Polling struct {
	// Every is the time between two looks. The default is two seconds.
	Every time.Duration
	// Settle is the time between the two looks that must see the same before a change is believed, so that a writer who is at
	// work is left to finish. Zero means that one look is believed.
	Settle time.Duration
	// Wake makes the next look due at once. Nil never does.
	Wake <-chan struct{}
}

// Fetch looks until it sees another digest than after, with the errors of Source.Fetch. An error of look ends it.
func (p Polling) Fetch(ctx context.Context, after string, look func(context.Context) (*Bundle, error)) (*Bundle, error) {
	every, seen := cmp.Or(p.Every, 2*time.Second), ""
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, err
		case b.Digest != after && (b.Digest == seen || p.Settle <= 0):
			return b, nil
		case b.Digest != after:
			seen = b.Digest
			err = retry.Sleep(ctx, p.Settle)
		default:
			seen, err = "", p.wait(ctx, every)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p Polling) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.Wake:
	case <-timer.C:
	}
	return nil
}

// DirSource is a Source that looks at a folder from time to time. Package folderbundle has one that is told of
// changes.
type DirSource struct {
	FS     fs.FS         // of the folder: (*os.Root).FS of it, so that no link leads out
	Every  time.Duration // between two looks. The default is two seconds.
	Settle time.Duration // between the two looks that must see the same. The default is half a second.
	Limits Limits
}

var _ Source = (*DirSource)(nil)

// Fetch implements Source.
func (s *DirSource) Fetch(ctx context.Context, after string) (*Bundle, error) {
	polling := Polling{Every: s.Every, Settle: cmp.Or(s.Settle, 500*time.Millisecond)}
	return polling.Fetch(ctx, after, func(context.Context) (*Bundle, error) { return Read(s.FS, s.Limits) })
}
