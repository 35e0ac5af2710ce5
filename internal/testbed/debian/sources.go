package debian

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// source is one entry of apt's sources.
type source struct {
	uri      string
	suites   []string
	signedBy string // path of a keyring, empty for those that apt trusts for all sources
}

// line writes the entry for another suite, in the format of sources.list(5).
func (s source) line(suite string) string {
	options := ""
	if s.signedBy != "" {
		options = "[signed-by=" + s.signedBy + "] "
	}
	return fmt.Sprintf("deb %s%s %s main\n", options, s.uri, suite)
}

// mirror is the machine's entry for its own release.
func mirror(etc, id, codename string) (source, error) {
	if id != "debian" {
		return source{}, fmt.Errorf("this machine is not Debian (ID=%s), its apt sources lead to "+
			"no mirror of it", id)
	}
	files, err := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	if err != nil {
		return source{}, err
	}
	for _, name := range append(files, filepath.Join(etc, "sources.list")) {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // a directory, or no file of this kind
		}
		var found []source
		switch filepath.Ext(name) {
		case ".sources":
			found = deb822(string(text))
		case ".list":
			found = oneLine(string(text))
		}
		for _, s := range found {
			if slices.Contains(s.suites, codename) {
				return s, nil
			}
		}
	}
	return source{}, fmt.Errorf("no source of apt has the suite %s with the component main",
		codename)
}

// deb822 reads the entries for binary packages of main out of a file in deb822(5) style.
func deb822(text string) (found []source) {
	for stanza := range strings.SplitSeq(text, "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(stanza) {
			name, value, ok := strings.Cut(line, ":")
			if ok && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, " ") {
				fields[strings.ToLower(name)] = strings.TrimSpace(value)
			}
		}
		uris := strings.Fields(fields["uris"])
		if len(uris) == 0 || fields["enabled"] == "no" ||
			!slices.Contains(strings.Fields(fields["types"]), "deb") ||
			!slices.Contains(strings.Fields(fields["components"]), "main") {
			continue
		}
		s := source{uri: uris[0], suites: strings.Fields(fields["suites"])}
		if strings.HasPrefix(fields["signed-by"], "/") {
			s.signedBy = fields["signed-by"]
		}
		found = append(found, s)
	}
	return found
}

// oneLine reads the entries for binary packages of main out of a file in one-line style.
func oneLine(text string) (found []source) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s source
		if options, after, ok := strings.Cut(rest, "]"); ok {
			for _, option := range strings.Fields(strings.Trim(options, " [")) {
				if path, ok := strings.CutPrefix(option, "signed-by="); ok {
					s.signedBy = path
				}
			}
			rest = after
		}
		if words := strings.Fields(rest); len(words) > 2 && slices.Contains(words[2:], "main") {
			s.uri, s.suites = words[0], words[1:2]
			found = append(found, s)
		}
	}
	return found
}
