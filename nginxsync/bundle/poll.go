package bundle

import (
	"cmp"
	"context"
	"io/fs"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Polling turns a source that can only be looked at into one that can be waited for.
type Polling struct {
	// Every is the time between two looks. The default is two seconds.
	Every time.Duration
	// Settle is the time between the two looks that must see the same before a change is believed,
	// so that a writer can finish. Zero means that one look is believed.
	Settle time.Duration
	// Wake makes the next look due at once. Nil never does.
	Wake <-chan struct{}
}

// View is the result of one look: the digest of a tree, and the function that loads its content,
// which is called only when the digest is a new one.
type View struct {
	Digest string
	// Load returns the tree of now. One of another digest is looked at once more.
	Load func(context.Context) (*Bundle, error)
}

// View returns the view of a bundle that is there already.
func (b *Bundle) View() View {
	return View{Digest: b.Digest, Load: func(context.Context) (*Bundle, error) { return b, nil }}
}

// Fetch looks until it sees another digest than after, with the errors of Source.Fetch. An error of
// look ends it.
func (p Polling) Fetch(ctx context.Context, after string, look func(context.Context) (View,
	error)) (*Bundle, error) {
	every, seen := cmp.Or(p.Every, 2*time.Second), ""
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		v, err := look(ctx)
		var b *Bundle
		if err == nil && v.Digest != after && (v.Digest == seen || p.Settle <= 0) {
			b, err = v.Load(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, err
		case b != nil && b.Digest == v.Digest:
			return b, nil
		case b != nil || v.Digest != after:
			seen = v.Digest
			err = retry.Sleep(ctx, cmp.Or(p.Settle, 10*time.Millisecond))
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

// DirSource is a Source that looks at a directory from time to time. Package dirbundle has one
// that the kernel notifies of changes.
type DirSource struct {
	// of the directory: (*os.Root).FS of it, so that no link leads out
	FS fs.FS
	// between two looks. The default is two seconds.
	Every time.Duration
	// between the two looks that must see the same. The default is half a second.
	Settle time.Duration
	Limits Limits
	// Roots say where the targets of links are in the tree: see Reader.Roots.
	Roots conf.Roots
}

var _ Source = (*DirSource)(nil)

// Fetch implements Source.
func (s *DirSource) Fetch(ctx context.Context, after string) (*Bundle, error) {
	polling := Polling{Every: s.Every, Settle: cmp.Or(s.Settle, 500*time.Millisecond)}
	r := Reader{Limits: s.Limits, Roots: s.Roots}
	return polling.Fetch(ctx, after, func(context.Context) (View, error) { return r.View(s.FS) })
}

// View looks at a file system: the digest now, the content later.
func (r Reader) View(fsys fs.FS) (View, error) {
	digest, err := r.Digest(fsys)
	return View{Digest: digest, Load: func(context.Context) (*Bundle, error) {
		return r.Read(fsys)
	}}, err
}
