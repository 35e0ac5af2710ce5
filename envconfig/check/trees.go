package check

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseJSON walks the tokens, since a decoder of whole values would let the last of two equal keys
// win. Comments are passed over, and so are commas before a closing bracket in a file that has
// comments, as editors and compilers do it
// (https://code.visualstudio.com/docs/languages/json#_json-with-comments). Values after the first,
// each beginning in a line of its own, are records as of https://github.com/ndjson/ndjson-spec, and
// have their number before the keys.
func parseJSON(data []byte, k *sink) error {
	data = bare(data)
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	w := &jsonWalk{dec: dec, data: data, sink: k}
	prefix := ""
	for i := 1; ; i++ {
		if err := w.value(prefix, 0); err != nil {
			return err
		}
		end := dec.InputOffset()
		rest := bytes.TrimLeft(data[end:], " \t\r\n")
		if len(rest) == 0 {
			return nil
		}
		if !bytes.Contains(data[end:len(data)-len(rest)], []byte("\n")) {
			return &SyntaxError{w.line(), "data after the end of the value"}
		}
		prefix = fmt.Sprintf("document%d", i+1)
	}
}

// bare is JSON with blanks in the place of comments, and of commas before a closing bracket if
// there are comments.
func bare(data []byte) []byte {
	if !bytes.Contains(data, []byte("//")) && !bytes.Contains(data, []byte("/*")) {
		return data
	}
	out := bytes.Clone(data)
	comma, comments, open := -1, false, false // open: a comment that nothing closes has begun
	var commas []int
	blank := func(from, to int) {
		for ; from < to; from++ {
			if out[from] != '\n' {
				out[from] = ' '
			}
		}
		comments = true
	}
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			for i++; i < len(data) && data[i] != '"' && data[i] != '\n'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			comma = -1
		case c == '/' && bytes.HasPrefix(data[i:], []byte("//")):
			end := i + 2
			for end < len(data) && data[end] != '\n' {
				end++
			}
			blank(i, end)
			i = end - 1
		case c == '/' && !open && bytes.HasPrefix(data[i:], []byte("/*")):
			if n := bytes.Index(data[i+2:], []byte("*/")); n >= 0 {
				blank(i, i+n+4)
				i += n + 3
			} else {
				open = true
			}
		case c == ',':
			comma = i
		case c == '}' || c == ']':
			if comma >= 0 {
				commas = append(commas, comma)
			}
			comma = -1
		case c > ' ':
			comma = -1
		}
	}
	if !comments {
		return data
	}
	for _, i := range commas {
		out[i] = ' '
	}
	return out
}

type jsonWalk struct {
	*sink
	dec  *json.Decoder
	data []byte
	at   int64 // up to where lines were counted
	n    int
}

// line counts on from where it was asked last.
func (w *jsonWalk) line() int {
	to := min(w.dec.InputOffset(), int64(len(w.data)))
	w.n += bytes.Count(w.data[w.at:to], []byte("\n"))
	w.at = to
	return 1 + w.n
}

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
			w.note(w.line(), "key %q stands there twice", Join(key, name))
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

// parseXML gives a setting for every attribute and every text. A document type is passed over:
// nothing that it names is read, and its entities are not expanded, so that none of them can grow.
func parseXML(data []byte, k *sink) error {
	// the difference to 1.0 is not visible to the decoder
	data = xmlVersion.ReplaceAll(data, []byte("${1}1.0"))
	dec := xml.NewDecoder(bytes.NewReader(data))
	err := walkXML(dec, data, k)
	k.stopped = int(dec.InputOffset())
	return err
}

var (
	entity     = regexp.MustCompile(`&([A-Za-z_][\w.-]*);`)
	xmlVersion = regexp.MustCompile(`^(\s*<\?xml\s+version\s*=\s*["'])1\.1`)
)

