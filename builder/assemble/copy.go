package assemble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/sluice-deploy/sluice/builder"
)

// placing is one COPY or ADD.
type placing struct {
	*changes
	ctx   context.Context
	files *buildContext
	owner owner
	mode  int64 // -1 keeps the mode of the file
	add   bool  // ADD, which would unpack an archive
}

// copy places sources as Docker does: a directory's content goes into the destination, a file into
// it when it is a directory or ends with "/", else to it. Of a file's mode only "executable"
// counts, so that a umask changes no digest.
func (s *stage) copy(what instructions.SourcesAndDest, chown, chmod string, add bool) (*changes,
	error) {
	p := placing{changes: s.changes(), ctx: s.ctx, files: s.files, mode: -1, add: add}
	var err error
	if chown != "" {
		if p.owner, err = parseOwner(chown); err != nil {
			return nil, err
		}
	}
	if chmod != "" {
		if p.mode, err = strconv.ParseInt(chmod, 8, 64); err != nil || p.mode < 0 ||
			p.mode > 0o7777 {
			return nil, fmt.Errorf("--chmod=%s: write the mode in octal, such as 0755: %w", chmod,
				builder.ErrUnsupported)
		}
	}
	dest := what.DestPath
	intoFolder := strings.HasSuffix(dest, "/") || path.Base(dest) == "." || path.Base(dest) == ".."
	if !path.IsAbs(dest) {
		dest = path.Join("/", s.config.Config.WorkingDir, dest)
	}
	var found []source
	for _, pattern := range what.SourcePaths {
		sources, err := s.files.find(pattern)
		if err != nil {
			return nil, err
		}
		found = append(found, sources...)
	}
	n := len(found) + len(what.SourceContents)
	if n == 0 {
		return nil, errors.New("no file of the build context matches")
	}
	if n > 1 && !intoFolder {
		return nil, fmt.Errorf("%d sources need a folder: end the destination with /", n)
	}
	if at, ok := s.tree.find(dest); ok && at.kind == isDir {
		intoFolder = true
	}
	for _, src := range found {
		if err := p.source(src, dest, intoFolder); err != nil {
			return nil, err
		}
	}
	for _, c := range what.SourceContents {
		to := dest
		if intoFolder {
			to = path.Join(dest, path.Base(c.Path))
		}
		open := func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(c.Data)),
				nil
		}
		if err := p.put(to, entry{kind: isFile, mode: p.modeOf(0o644), owner: p.owner,
			size: int64(len(c.Data)), open: open}); err != nil {
			return nil, err
		}
	}
	return p.changes, nil
}

func (p placing) source(src source, dest string, intoFolder bool) error {
	if !src.info.IsDir() {
		if intoFolder {
			dest = path.Join(dest, path.Base(src.name))
		}
		return p.file(src.real, dest, src.info)
	}
	top, err := p.folder(dest, p.owner)
	if err != nil {
		return err
	}
	return p.files.walk(src.real, func(rel string, info fs.FileInfo) error {
		return p.file(path.Join(src.real, rel), path.Join("/", top, rel), info)
	})
}

// file places one entry of the context, a directory without its content.
func (p placing) file(from, to string, info fs.FileInfo) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	e := entry{kind: isFile, owner: p.owner}
	switch mode := info.Mode(); mode.Type() {
	case fs.ModeDir:
		e.kind, e.mode = isDir, p.modeOf(0o755)
	case fs.ModeSymlink:
		link, err := p.files.readLink(from)
		if err != nil {
			return err
		}
		e.kind, e.mode, e.link = isLink, 0o777, link
	case 0:
		e.mode, e.size = p.modeOf(0o644), info.Size()
		if mode&0o111 != 0 {
			e.mode = p.modeOf(0o755)
		}
		e.open = func() (io.ReadCloser, error) { return p.files.fsys.Open(from) }
		if p.add {
			if err := p.refuseArchive(from); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("%s is %s: only files, folders and symbolic links can be copied", from,
			describe(mode))
	}
	return p.put(to, e)
}

func (p placing) modeOf(mode int64) int64 {
	if p.mode >= 0 {
		return p.mode
	}
	return mode
}

// archives are the first bytes of the archives that ADD would unpack; those of tar stand at byte
// 257.
var archives = [][]byte{{0x1f, 0x8b}, []byte("BZh"), {0xfd, '7', 'z', 'X', 'Z', 0},
	{0x28, 0xb5, 0x2f, 0xfd}}

func (p placing) refuseArchive(name string) error {
	f, err := p.files.fsys.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	head = head[:n]
	archive := n >= 262 && string(head[257:262]) == "ustar"
	for _, magic := range archives {
		archive = archive || bytes.HasPrefix(head, magic)
	}
	if archive {
		return fmt.Errorf("ADD would unpack the archive %s: put the files into the context, or "+
			"COPY it as it is: %w",
			name, builder.ErrUnsupported)
	}
	return nil
}

func describe(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "no regular file"
}
