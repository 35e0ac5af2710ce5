package check

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"
)

// lineAt counts the lines up to an offset.
func lineAt(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(max(offset, 0), int64(len(data)))], []byte("\n"))
}

// parseJSON walks the tokens, since a decoder of whole values would let the last of two equal keys win.
func parseJSON(data []byte, add func(Setting) error) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	w := &jsonWalk{dec: dec, data: data, add: add}
	if err := w.value("", 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return &SyntaxError{w.line(), "data after the end of the value"}
	}
	return nil
}

type jsonWalk struct {
	dec  *json.Decoder
	data []byte
	add  func(Setting) error
}

func (w *jsonWalk) line() int { return lineAt(w.data, w.dec.InputOffset()) }

func (w *jsonWalk) value(key string, depth int) error {
	if depth > maxDepth {
		return &SyntaxError{w.line(), "nested too deeply"}
	}
	token, err := w.dec.Token()
	if err != nil {
		return &SyntaxError{w.line(), "is not valid JSON"}
	}
	s := Setting{Key: key, Line: w.line()}
	switch v := token.(type) {
	case json.Delim:
		if v == '[' {
			return w.list(key, depth)
		}
		return w.object(key, depth)
	case string:
		s.Kind, s.value = String, v
	case json.Number:
		s.Kind, s.value = Number, v.String()
	case bool:
		s.Kind, s.value = Bool, strconv.FormatBool(v)
	default:
		s.Kind = Null
	}
	return w.add(s)
}

func (w *jsonWalk) list(key string, depth int) error {
	if err := w.add(Setting{Key: key, Kind: List, Line: w.line()}); err != nil {
		return err
	}
	for i := 0; w.dec.More(); i++ {
		if err := w.value(fmt.Sprintf("%s[%d]", key, i), depth+1); err != nil {
			return err
		}
	}
	return w.end()
}

func (w *jsonWalk) object(key string, depth int) error {
	seen := map[string]bool{}
	for w.dec.More() {
		token, err := w.dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return &SyntaxError{w.line(), "is not valid JSON"}
		}
		if seen[name] {
			return &SyntaxError{w.line(), fmt.Sprintf("key %q stands there twice", Join(key, name))}
		}
		seen[name] = true
		if err := w.value(Join(key, name), depth+1); err != nil {
			return err
		}
	}
	return w.end()
}

func (w *jsonWalk) end() error {
	if _, err := w.dec.Token(); err != nil {
		return &SyntaxError{w.line(), "is not valid JSON"}
	}
	return nil
}

// parseXML gives a setting for every attribute and every text. A document type is refused: it is how entities explode and
// other files are pulled in.
func parseXML(data []byte, add func(Setting) error) error {
	dec := xml.NewDecoder(bytes.NewReader(data))
	dec.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) { return in, nil } // keys are ASCII in practice
	type element struct {
		path  string
		text  strings.Builder
		count map[string]int
	}
	stack := []*element{{count: map[string]int{}}}
	for {
		token, err := dec.Token()
		line := lineAt(data, dec.InputOffset())
		if errors.Is(err, io.EOF) && len(stack) == 1 && len(stack[0].count) > 0 {
			return nil
		}
		if err != nil {
			return &SyntaxError{line, "is not well-formed XML"}
		}
		switch t := token.(type) {
		case xml.Directive:
			return &SyntaxError{line, "holds a document type, which could pull in other files"}
		case xml.StartElement:
			top := stack[len(stack)-1]
			name := t.Name.Local
			for _, a := range t.Attr { // what tells elements of the same name apart
				if slices.Contains([]string{"name", "id", "key", "path", "port"}, a.Name.Local) && a.Name.Local != "port" {
					name += "[" + a.Value + "]"
					break
				}
			}
			top.count[name]++
			if n := top.count[name]; n > 1 {
				name += fmt.Sprintf("#%d", n)
			}
			e := &element{path: Join(top.path, name), count: map[string]int{}}
			if stack = append(stack, e); len(stack) > maxDepth {
				return &SyntaxError{line, "nested too deeply"}
			}
			for _, a := range t.Attr {
				if err := add(Setting{Key: e.path + "@" + a.Name.Local, Kind: kindOf(a.Value), Line: line, value: a.Value}); err != nil {
					return err
				}
			}
		case xml.CharData:
			stack[len(stack)-1].text.Write(t)
		case xml.EndElement:
			e := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if text := strings.TrimSpace(e.text.String()); text != "" {
				if err := add(Setting{Key: e.path, Kind: kindOf(text), Line: line, value: text}); err != nil {
					return err
				}
			}
		}
	}
}

