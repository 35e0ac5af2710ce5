package assemble

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/patternmatcher"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/buildcontext"
	"github.com/sluice-deploy/sluice/builder/internal/dockerfile"
)

// placing is one COPY or ADD.
type placing struct {
	*changes
	stage   *stage
	from    origin
	owner   owner
	chown   bool                          // owner is that of --chown
	chmod   func(fs.FileMode) fs.FileMode // nil without --chmod
	octal   bool                          // chmod is one mode for all
	exclude *patternmatcher.PatternMatcher
	lost    *lostModes
}

// origin is where COPY and ADD take files from.
type origin struct {
	files  *buildcontext.Files
	unpack bool // ADD, which unpacks archives
	image  bool // an image, whose files keep mode and owner
	link   bool // --link: the layer is made as if the image had no file
}

// copy places sources as Docker does: a directory's content goes into the destination, a file into
// it when it is a directory or ends with "/", else to it. Of a file's mode only "executable"
// counts, so that a umask changes no digest.
func (s *stage) copy(what instructions.SourcesAndDest, from origin, chown, chmod string,
	exclude []string) (*changes, error) {
	p := placing{changes: s.changes(), stage: s, from: from, lost: &lostModes{}}
	if from.link {
		p.changes.tree = tree{}
	}
	var err error
	if chown != "" {
		p.chown = true
		if from.link && strings.Trim(chown, "0123456789:") != "" {
			return nil, fmt.Errorf("--chown=%s: --link knows no names of the image: write "+
				"uid:gid: %w", chown, builder.ErrInvalid)
		}
		if p.owner, err = s.parseOwner(chown); err != nil {
			return nil, err
		}
	}
	if p.chmod, p.octal, err = parseMode(chmod); err != nil {
		return nil, err
	}
	if len(exclude) > 0 {
		if p.exclude, err = patternmatcher.New(exclude); err != nil {
			return nil, fmt.Errorf("--exclude: %w: %w", err, builder.ErrInvalid)
		}
	}
	dest := what.DestPath
	intoDir := strings.HasSuffix(dest, "/") || path.Base(dest) == "." || path.Base(dest) == ".."
	if !path.IsAbs(dest) {
		dest = path.Join("/", s.config.Config.WorkingDir, dest)
	}
	// The destination itself may be a link, whose target is written; a link that a tree meets below
	// it is replaced.
	if dest, err = p.tree.follow(dest); err != nil {
		return nil, err
	}
	var found []buildcontext.Source
	for _, pattern := range what.SourcePaths {
		sources, err := from.files.Find(pattern)
		if err != nil {
			return nil, err
		}
		found = append(found, sources...)
	}
	n := len(found) + len(what.SourceContents)
	if n == 0 {
		return nil, fmt.Errorf("no file of the %s matches", from.files.Name())
	}
	if n > 1 && !intoDir {
		return nil, fmt.Errorf("%d sources need a directory: end the destination with /", n)
	}
	if at, ok := p.tree.find(dest); ok && at.kind == isDir {
		intoDir = true
	}
	for _, src := range found {
		if err := p.source(src, dest, intoDir); err != nil {
			return nil, err
		}
	}
	for _, c := range what.SourceContents {
		to := dest
		if intoDir {
			to = path.Join(dest, path.Base(c.Path))
		}
		open := func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(c.Data)),
				nil
		}
		if err := p.put(to, entry{kind: isFile, mode: p.modeOf(0o644), owner: p.owner,
			size: int64(len(c.Data)), open: open}, p.owner); err != nil {
			return nil, err
		}
	}
	if text := p.lost.String(); text != "" {
		s.log.note("%s", text)
	}
	if from.link {
		for _, name := range slices.Sorted(maps.Keys(p.entries)) {
			s.tree.set(name, p.tree[name])
		}
	}
	return p.changes, nil
}

// lostModes are files whose mode says more than "executable" or not, which is all that the image
// keeps of it.
type lostModes struct {
	files []string // the first three, with old and new mode
	count int
}

// add notes the file if others could not read it, or if it has a set-ID or sticky bit.
func (l *lostModes) add(name string, old fs.FileMode, kept int64) {
	if old&0o004 != 0 && old&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) == 0 {
		return
	}
	if l.count++; len(l.files) < 3 {
		l.files = append(l.files, fmt.Sprintf("%s (%v) to %04o", name, old, kept))
	}
}

// String is a line for the log, "" for no file.
func (l *lostModes) String() string {
	if l.count == 0 {
		return ""
	}
	more := ""
	if l.count > len(l.files) {
		more = fmt.Sprintf(" and %d more", l.count-len(l.files))
	}
	return "warning: mode of " + strings.Join(l.files, ", ") + more +
		": everyone in the image can read a file unless --chmod says otherwise"
}

func (p placing) source(src buildcontext.Source, dest string, intoDir bool) error {
	if p.from.unpack && src.Info.Mode().IsRegular() {
		if unpacked, err := p.unpack(src.Real, dest); unpacked || err != nil {
			return err
		}
	}
	if !src.Info.IsDir() {
		if intoDir {
			dest = path.Join(dest, path.Base(src.Name))
		}
		return p.file(src.Real, dest, src.Info)
	}
	top, err := p.top(dest)
	if err != nil {
		return err
	}
	return p.from.files.Walk(src.Real, p.exclude, func(rel string, info fs.FileInfo) error {
		return p.file(path.Join(src.Real, rel), path.Join("/", top, rel), info)
	})
}

// top makes the directory that takes the content of another, with the mode of --chmod in octal; one
// that is there stays. The directories above it have 0755.
func (p placing) top(dest string) (string, error) {
	_, there := p.tree.find(dest)
	at, err := p.makeDir(dest, p.owner)
	if err == nil && !there && at != "." && p.octal {
		p.set(at, entry{kind: isDir, mode: p.modeOf(0o755), owner: p.owner})
	}
	return at, err
}

// file places one entry of the context, a directory without its content.
func (p placing) file(from, to string, info fs.FileInfo) error {
	if p.stage.ctx.Err() != nil {
		return context.Cause(p.stage.ctx)
	}
	e := entry{kind: isFile, owner: p.owner, mode: 0o644}
	if n, ok := info.Sys().(node); ok && !p.chown {
		e.owner = n.owner
	}
	switch mode := info.Mode(); mode.Type() {
	case fs.ModeDir:
		e.kind, e.mode = isDir, 0o755
	case fs.ModeSymlink:
		link, err := p.from.files.ReadLink(from)
		if err != nil {
			return err
		}
		e.kind, e.mode, e.link = isLink, 0o777, link
		return p.put(to, e, p.owner)
	case 0:
		e.size = info.Size()
		if mode&0o111 != 0 {
			e.mode = 0o755
		}
		if p.chmod == nil && !p.from.image {
			p.lost.add(from, mode, e.mode)
		}
		e.open = func() (io.ReadCloser, error) { return p.from.files.FS.Open(from) }
	default:
		return fmt.Errorf("%s is %s: only files, directories and symbolic links can be copied", from,
			dockerfile.Describe(mode))
	}
	if n, ok := info.Sys().(node); ok {
		e.mode = n.mode
	}
	e.mode = p.modeOf(e.mode)
	return p.put(to, e, p.owner)
}

// modeOf changes a mode by --chmod.
func (p placing) modeOf(mode int64) int64 {
	if p.chmod == nil {
		return mode
	}
	return tarMode(p.chmod(fileMode(mode)))
}
