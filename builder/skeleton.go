package builder

import (
	"bytes"
	"errors"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// shape is the part of one instruction that a value must not change.
type shape struct {
	keyword    string
	start, end int // lines
	flags      string
	args       int
	heredocs   int
	json       bool
	words      int    // separated by white space in the source
	marks      string // characters with a meaning to a shell, in order
}

// marks are the characters that no value may bring into an instruction.
const marks = "\\\"'`$;&|<>(){}[]*?~!#=,"

// skeleton parses a Dockerfile as BuildKit does and returns the shape of its instructions.
func skeleton(dockerfile []byte) ([]shape, error) {
	ast, err := parse(dockerfile)
	if err != nil {
		return nil, err
	}
	var list []shape
	for _, n := range ast.Children {
		in := shape{
			keyword: strings.ToUpper(n.Value), start: n.StartLine, end: n.EndLine,
			heredocs: len(n.Heredocs), json: n.Attributes["json"],
			words: len(strings.Fields(n.Original)),
			marks: strings.Map(func(r rune) rune {
				if strings.ContainsRune(marks, r) {
					return r
				}
				return -1
			}, n.Original),
		}
		for _, f := range n.Flags {
			name, _, _ := strings.Cut(f, "=")
			in.flags += " " + name
		}
		for arg := n.Next; arg != nil; arg = arg.Next {
			in.args++
		}
		list = append(list, in)
	}
	return list, nil
}

func parse(dockerfile []byte) (*parser.Node, error) {
	res, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, err
	}
	return res.AST, nil
}

// keepsSkeleton compares rendered with the template filled with neutral values.
func (t *Template) keepsSkeleton(rendered []byte, values map[string]string) error {
	neutral := t.neutral(func(p Param) int { return len(strings.Fields(values[p.Name])) })
	want, err := skeleton(fill(t.source, t.uses, neutral))
	if err != nil {
		return err
	}
	got, err := skeleton(rendered)
	if err != nil {
		return err
	}
	if line := differ(want, got); line > 0 {
		return at(line, "a value changes the instruction, which must stay as the template has it")
	}
	return nil
}

// neutral returns harmless values; those of type words have as many words as count says.
func (t *Template) neutral(count func(Param) int) map[string]string {
	values := t.Examples()
	for _, p := range t.Params {
		if p.Type == TypeWords {
			values[p.Name] = strings.TrimSpace(strings.Repeat("word ", count(p)))
		}
	}
	return values
}

// differ returns the line of the first instruction that differs, or 0.
func differ(want, got []shape) int {
	for i, w := range want {
		if i >= len(got) || got[i] != w {
			return w.start
		}
	}
	if len(got) > len(want) {
		return got[len(want)].start
	}
	return 0
}

// checkSkeleton refuses a template that cannot be parsed, breaks a rule, or lets a list of words
// become further arguments of an instruction.
func (t *Template) checkSkeleton() error {
	one := fill(t.source, t.uses, t.neutral(func(Param) int { return 1 }))
	if err := errors.Join(lintErrors(one)...); err != nil {
		return err
	}
	want, err := skeleton(one)
	if err != nil {
		return err
	}
	got, err := skeleton(fill(t.source, t.uses, t.neutral(func(Param) int { return 3 })))
	if err != nil {
		return err
	}
	for i := range want {
		want[i].words = 0
		t.run = t.run || want[i].keyword == "RUN"
	}
	for i := range got {
		got[i].words = 0
	}
	if line := differ(want, got); line > 0 {
		return at(line,
			"a parameter of type words adds arguments to the instruction: use type word")
	}
	return nil
}
