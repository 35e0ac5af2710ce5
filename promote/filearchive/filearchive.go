// Package filearchive keeps the segments of a promote.Archive as files of one directory, each as
// promote.Verify reads it.
package filearchive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
)

// Archive is a promote.Archive in a directory. It is safe for concurrent use by any number of
// processes.
type Archive struct{ dir string }

var _ promote.Archive = (*Archive)(nil)

// Config says where an [Archive] is.
type Config struct {
	// Dir is the directory; Open makes it with permissions 0700 when it is missing, and its parent
	// has to be there. It must not be empty.
	Dir string
}

// Open returns the archive in a directory.
func Open(cfg Config) (*Archive, error) {
	if cfg.Dir == "" {
		return nil, fmt.Errorf("filearchive: Config.Dir: empty: want a directory: %w",
			promote.ErrInvalid)
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("filearchive: %w", err)
	}
	if info, err := os.Stat(cfg.Dir); err != nil || !info.IsDir() {
		return nil, errors.Join(err, fmt.Errorf("filearchive: Config.Dir: %s: want a directory: %w",
			cfg.Dir, promote.ErrInvalid))
	}
	return &Archive{cfg.Dir}, nil
}

// Put implements promote.Archive: the file is whole and synced, or not there.
func (a *Archive) Put(ctx context.Context, name string, segment []byte) error {
	path, err := a.path(ctx, name)
	if err == nil {
		err = atomicfile.Room(atomicfile.Write(path, segment, 0o600))
	}
	if err != nil {
		return fmt.Errorf("keep segment %s: %w", names.Quote(name), err)
	}
	return nil
}

// Get implements promote.Archive.
func (a *Archive) Get(ctx context.Context, name string) ([]byte, error) {
	path, err := a.path(ctx, name)
	var segment []byte
	if err == nil {
		segment, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", err, promote.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read segment %s: %w", names.Quote(name), err)
	}
	return segment, nil
}

// path of a segment, which is in the directory itself.
func (a *Archive) path(ctx context.Context, name string) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if name != filepath.Base(name) || !filepath.IsLocal(name) || name == "." {
		return "", fmt.Errorf("want the name of a file, without a directory: %w",
			promote.ErrInvalid)
	}
	return filepath.Join(a.dir, name), nil
}
