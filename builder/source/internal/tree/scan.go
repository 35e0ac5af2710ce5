package tree

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Check reads a tree that another program wrote: it refuses the same as Writer, and returns how
// many entries there are and how many bytes.
func Check(ctx context.Context, dir string, limits Limits) (files int, bytes int64,
	err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, 0, err
	}
	defer root.Close()
	err = walk(dir, func(name string, info fs.FileInfo) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := Clean(name); err != nil {
			return err
		}
		if files++; files > limits.Files {
			return Refuse(name, "is one too many: the source has more than %d files",
				limits.Files)
		}
		switch info.Mode().Type() {
		case 0:
			if bytes += info.Size(); bytes > limits.Bytes {
				return Refuse(name, "is too large: the source has more than %d bytes",
					limits.Bytes)
			}
		case fs.ModeDir:
		case fs.ModeSymlink:
			target, err := root.Readlink(name)
			if err != nil {
				return err
			}
			return errors.Join(CheckLink(name, target), resolve(root, name))
		default:
			return Refuse(name, "is no file, directory or symbolic link")
		}
		return nil
	})
	return files, bytes, err
}

// walk calls f for each entry below dir in the order of the names' bytes, directory by directory.
func walk(dir string, f func(name string, info fs.FileInfo) error) error {
	return filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil || at == dir {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(rel), info)
	})
}

// Digest is a sum over all entries in the order of the walk, each a line of its type, its name, its
// permission bits, and the SHA-256 of a file's content or the target of a link.
func Digest(ctx context.Context, dir string) (string, error) {
	sum := sha256.New()
	err := walk(dir, func(name string, info fs.FileInfo) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		at := filepath.Join(dir, filepath.FromSlash(name))
		switch mode := info.Mode(); mode.Type() {
		case fs.ModeDir:
			fmt.Fprintf(sum, "dir %q %o\n", name, mode.Perm())
		case fs.ModeSymlink:
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "link %q %q\n", name, target)
		case 0:
			content, err := fileSum(at)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "file %q %o %s\n", name, mode.Perm(), content)
		}
		return nil
	})
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), err
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// Empty removes everything in the directories, which stay.
func Empty(dirs ...string) error {
	var errs []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			errs = append(errs, Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Remove removes a tree, directories that are closed to their owner too.
func Remove(name string) error {
	err := os.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	filepath.WalkDir(name, func(at string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			os.Chmod(at, 0o700)
		}
		return nil
	})
	return os.RemoveAll(name)
}

// Size is the number of bytes of the files below dir, while another program writes them.
func Size(dir string) int64 {
	var n int64
	filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
