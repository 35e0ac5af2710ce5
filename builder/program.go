package builder

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/sluice-deploy/sluice/builder/internal/elfhead"
	"github.com/sluice-deploy/sluice/internal/names"
)

// Program returns the program of that name for images of a platform of linux, such as the envconfig
// binary for "linux/arm64". It looks in dir for name-OS-ARCHITECTURE-VARIANT where the platform has
// a variant, for name-OS-ARCHITECTURE, and for name, and returns the first that is there. A file of
// another architecture, or that is no program, and no file at all are ErrInvalid: the error names
// the file and how to build it. An embedder puts the bytes into [Request.Context], and where a
// request has several platforms into the context of each ([Request.Contexts]).
func Program(dir fs.FS, name, platform string) ([]byte, error) {
	parts := strings.Split(platform, "/")
	if !platformWord.MatchString(platform) || parts[0] != "linux" {
		return nil, fmt.Errorf("program %s: platform %s: want linux/architecture, such as "+
			"linux/arm64: %w", name, names.Quote(platform), ErrInvalid)
	}
	machine, known := elfhead.Of(parts[1])
	if !known {
		return nil, fmt.Errorf("program %s: platform %s: unknown architecture: %w", name, platform,
			ErrInvalid)
	}
	for n := len(parts); n > 0; n-- {
		file := name
		if n > 1 {
			file += "-" + strings.Join(parts[:n], "-")
		}
		data, err := fs.ReadFile(dir, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("program for %s: %w", platform, err)
		}
		switch is := elfhead.Machine(data); is {
		case machine:
			return data, nil
		case elf.EM_NONE:
			return nil, fmt.Errorf("program for %s: %s is no program for linux: %w", platform,
				file, ErrInvalid)
		default:
			return nil, fmt.Errorf("program for %s: %s is for %s: %s: %w", platform, file, is,
				howToBuild(name, parts), ErrInvalid)
		}
	}
	return nil, fmt.Errorf("program for %s: there is neither %s-%s nor %s: %s: %w", platform, name,
		strings.Join(parts, "-"), name, howToBuild(name, parts), ErrInvalid)
}

// howToBuild is the advice for a program written in Go.
func howToBuild(name string, platform []string) string {
	arm := ""
	if len(platform) > 2 && platform[1] == "arm" {
		arm = "GOARM=" + strings.TrimPrefix(platform[2], "v") + " "
	}
	return fmt.Sprintf("build it with CGO_ENABLED=0 GOOS=linux GOARCH=%s %sgo build -o %s-%s",
		platform[1], arm, name, strings.Join(platform, "-"))
}