// parseYAML reads all documents of a file; those after the first have their number before the keys.
func parseYAML(data []byte, add func(Setting) error) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for i := 0; ; i++ {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &SyntaxError{yamlLine(err), "is not valid YAML"}
		}
		prefix := ""
		if i > 0 {
			prefix = fmt.Sprintf("document%d", i+1)
		}
		w := &yamlWalk{add: add}
		if err := w.node(&doc, prefix, 0); err != nil {
			return err
		}
	}
}

// yamlLine finds the line in the text of a parser's error, which is all that it gives.
func yamlLine(err error) int {
	_, rest, ok := strings.Cut(err.Error(), "line ")
	if !ok {
		return 0
	}
	digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	n, _ := strconv.Atoi(digits)
	return n
}

type yamlWalk struct {
	add   func(Setting) error
	nodes int
}

func (w *yamlWalk) node(n *yaml.Node, key string, depth int) error {
	if w.nodes++; w.nodes > maxSettings || depth > maxDepth {
		return &SyntaxError{n.Line, "nested too deeply, or aliases make it too large"}
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return w.node(n.Content[0], key, depth+1)
	case yaml.AliasNode:
		return w.node(n.Alias, key, depth+1)
	case yaml.SequenceNode:
		if err := w.add(Setting{Key: key, Kind: List, Line: n.Line}); err != nil {
			return err
		}
		for i, item := range n.Content {
			if err := w.node(item, fmt.Sprintf("%s[%d]", key, i), depth+1); err != nil {
				return err
			}
		}
		return nil
	case yaml.MappingNode:
		return w.mapping(n, key, depth)
	}
	kind := map[string]Kind{"!!int": Number, "!!float": Number, "!!bool": Bool, "!!null": Null}[n.ShortTag()]
	if kind == "" {
		kind = String
	}
	return w.add(Setting{Key: key, Kind: kind, Line: n.Line, value: n.Value})
}

func (w *yamlWalk) mapping(n *yaml.Node, key string, depth int) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.ShortTag() == "!!merge" {
			if err := w.merge(value, n, key, depth); err != nil {
				return err
			}
			continue
		}
		full := Join(key, name.Value)
		if first, ok := seen[name.Value]; ok {
			return &SyntaxError{name.Line, fmt.Sprintf("key %q stands in line %d already", full, first)}
		}
		seen[name.Value] = name.Line
		if err := w.node(value, full, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// merge takes what "<<" brings in and the mapping does not say itself.
func (w *yamlWalk) merge(value, into *yaml.Node, key string, depth int) error {
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	if value.Kind != yaml.MappingNode {
		return nil // a list of mappings: rare enough to be compared by its own keys only
	}
	for i := 0; i+1 < len(value.Content); i += 2 {
		name := value.Content[i]
		own := false
		for j := 0; j+1 < len(into.Content); j += 2 {
			own = own || into.Content[j].Value == name.Value
		}
		if own || name.ShortTag() == "!!merge" {
			continue
		}
		if err := w.node(value.Content[i+1], Join(key, name.Value), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func parseTOML(data []byte, add func(Setting) error) error {
	var tree map[string]any
	if _, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&tree); err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return &SyntaxError{syntax.Position.Line, "is not valid TOML"}
		}
		return &SyntaxError{0, "is not valid TOML"}
	}
	return walkTOML(tree, "", add)
}

func walkTOML(v any, key string, add func(Setting) error) error {
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if err := walkTOML(v[name], Join(key, name), add); err != nil {
				return err
			}
		}
		return nil
	case []map[string]any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = v[i]
		}
		return walkTOML(items, key, add)
	case []any:
		if err := add(Setting{Key: key, Kind: List}); err != nil {
			return err
		}
		for i, item := range v {
			if err := walkTOML(item, fmt.Sprintf("%s[%d]", key, i), add); err != nil {
				return err
			}
		}
		return nil
	case bool:
		return add(Setting{Key: key, Kind: Bool, value: strconv.FormatBool(v)})
	case int64, float64:
		return add(Setting{Key: key, Kind: Number, value: fmt.Sprint(v)})
	}
	return add(Setting{Key: key, Kind: String, value: fmt.Sprint(v)})
}
