package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
)

// maxBytes limits a document.
const maxBytes = 4 << 20

// parser reads a document and collects its errors.
type parser struct {
	name     string
	pipeline promote.Pipeline
	errs     []error
}

// Parse reads a document, which is called name in errors. It returns every error at once, each
// with its line and wrapping promote.ErrInvalid.
func Parse(name string, data []byte, pipeline promote.Pipeline) (*Rules, error) {
	p := &parser{name: name, pipeline: pipeline}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s: %d bytes: want up to %d: %w", name, len(data), maxBytes,
			promote.ErrInvalid)
	}
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w: %w", name, err, promote.ErrInvalid)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		p.bad(&second, "a second document: want one")
		return nil, errors.Join(p.errs...)
	}
	rules := &Rules{}
	if len(document.Content) == 0 {
		p.bad(&yaml.Node{Line: 1}, "empty: want version and rules")
		return nil, errors.Join(p.errs...)
	}
	version := false
	p.mapping(document.Content[0], map[string]func(*yaml.Node){
		"version": func(n *yaml.Node) {
			version = true
			if n.Value != "1" {
				p.bad(n, "version %s: this program reads version 1", names.Quote(n.Value))
			}
		},
		"rules": func(n *yaml.Node) {
			p.sequence(n, func(n *yaml.Node) { rules.list = append(rules.list, p.rule(n)) })
		},
	})
	if !version {
		p.bad(document.Content[0], "no version: want version: 1")
	}
	for i, r := range rules.list {
		if slices.ContainsFunc(rules.list[:i], func(e rule) bool { return e.name == r.name }) {
			p.bad(&yaml.Node{Line: r.line}, "two rules are called %s", names.Quote(r.name))
		}
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return rules, nil
}

func (p *parser) bad(n *yaml.Node, format string, args ...any) {
	problem := fmt.Sprintf(format, args...)
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %s: %w", p.name, n.Line, problem,
		promote.ErrInvalid))
}

// mapping gives each field of n to its function.
func (p *parser) mapping(n *yaml.Node, fields map[string]func(*yaml.Node)) {
	p.each(n, func(key, value *yaml.Node) {
		f, ok := fields[key.Value]
		if !ok {
			known := make([]string, 0, len(fields))
			for name := range fields {
				known = append(known, name)
			}
			slices.Sort(known)
			p.bad(key, "%s: there is no such key: want %s", names.Quote(key.Value),
				strings.Join(known, ", "))
			return
		}
		f(value)
	})
}

// each gives the keys and the values of n to f.
func (p *parser) each(n *yaml.Node, f func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.bad(n, "want keys and values")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			p.bad(key, "want a name as the key")
		case seen[key.Value]:
			p.bad(key, "%s comes twice", names.Quote(key.Value))
		default:
			seen[key.Value] = true
			f(key, n.Content[i+1])
		}
	}
}

func (p *parser) sequence(n *yaml.Node, f func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		p.bad(n, "want a list")
		return
	}
	for _, item := range n.Content {
		f(item)
	}
}

func (p *parser) text(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.bad(n, "want a text")
		return ""
	}
	return n.Value
}

func (p *parser) texts(n *yaml.Node) (list []string) {
	p.sequence(n, func(n *yaml.Node) { list = append(list, p.text(n)) })
	return list
}

func (p *parser) yes(n *yaml.Node) bool {
	if n.Tag != "!!bool" || n.Value != "true" && n.Value != "false" {
		p.bad(n, "%s: want true or false", names.Quote(n.Value))
	}
	return n.Value == "true"
}

func (p *parser) number(n *yaml.Node) uint64 {
	v, err := strconv.ParseUint(n.Value, 10, 63)
	if err != nil || n.Kind != yaml.ScalarNode {
		p.bad(n, "%s: want a number of 0 or more", names.Quote(n.Value))
	}
	return v
}

func (p *parser) duration(n *yaml.Node) time.Duration {
	d, err := time.ParseDuration(n.Value)
	if err != nil || d < 0 || n.Kind != yaml.ScalarNode {
		p.bad(n, "%s: want a time such as 90m or 24h", names.Quote(n.Value))
		return 0
	}
	return d
}

func (p *parser) instant(n *yaml.Node) time.Time {
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		p.bad(n, "%s: want a time as in RFC 3339, such as 2026-12-24T00:00:00+01:00",
			names.Quote(n.Value))
	}
	return t
}

// environments gives the value of each environment to f.
func (p *parser) environments(n *yaml.Node, first bool, f func(environment string, n *yaml.Node)) {
	p.each(n, func(key, value *yaml.Node) {
		switch at := p.pipeline.Index(key.Value); {
		case at < 0:
			p.bad(key, "environment %s: the pipeline has %s", names.Quote(key.Value),
				strings.Join(p.pipeline, ", "))
		case at == 0 && !first:
			p.bad(key, "environment %s: it has none before it", key.Value)
		default:
			f(key.Value, value)
		}
	})
}

// gate reports the problems of a gate's settings at n.
func (p *parser) gate(n *yaml.Node, err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		p.bad(n, "%s", strings.TrimSuffix(strings.TrimSpace(line), ": "+promote.ErrInvalid.Error()))
	}
}
