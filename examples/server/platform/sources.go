package platform

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/examples/server/untar"
	"github.com/sluice-deploy/sluice/internal/names"
)

// checkNames returns the errors of package names, as ErrInvalid.
func checkNames(errs ...error) error {
	if err := errors.Join(errs...); err != nil {
		return invalid("%v", err)
	}
	return nil
}

// checkActor is names.Actor.
func checkActor(actor string) error { return names.Actor(actor) }

// checkSource wants the grammar of a cluster, after which a source is mostly called.
func checkSource(name string) error {
	if names.Cluster(name) != nil {
		return fmt.Errorf("source %s: want 1 to %d lower-case letters, digits and single "+
			"separators (., _, __ or a run of -), "+
			"with a letter or digit at both ends", names.Quote(name), names.MaxCluster)
	}
	return nil
}

// Sources returns the names of the source directories: each holds the input of a cluster's build
// (its binary and its envs directory), as an upload or the operator has put it there.
func (p *Platform) Sources() ([]string, error) {
	entries, err := os.ReadDir(p.sourcesDir())
	if err != nil {
		return nil, err
	}
	list := []string{}
	for _, entry := range entries {
		// those are uploads that have not ended
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			list = append(list, entry.Name())
		}
	}
	return list, nil
}

// PutSource unpacks an archive, as untar.Archive takes it, as the source directory name. An earlier
// one of this name is replaced at once when the archive is complete, and stays when it is refused.
// Builds that were submitted before keep the earlier one.
func (p *Platform) PutSource(name string, archive io.Reader) error {
	if err := checkNames(checkSource(name)); err != nil {
		return err
	}
	staged, err := os.MkdirTemp(p.sourcesDir(), uploadPrefix+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(staged)
	fresh, target := filepath.Join(staged, "source"), filepath.Join(p.sourcesDir(), name)
	if err := untar.Archive(fresh, archive, untar.Limits{}); err != nil {
		return fmt.Errorf("source %s: %w", name, err)
	}
	p.sourcesMu.Lock()
	defer p.sourcesMu.Unlock()
	err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, target, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(fresh, target)
	}
	if err != nil {
		return fmt.Errorf("source %s: %w", name, err)
	}
	p.Events.Bump()
	return nil
}

// DeleteSource removes a source directory, or returns ErrNotFound. Builds that were submitted
// before keep it.
func (p *Platform) DeleteSource(name string) error {
	if err := checkNames(checkSource(name)); err != nil {
		return err
	}
	staged, err := os.MkdirTemp(p.sourcesDir(), uploadPrefix+"*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(staged)
	p.sourcesMu.Lock()
	defer p.sourcesMu.Unlock()
	err = os.Rename(filepath.Join(p.sourcesDir(), name), filepath.Join(staged, "source"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("source %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("source %s: %w", name, err)
	}
	p.Events.Bump()
	return nil
}

// uploadPrefix begins the names of directories beside the sources that are being filled or removed.
const uploadPrefix = ".upload-"

func (p *Platform) sourcesDir() string { return filepath.Join(p.config.Dir, "sources") }

// keptSource is the source of a build as it was when the build was submitted.
func (p *Platform) keptSource(build string) string {
	return filepath.Join(p.config.Dir, "builds", build+".source")
}

// keepSource keeps the source for the build, and looks at its configuration as the build will, and
// with check at its files. After an error a part of it may be kept.
func (p *Platform) keepSource(build Build, check func(files fs.FS) error) error {
	p.sourcesMu.RLock()
	defer p.sourcesMu.RUnlock()
	from := filepath.Join(p.sourcesDir(), build.Source)
	if info, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return fmt.Errorf("source %q: upload it first with PUT /api/v1/sources/%s: %w",
			build.Source, build.Source, ErrNotFound)
	}
	if err := linkTree(from, p.keptSource(build.ID)); err != nil {
		return sourceError(build.Source, err)
	}
	root, err := os.OpenRoot(p.keptSource(build.ID))
	if err != nil {
		return sourceError(build.Source, err)
	}
	defer root.Close()
	files, _, err := p.configured(build.Source, builder.RootFS(root))
	if err != nil {
		return err
	}
	// A source without envs has no manifest either: the source lacks one thing, not two.
	manifest := fstest.MapFS{envconfig.ManifestName: {}}
	return sourceError(build.Source, check(overlayFS{files, manifest}))
}

// sourceError is an error of a file in a source, without the directory that the server keeps the
// source in. It is ErrInvalid unless the server's machine is at fault.
func sourceError(name string, err error) error {
	var path *fs.PathError
	var link *os.LinkError
	at := err
	switch {
	case err == nil:
		return nil
	case errors.As(err, &path):
		at = path.Err
	case errors.As(err, &link):
		at = link.Err
	}
	for _, fault := range []error{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE, syscall.ENFILE,
		syscall.ENOMEM, syscall.EMLINK, syscall.EACCES,
	} {
		if errors.Is(at, fault) {
			return fmt.Errorf("source %s: %w", name, at)
		}
	}
	return invalid("source %s: %v", name, at)
}

// linkTree makes the directory to with the directories of from, and hard links to its files: an
// upload replaces files, it never writes into them.
func linkTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rest)
		switch {
		case entry.IsDir():
			return os.Mkdir(target, 0o755)
		case entry.Type() == fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		case entry.Type().IsRegular():
			return os.Link(path, target)
		}
		return nil
	})
}

// sweepSources removes uploads that a crash has cut off.
func (p *Platform) sweepSources() error {
	left, err := filepath.Glob(filepath.Join(p.sourcesDir(), uploadPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}