func walkXML(dec *xml.Decoder, data []byte, k *sink) error {
	// made UTF-8 by [sink.text]
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	if k.entities == nil && bytes.Contains(data, []byte("<!DOCTYPE")) {
		k.entities = map[string]string{}
		for _, m := range entity.FindAllSubmatch(data, -1) {
			k.entities[string(m[1])] = "&" + string(m[1]) + ";"
		}
	}
	dec.Entity = k.entities
	type element struct {
		path  string
		text  strings.Builder
		count map[string]int
	}
	stack := []*element{{count: map[string]int{}}}
	line, counted := 1, int64(0)
	for {
		token, err := dec.Token()
		to := min(dec.InputOffset(), int64(len(data)))
		line += bytes.Count(data[counted:max(to, counted)], []byte("\n"))
		counted = max(to, counted)
		if errors.Is(err, io.EOF) && len(stack) == 1 && len(stack[0].count) > 0 {
			return nil
		}
		if err != nil {
			return &SyntaxError{line, "is not well-formed XML"}
		}
		switch t := token.(type) {
		case xml.StartElement:
			top := stack[len(stack)-1]
			name := t.Name.Local
			for _, a := range t.Attr { // distinguishes elements of the same name
				if slices.Contains([]string{"name", "id", "key", "path"}, a.Name.Local) {
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
				if err := k.add(Setting{Key: e.path + "@" + a.Name.Local, Kind: kindOf(a.Value),
					Line: line, value: a.Value}); err != nil {
					return err
				}
			}
		case xml.CharData:
			stack[len(stack)-1].text.Write(t)
		case xml.EndElement:
			e := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if text := strings.TrimSpace(e.text.String()); text != "" {
				if err := k.add(Setting{Key: e.path, Kind: kindOf(text), Line: line,
					value: text}); err != nil {
					return err
				}
			}
		}
	}
}

// parseYAML reads all documents of a file; those after the first have their number before the keys.
// A document that cannot be read harms only itself.
func parseYAML(data []byte, k *sink) error {
	nodes, err := decodeYAML(data)
	w := &yamlWalk{sink: k}
	if err == nil {
		for i := range nodes {
			if err := w.node(&nodes[i], document(i), 0); err != nil {
				return err
			}
		}
		return nil
	}
	parts := documents(data)
	if len(parts) == 1 {
		return &SyntaxError{yamlLine(err), "is not valid YAML"}
	}
	before := 0
	for i, part := range parts {
		nodes, err := decodeYAML(part)
		if err == nil && len(nodes) > 0 {
			shift(&nodes[0], before)
			err = w.node(&nodes[0], document(i), 0)
		} else if err != nil {
			loose := &sink{}
			_ = parseConf(part, loose)
			for _, s := range loose.settings {
				s.Line += before
				s.Key = Join(document(i), s.Key)
				k.settings = append(k.settings, s)
			}
			if !templated(part) {
				k.note(before+yamlLine(err), "is not valid YAML")
			}
			err = nil
		}
		if err != nil {
			return err
		}
		before += bytes.Count(part, []byte("\n"))
	}
	k.partial = true
	return nil
}

// document returns the prefix of the keys of a document.
func document(i int) string {
	if i == 0 {
		return ""
	}
	return fmt.Sprintf("document%d", i+1)
}

func decodeYAML(data []byte) (nodes []yaml.Node, err error) {
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var node yaml.Node
		if err := dec.Decode(&node); errors.Is(err, io.EOF) {
			return nodes, nil
		} else if err != nil {
			return nil, err
		}
		nodes = append(nodes, node)
	}
}

// documents parts a file at the lines that begin a document: "---" stands at the beginning of a
// line for nothing else (https://yaml.org/spec/1.2.2/#912-document-markers).
func documents(data []byte) (parts [][]byte) {
	start, at, content := 0, 0, false
	for line := range bytes.Lines(data) {
		if bytes.HasPrefix(line, []byte("---")) &&
			(len(line) == 3 || strings.IndexByte(blanks, line[3]) >= 0) && content {
			parts = append(parts, data[start:at])
			start, content = at, false
		}
		content = content || line[0] != '#' && len(bytes.TrimSpace(line)) > 0
		at += len(line)
	}
	return append(parts, data[start:])
}

const blanks = " \t\v\f\r\n"

// shift adds to the lines of a node and of all nodes below it.
func shift(n *yaml.Node, lines int) {
	n.Line += lines
	for _, child := range n.Content {
		shift(child, lines)
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
	*sink
	nodes int // of all documents
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
	kind := map[string]Kind{"!!int": Number, "!!float": Number, "!!bool": Bool,
		"!!null": Null}[n.ShortTag()]
	if kind == "" {
		kind = String
	}
	return w.add(Setting{Key: key, Kind: kind, Line: n.Line, value: n.Value})
}

func (w *yamlWalk) mapping(n *yaml.Node, key string, depth int) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Kind == yaml.AliasNode {
			name = name.Alias
		}
		if name.Kind != yaml.ScalarNode {
			if err := w.node(value, Join(key, fmt.Sprintf("?%d", i/2)), depth+1); err != nil {
				return err
			}
			continue
		}
		if name.ShortTag() == "!!merge" {
			if err := w.merge(value, n, key, depth); err != nil {
				return err
			}
			continue
		}
		full := Join(key, name.Value)
		if first, ok := seen[name.Value]; ok {
			w.note(name.Line, "key %q stands in line %d already", full, first)
		} else {
			seen[name.Value] = name.Line
		}
		if err := w.node(value, full, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// merge adds the keys that "<<" brings in, except for the mapping's own keys.
func (w *yamlWalk) merge(value, into *yaml.Node, key string, depth int) error {
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	if value.Kind != yaml.MappingNode {
		return nil // a list of mappings: rare enough to be compared by its own keys only
	}
	own := map[string]bool{}
	for i := 0; i+1 < len(into.Content); i += 2 {
		own[into.Content[i].Value] = true
	}
	if w.nodes += len(own); w.nodes > maxSettings {
		return &SyntaxError{value.Line, "nested too deeply, or aliases make it too large"}
	}
	for i := 0; i+1 < len(value.Content); i += 2 {
		name := value.Content[i]
		if own[name.Value] || name.ShortTag() == "!!merge" {
			continue
		}
		if err := w.node(value.Content[i+1], Join(key, name.Value), depth+1); err != nil {
			return err
		}
	}
	return nil
}
