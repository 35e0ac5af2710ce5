package check

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

func parseTOML(data []byte, k *sink) error {
	var root map[string]any
	if _, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&root); err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return &SyntaxError{syntax.Position.Line, "is not valid TOML"}
		}
		return &SyntaxError{0, "is not valid TOML"}
	}
	w := &tomlWalk{sink: k, lines: tomlLines(string(data))}
	return w.walk(root, "", 0)
}

type tomlWalk struct {
	*sink
	lines map[string]int
}

// walk gives the settings below a key. line is the line of the table or list around it, for a value
// without a line of its own.
func (w *tomlWalk) walk(v any, key string, line int) error {
	if own, ok := w.lines[key]; ok {
		line = own
	}
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if err := w.walk(v[name], Join(key, name), line); err != nil {
				return err
			}
		}
		return nil
	case []map[string]any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = v[i]
		}
		return w.walk(items, key, line)
	case []any:
		if err := w.add(Setting{Key: key, Kind: List, Line: line}); err != nil {
			return err
		}
		for i, item := range v {
			if err := w.walk(item, fmt.Sprintf("%s[%d]", key, i), line); err != nil {
				return err
			}
		}
		return nil
	case bool:
		return w.add(Setting{Key: key, Kind: Bool, Line: line, value: strconv.FormatBool(v)})
	case int64, float64:
		return w.add(Setting{Key: key, Kind: Number, Line: line, value: fmt.Sprint(v)})
	case time.Time:
		return w.add(Setting{Key: key, Kind: String, Line: line, value: v.Format(time.RFC3339)})
	}
	return w.add(Setting{Key: key, Kind: String, Line: line, value: fmt.Sprint(v)})
}

// tomlLines finds the lines of the tables and keys of a file that is valid TOML, which the decoder
// does not report. A key or an element within a value has the line in which the value begins.
func tomlLines(text string) map[string]int {
	at := map[string]int{}
	tables := map[string]int{}
	prefix, open, depth, n := "", "", 0, 0
	for line := range strings.Lines(text) {
		n++
		rest := strings.TrimSpace(line)
		switch {
		case open != "" || depth > 0: // goes on with a value
		case rest == "", rest[0] == '#':
			continue
		case rest[0] == '[':
			list := strings.HasPrefix(rest, "[[")
			elements, _ := tomlKey(strings.TrimLeft(rest, "["))
			if prefix = tomlPath(tables, elements); list {
				tables[prefix]++
				if _, ok := at[prefix]; !ok {
					at[prefix] = n
				}
				prefix = fmt.Sprintf("%s[%d]", prefix, tables[prefix]-1)
			}
			at[prefix] = n
			continue
		default:
			var elements []string
			if elements, rest = tomlKey(rest); len(elements) > 0 {
				key := prefix
				for _, e := range elements {
					key = Join(key, e)
					if _, ok := at[key]; !ok {
						at[key] = n
					}
				}
			}
			rest = strings.TrimPrefix(rest, "=")
		}
		open, depth = tomlValue(rest, open, depth)
	}
	return at
}

// tomlPath is the key of a table, through the last element of each list of tables.
func tomlPath(tables map[string]int, elements []string) string {
	key := ""
	for i, e := range elements {
		if key = Join(key, e); tables[key] > 0 && i+1 < len(elements) {
			key = fmt.Sprintf("%s[%d]", key, tables[key]-1)
		}
	}
	return key
}

// tomlKey takes the elements of a dotted key off a line.
func tomlKey(line string) (elements []string, rest string) {
	for {
		line = strings.TrimLeft(line, " \t")
		element, end := "", 0
		if line != "" && (line[0] == '"' || line[0] == '\'') {
			if end = closing(line, line[0]); end < 0 {
				return elements, ""
			}
			element = line[1:end]
			if line[0] == '"' {
				if plain, err := strconv.Unquote(line[:end+1]); err == nil {
					element = plain
				}
			}
			end++
		} else {
			for end < len(line) && isWord(line[end]) {
				end++
			}
			element = line[:end]
		}
		if end == 0 {
			return elements, line
		}
		elements = append(elements, element)
		line = strings.TrimLeft(line[end:], " \t")
		if !strings.HasPrefix(line, ".") {
			return elements, line
		}
		line = line[1:]
	}
}

// tomlValue follows a value to the end of a line: open are the quotation marks of a string of
// several lines, depth counts the brackets of a list.
func tomlValue(s, open string, depth int) (string, int) {
	for i := 0; i < len(s); i++ {
		if open != "" {
			switch {
			case s[i] == '\\' && open[0] == '"':
				i++
			case strings.HasPrefix(s[i:], open):
				i += len(open) - 1
				open = ""
			}
			continue
		}
		switch c := s[i]; c {
		case '"', '\'':
			mark := string(c)
			if strings.HasPrefix(s[i:], strings.Repeat(mark, 3)) {
				open = strings.Repeat(mark, 3)
				i += 2
			} else if end := closing(s[i:], c); end > 0 {
				i += end
			}
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '#':
			return open, depth
		}
	}
	return open, depth
}
