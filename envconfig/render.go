package envconfig

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
	"github.com/sluice-deploy/sluice/internal/names"
)

// maxRendered bounds a file with placeholders, which is held in memory; files that are copied have
// no bound.
const maxRendered = 16 << 20

// filePrefix begins a placeholder for a file's content.
const filePrefix = "file:"

// piece is a part of a template: text, or a placeholder.
type piece struct {
	text     string
	name     string // variable, or path of a file when file is set
	file     bool
	fallback string
	hasElse  bool
}

// split cuts a template into text and the placeholders that r declares. Text between two
// placeholders is one piece.
func (r *Render) split(template string) []piece {
	var pieces []piece
	text := 0
	for at := 0; ; {
		i := strings.Index(template[at:], "${")
		if i < 0 {
			break
		}
		start := at + i
		end := strings.IndexByte(template[start:], '}')
		if end < 0 {
			break
		}
		p, ok := r.placeholder(template[start+2 : start+end])
		if !ok {
			at = start + 2
			continue
		}
		if text < start {
			pieces = append(pieces, piece{text: template[text:start]})
		}
		pieces = append(pieces, p)
		at = start + end + 1
		text = at
	}
	if text < len(template) {
		pieces = append(pieces, piece{text: template[text:]})
	}
	return pieces
}

// placeholder reads the text between the braces; it is none unless it was declared.
func (r *Render) placeholder(inner string) (piece, bool) {
	if path, ok := strings.CutPrefix(inner, filePrefix); ok {
		rel, absolute := strings.CutPrefix(path, "/")
		return piece{name: path, file: true}, absolute && place.PathProblem(rel) == "" &&
			slices.ContainsFunc(r.Files, func(pattern string) bool {
				return matchPath(strings.TrimPrefix(pattern, "/"), rel)
			})
	}
	name, fallback, hasElse := strings.Cut(inner, ":-")
	return piece{name: name, fallback: fallback, hasElse: hasElse}, slices.Contains(r.Variables,
		name)
}

// values are where placeholders get their content.
type values struct {
	lookup func(string) (string, bool)
	root   *os.Root
}

// fill returns the template with its placeholders filled in, and the names without a value. A
// fallback stands in for a variable that is unset or empty; a variable that is empty and has no
// fallback is filled in as it is.
func (r *Render) fill(template string, from values) (out []byte, missing []string) {
	var b bytes.Buffer
	for _, p := range r.split(template) {
		switch {
		case p.name == "":
			b.WriteString(p.text)
		case p.file:
			content, err := from.read(p.name)
			if err != nil {
				missing = append(missing, fmt.Sprintf("file %s (%v)", p.name, err))
			}
			b.Write(content)
		default:
			value, set := from.lookup(p.name)
			if p.hasElse && value == "" {
				value, set = p.fallback, true
			}
			if !set {
				missing = append(missing, "variable "+p.name)
			}
			b.WriteString(value)
		}
	}
	return b.Bytes(), missing
}

// read returns the content of a file without the line end that editors and "echo" put after a
// secret.
func (v *values) read(name string) ([]byte, error) {
	f, _, err := place.OpenFile(everything(v.root), strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil, place.Cause(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxRendered+1))
	if err != nil {
		return nil, place.Cause(err)
	}
	if len(content) > maxRendered {
		return nil, fmt.Errorf("longer than %d bytes", maxRendered)
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r")), nil
}

// usesFiles reports whether the template draws on a file, and so most likely on a secret.
func (r *Render) usesFiles(template string) bool {
	return slices.ContainsFunc(r.split(template), func(p piece) bool { return p.file })
}

func (r *Render) validate() error {
	for _, name := range r.Variables {
		if name == "" || strings.ContainsAny(name, "{}$=:\x00") {
			return invalid(SpecName, "render variable %s cannot be the name of a variable",
				names.Quote(name))
		}
	}
	for _, pattern := range r.Files {
		rel, ok := strings.CutPrefix(pattern, "/")
		if !ok || !validPattern(rel) {
			return invalid(SpecName, "render file pattern %s must begin with / and be well-formed",
				names.Quote(pattern))
		}
	}
	return nil
}
