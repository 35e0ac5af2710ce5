package gitsource

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/builder/source/internal/program"
	"github.com/sluice-deploy/sluice/builder/source/internal/tree"
)

// entry is a file or a link of a commit.
type entry struct {
	mode, object, name string
	size               int64
}

// list returns the entries of a commit, or why one of them is refused, before a file is written.
func (f fetch) list(ctx context.Context, commit string) ([]entry, error) {
	var kind bytes.Buffer
	if err := f.git(ctx, &kind, "-C", f.repo, "cat-file", "-t", commit); err != nil {
		return nil, err
	}
	if k := strings.TrimSpace(kind.String()); k != "commit" {
		return nil, fmt.Errorf("%s is a %s: name a commit: %w", commit, k, tree.ErrRefused)
	}
	var out bytes.Buffer
	if err := f.git(ctx, &out, "-C", f.repo, "ls-tree", "-r", "-z", "--long", "--full-tree",
		commit); err != nil {
		return nil, err
	}
	var entries []entry
	var size int64
	for line := range strings.SplitSeq(strings.TrimRight(out.String(), "\x00"), "\x00") {
		if line == "" {
			continue
		}
		facts, name, _ := strings.Cut(line, "\t")
		fields := strings.Fields(facts)
		if len(fields) != 4 {
			return nil, fmt.Errorf("git ls-tree: %q: %w", line, tree.ErrRefused)
		}
		e := entry{mode: fields[0], object: fields[2], name: name}
		if e.mode == "160000" {
			return nil,
				fmt.Errorf("%q is a submodule: put its files into the repository, or build "+
					"from an archive: %w", name, tree.ErrRefused)
		}
		e.size, _ = strconv.ParseInt(fields[3], 10, 64)
		if size += e.size; size > f.Limits.Bytes || len(entries) >= f.Limits.Files {
			return nil, fmt.Errorf("%q: the commit has more than %d bytes or %d files: %w", name,
				f.Limits.Bytes, f.Limits.Files, tree.ErrRefused)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// write writes the entries below Dir and returns how many files and bytes there are.
func (f fetch) write(ctx context.Context, entries []entry) (files int, size int64, err error) {
	w, err := tree.NewWriter(f.Dir, tree.Limits(f.Limits))
	if err != nil {
		return 0, 0, err
	}
	defer w.Abort()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var ask strings.Builder
	for _, e := range entries {
		ask.WriteString(e.object + "\n")
	}
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := program.Program{Path: f.config.Program, Args: []string{"-C", f.repo, "cat-file",
			"--batch"}, Dir: f.Scratch, Env: f.env(), Stdin: ask.String(), Stdout: writer}.Run(ctx)
		writer.CloseWithError(errors.Join(err, io.ErrUnexpectedEOF))
		ended <- err
	}()
	objects := bufio.NewReaderSize(reader, 64<<10)
	for _, e := range entries {
		if err = f.one(w, e, objects); err != nil {
			break
		}
	}
	if err != nil {
		stop(err)
	}
	reader.CloseWithError(io.ErrClosedPipe)
	if endErr := <-ended; err == nil {
		err = endErr
	}
	if err != nil {
		return 0, 0, err
	}
	return w.Close()
}

const lfs = "version https://git-lfs.github.com/spec/"

// one writes the next object as the entry.
func (f fetch) one(w *tree.Writer, e entry, objects *bufio.Reader) error {
	head, err := objects.ReadString('\n')
	if err != nil {
		return err
	}
	if head != fmt.Sprintf("%s blob %d\n", e.object, e.size) {
		return fmt.Errorf("%q: git cat-file: %q", e.name, head)
	}
	name, err := tree.Clean(e.name)
	if err != nil {
		return err
	}
	switch e.mode {
	case "120000":
		if e.size > 4096 {
			return fmt.Errorf("%q is a link of %d bytes: %w", e.name, e.size, tree.ErrRefused)
		}
		target := make([]byte, e.size)
		if _, err = io.ReadFull(objects, target); err == nil {
			err = w.Symlink(name, string(target))
		}
	case "100644", "100755", "100664":
		if e.size < 1024 && e.size > int64(len(lfs)) {
			if start, _ := objects.Peek(len(lfs)); string(start) == lfs {
				return fmt.Errorf("%q: git-lfs keeps its content elsewhere: put the file into the "+
					"repository, or build from an archive: %w", e.name, tree.ErrRefused)
			}
		}
		mode := fs.FileMode(0o644)
		if e.mode == "100755" {
			mode = 0o755
		}
		err = w.File(name, mode, e.size, objects)
	default:
		return fmt.Errorf("%q has mode %s: %w", e.name, e.mode, tree.ErrRefused)
	}
	if err != nil {
		return err
	}
	_, err = objects.Discard(1) // the newline behind an object
	return err
}
