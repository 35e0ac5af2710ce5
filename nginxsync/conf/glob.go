package conf

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// glob is glob(3) as Nginx calls it, in the C locale: bytes and not runes, a leading dot is matched
// by a dot only, and the names come in the bytewise order of their whole paths. A pattern that
// matches nothing is fine.
func glob(fsys fs.FS, pattern string) ([]string, error) {
	if strings.Contains(pattern, "[:") || strings.Contains(pattern, "[.") ||
		strings.Contains(pattern, "[=") {
		return nil, errors.New("character classes in a pattern are not supported")
	}
	names := []string{"."}
	for _, part := range strings.Split(pattern, "/") {
		var next []string
		for _, dir := range names {
			matches, err := globPart(fsys, dir, part)
			if err != nil {
				return nil, err
			}
			next = append(next, matches...)
		}
		names = next
	}
	slices.Sort(names)
	return names, nil
}

// globPart returns the names that one part of a pattern matches in a directory.
func globPart(fsys fs.FS, dir, part string) ([]string, error) {
	if !strings.ContainsAny(part, "*?[\\") {
		name := path.Join(dir, part)
		if _, err := fs.Stat(fsys, name); err != nil {
			return nil, nil
		}
		return []string{name}, nil
	}
	if _, err := path.Match(strings.ReplaceAll(part, "[!", "[^"), ""); err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, nil // no directory: nothing below it matches
	}
	var names []string
	for _, e := range entries {
		if globMatch(part, e.Name()) {
			names = append(names, path.Join(dir, e.Name()))
		}
	}
	return names, nil
}

// globMatch reports whether one part of a pattern matches one part of a name.
func globMatch(part, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(strings.TrimPrefix(part, "\\"), ".") {
		return false
	}
	ok, _ := path.Match(byteRunes(strings.ReplaceAll(part, "[!", "[^")), byteRunes(name))
	return ok
}

// byteRunes has a rune for each byte of s, so that path.Match counts bytes.
func byteRunes(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}
