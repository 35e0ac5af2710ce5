package builder

import (
	"bytes"
	"slices"
	"strings"
)

// Instruction is one instruction of a rendered template and where its text comes from.
type Instruction struct {
	// Line and EndLine are the same in the template and in the output of Render, because no value
	// has a newline.
	Line    int `json:"line"`
	EndLine int `json:"endLine"`
	// Keyword is upper case: "FROM", "COPY".
	Keyword string `json:"keyword"`
	// Source is the text in the template, Rendered the text with values.
	Source   string `json:"source"`
	Rendered string `json:"rendered"`
	// Values are the parameters in the instruction, in order, each once.
	Values []Origin `json:"values,omitempty"`
	// Reruns says that a new value of the build argument CACHE makes an engine carry out the
	// instruction again; the others come from its cache as long as their inputs are the same.
	Reruns bool `json:"reruns,omitempty"`
}

// Origin says where a value comes from.
type Origin struct {
	Param string `json:"param"`
	Value string `json:"value"`
	// Default says that the value is the template's, not the caller's.
	Default bool `json:"default,omitempty"`
}

// Explain renders like [Template.Render], with its errors, and returns the instructions one by one:
// for a preview before the build, and to lead from the failing line of a build to the value behind
// it.
func (t *Template) Explain(values map[string]string) ([]Instruction, error) {
	rendered, err := t.Render(values)
	if err != nil {
		return nil, err
	}
	ast, err := parse(rendered)
	if err != nil {
		return nil, err
	}
	sourceLines, renderedLines := bytes.Split(t.source, []byte("\n")), bytes.Split(rendered,
		[]byte("\n"))
	text := func(lines [][]byte, first, last int) string {
		return string(bytes.Join(lines[first-1:min(last, len(lines))], []byte("\n")))
	}
	var list []Instruction
	cacheArg, reruns := false, false
	for _, n := range ast.Children {
		in := Instruction{
			Line: n.StartLine, EndLine: n.EndLine, Keyword: strings.ToUpper(n.Value),
			Source: text(sourceLines, n.StartLine, n.EndLine), Rendered: text(renderedLines,
				n.StartLine, n.EndLine),
			Values: t.origins(values, n.StartLine, n.EndLine),
		}
		switch in.Keyword {
		case "FROM":
			cacheArg, reruns = false, false
		case "ARG":
			for _, a := range arguments(n) {
				name, _, _ := strings.Cut(a, "=")
				cacheArg = cacheArg || name == "CACHE"
			}
		case "RUN":
			reruns = reruns || cacheArg
		}
		in.Reruns = reruns
		list = append(list, in)
	}
	return list, nil
}

func (t *Template) origins(values map[string]string, first, last int) []Origin {
	var list []Origin
	for _, u := range t.uses {
		if u.line < first || u.line > last ||
			slices.ContainsFunc(list, func(o Origin) bool { return o.Param == u.name }) {
			continue
		}
		o := Origin{Param: u.name}
		v, given := values[u.name]
		o.Value, o.Default = v, !given
		for _, p := range t.Params {
			if !given && p.Name == u.name {
				o.Value = p.Default
			}
		}
		list = append(list, o)
	}
	return list
}
