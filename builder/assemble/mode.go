package assemble

import (
	"fmt"
	"io/fs"
	"strconv"

	mode "github.com/tonistiigi/dchapes-mode"

	"github.com/sluice-deploy/sluice/builder"
)

// parseMode reads --chmod, in octal or as chmod(1) has it, such as u=rwX,go=rX: a clause without
// u, g, o or a means all. It returns nil for "".
func parseMode(text string) (chmod func(fs.FileMode) fs.FileMode, octal bool, err error) {
	if text == "" {
		return nil, false, nil
	}
	if n, err := strconv.ParseUint(text, 8, 32); err == nil && n <= 0o7777 {
		return func(fs.FileMode) fs.FileMode { return fileMode(int64(n)) }, true, nil
	}
	set, err := mode.ParseWithUmask(text, 0)
	if err != nil {
		return nil, false, fmt.Errorf("--chmod=%s: write the mode in octal, such as 0755, or as "+
			"u=rwX,go=rX: %w", text, builder.ErrInvalid)
	}
	return set.Apply, false, nil
}

// special are the bits of a mode beside the permissions, in fs.FileMode and in a tar header.
var special = []struct {
	mode fs.FileMode
	tar  int64
}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}}

func fileMode(tar int64) fs.FileMode {
	m := fs.FileMode(tar & 0o777)
	for _, s := range special {
		if tar&s.tar != 0 {
			m |= s.mode
		}
	}
	return m
}

func tarMode(m fs.FileMode) int64 {
	tar := int64(m.Perm())
	for _, s := range special {
		if m&s.mode != 0 {
			tar |= s.tar
		}
	}
	return tar
}
