package nginxsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
)

// The state file has a copy of the generation before, with ".1" behind its name; a lock, with
// ".lock"; and damaged files, with ".damaged-" and the time.

// readState reads the state file or its copy: of the two the higher generation that is proven by
// its digest. whole is the generation of the file itself; damaged names the files that are not.
func readState(file string) (r Routes, whole Generation, damaged map[string]error) {
	damaged = map[string]error{}
	for _, name := range []string{file, file + ".1"} {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var got Routes
		if err == nil {
			err = got.UnmarshalText(text)
		}
		if err == nil && name == file {
			whole = got.Generation
		}
		switch {
		case err != nil:
			damaged[name] = err
		case got.Generation.Number > r.Generation.Number:
			r = got
		}
	}
	return r, whole, damaged
}

// setAsideDamaged renames the damaged files, so that the next write does not take their place.
func setAsideDamaged(damaged map[string]error, now time.Time) (moved map[string]string,
	err error) {
	moved = map[string]string{}
	for name := range damaged {
		to := name + ".damaged-" + now.UTC().Format("20060102T150405.000000000Z")
		if renameErr := os.Rename(name, to); renameErr != nil {
			err = errors.Join(err, renameErr)
			continue
		}
		moved[name] = to
	}
	return moved, err
}

// writeState replaces the state file. The one from before becomes the copy.
func writeState(file string, text []byte) error {
	tmp := file + ".1.tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Link(file, tmp); err == nil {
		if err := os.Rename(tmp, file+".1"); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return atomicfile.Write(file, text, 0o644)
}

// own waits until this process owns the state file, and returns the function that gives it up.
// waiting is called while another process does.
func own(ctx context.Context, file string, every time.Duration, waiting func(error)) (func(),
	error) {
	if file == "" {
		return func() {}, nil
	}
	for {
		f, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			var ok bool
			if ok, err = tryLock(f); ok {
				return func() { f.Close() }, nil
			}
			f.Close()
			if err == nil {
				err = fmt.Errorf("state file %s: another agent owns it, and this one waits: %w",
					file, ErrFenced)
			}
		}
		waiting(err)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(every):
		}
	}
}
