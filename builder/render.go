package builder

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ParamError is the problem of one value given to [Template.Render], or of a value that is missing
// there. It is [ErrInvalid].
type ParamError struct {
	Template string // its ID
	Param    string
	// Line is where the template's Dockerfile uses the parameter first; 0 when it does not.
	Line   int
	Reason string
}

func (e *ParamError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("template %s: parameter %s: %s", e.Template, e.Param, e.Reason)
	}
	return fmt.Sprintf("template %s: Dockerfile line %d: parameter %s: %s", e.Template, e.Line,
		e.Param, e.Reason)
}

// Is reports whether target is [ErrInvalid].
func (e *ParamError) Is(target error) bool { return target == ErrInvalid }

// placeholder is one {{NAME}} in a template.
type placeholder struct {
	name       string
	start, end int // bytes in the source
	line       int
}

var placeholderMark = regexp.MustCompile(`\{\{[^{}\n]*\}\}`)

// placeholders lists the placeholders of source in order, with an error, too. Braces in pairs that
// are none are an error with their line.
func placeholders(source []byte) ([]placeholder, error) {
	var found []placeholder
	var problems []error
	rest := bytes.Clone(source)
	line := func(offset int) int { return 1 + bytes.Count(source[:offset], []byte("\n")) }
	for _, m := range placeholderMark.FindAllIndex(source, -1) {
		name := string(source[m[0]+2 : m[1]-2])
		if !paramName.MatchString(name) {
			problems = append(problems, at(line(m[0]),
				"placeholder {{%s}}: the name must be an upper-case letter, "+
					"then upper-case letters, digits and _, without spaces", name))
		}
		found = append(found, placeholder{name: name, start: m[0], end: m[1], line: line(m[0])})
		for i := m[0]; i < m[1]; i++ {
			rest[i] = ' '
		}
	}
	for _, stray := range []string{"{{", "}}"} {
		if i := bytes.Index(rest, []byte(stray)); i >= 0 {
			problems = append(problems, at(line(i), "%s that belongs to no placeholder", stray))
		}
	}
	return found, errors.Join(problems...)
}

// Render fills in the placeholders and returns the Dockerfile. Parameters that values leaves out
// take their default. It returns an error, with one [ParamError] for each problem joined, when
// values misses a required parameter, has one that the template does not declare, or has a value
// that the parameter's type refuses. The rendered Dockerfile has been parsed and consists of the
// same instructions, with the same number of words, as the template.
func (t *Template) Render(values map[string]string) ([]byte, error) {
	full, err := t.complete(values)
	if err != nil {
		return nil, err
	}
	rendered := fill(t.source, t.uses, full)
	if err := t.keepsSkeleton(rendered, full); err != nil {
		return nil, fmt.Errorf("template %s: %w", t.ID(), err)
	}
	return rendered, nil
}

// complete checks values and adds the defaults.
func (t *Template) complete(values map[string]string) (map[string]string, error) {
	full := make(map[string]string, len(t.Params))
	var problems []error
	for _, p := range t.Params {
		v, given := values[p.Name]
		switch {
		case given:
			if reason := p.refuse(v); reason != "" {
				problems = append(problems, t.paramError(p.Name, reason))
			}
		case p.Required:
			problems = append(problems, t.paramError(p.Name,
				fmt.Sprintf("no value (%s, for example %s)", p.Description, p.example())))
		default:
			v = p.Default
		}
		full[p.Name] = v
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if _, ok := full[name]; !ok {
			problems = append(problems, t.paramError(name,
				"the template does not use it, it has "+t.paramNames()))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return full, nil
}

// Examples returns a value for every parameter: its example, else its default. Render accepts them.
func (t *Template) Examples() map[string]string {
	values := make(map[string]string, len(t.Params))
	for _, p := range t.Params {
		values[p.Name] = p.example()
	}
	return values
}

func fill(source []byte, uses []placeholder, values map[string]string) []byte {
	var out bytes.Buffer
	done := 0
	for _, u := range uses {
		out.Write(source[done:u.start])
		out.WriteString(values[u.name])
		done = u.end
	}
	out.Write(source[done:])
	return out.Bytes()
}

func (t *Template) paramError(name, reason string) *ParamError {
	e := &ParamError{Template: t.ID(), Param: name, Reason: reason}
	for _, u := range t.uses {
		if u.name == name {
			e.Line = u.line
			break
		}
	}
	if !paramName.MatchString(name) {
		e.Param = quote(name)
	}
	return e
}

func (t *Template) paramNames() string {
	names := make([]string, len(t.Params))
	for i, p := range t.Params {
		names[i] = p.Name
	}
	return cmp.Or(strings.Join(names, ", "), "no parameters")
}
