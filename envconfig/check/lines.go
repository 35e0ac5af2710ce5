package check

import (
	"fmt"
	"strings"
)

// parseProperties reads Java's properties: "=", ":" or blanks between key and value, "#" and "!"
// comments, a backslash at the end of a line joins the next, and backslash escapes. Bytes are taken
// as ISO-8859-1 would be, so none is an error.
func parseProperties(data []byte, k *sink) error {
	lines := strings.Split(strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r",
		"\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line, at := strings.TrimLeft(lines[i], " \t\f"), i+1
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		if odd(line) {
			var joined strings.Builder
			for odd(line) && i+1 < len(lines) {
				i++
				joined.WriteString(line[:len(line)-1])
				line = strings.TrimLeft(lines[i], " \t\f")
			}
			joined.WriteString(line)
			line = joined.String()
		}
		key, value := splitProperty(line)
		name, err := unescape(key)
		if err == nil {
			value, err = unescape(value)
		}
		if err != nil {
			k.note(at, "%v", err)
			continue
		}
		if err := k.addOnce(Setting{Key: name, Kind: kindOf(value), Line: at,
			value: value}); err != nil {
			return err
		}
	}
	return nil
}

// odd reports whether the line ends in a backslash that is not itself escaped.
func odd(line string) bool { return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1 }

func splitProperty(line string) (key, value string) {
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case '=', ':':
			return line[:i], strings.TrimLeft(line[i+1:], " \t\f")
		case ' ', '\t', '\f':
			rest := strings.TrimLeft(line[i:], " \t\f")
			if rest != "" && (rest[0] == '=' || rest[0] == ':') {
				rest = strings.TrimLeft(rest[1:], " \t\f")
			}
			return line[:i], rest
		}
	}
	return line, ""
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			break
		}
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			var r rune
			if i+4 >= len(s) {
				return "", fmt.Errorf(`\u is not followed by four hexadecimal digits`)
			}
			if _, err := fmt.Sscanf(s[i+1:i+5], "%04x", &r); err != nil {
				return "", fmt.Errorf(`\u is not followed by four hexadecimal digits`)
			}
			b.WriteRune(r)
			i += 4
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}

// parseINI reads sections in brackets and KEY=VALUE or KEY:VALUE lines; "#" and ";" begin a comment
// line. There is no one standard: a key or a section may be there again, a key may have no value,
// and a line that begins with a blank may go on with the value before it.
func parseINI(data []byte, k *sink) error {
	section := ""
	times := map[string]int{}
	n := 0
	for whole := range strings.Lines(string(data)) {
		n++
		line := strings.TrimSpace(whole)
		switch {
		case line == "", line[0] == '#', line[0] == ';':
			continue
		case line[0] == '[':
			end := strings.LastIndexByte(line, ']')
			if end < 0 {
				k.note(n, "a section is [name]")
				continue
			}
			section = strings.TrimSpace(line[1:end])
			continue
		}
		i := strings.IndexAny(line, "=:")
		if i < 1 {
			continue // a switch, or the rest of a value, which must not become a key
		}
		s := Setting{Key: strings.TrimSpace(line[:i]), Line: n,
			value: unquote(strings.TrimSpace(line[i+1:]))}
		s.Kind = kindOf(s.value)
		s.Key = Join(section, s.Key)
		if times[s.Key]++; times[s.Key] > 1 {
			s.Key += fmt.Sprintf("#%d", times[s.Key])
		}
		if err := k.add(s); err != nil {
			return err
		}
	}
	return nil
}

// unquote takes away the quotation marks around a value.
func unquote(value string) string {
	if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		return value[1 : n-1]
	}
	return value
}

// parseDotenv reads NAME=VALUE lines, "export" before them allowed, values plain or in single or
// double quotes, the latter over several lines too. Nothing is evaluated.
func parseDotenv(data []byte, k *sink) error {
	lines := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line, at := strings.TrimSpace(lines[i]), i+1
		if line == "" || line[0] == '#' {
			continue
		}
		line = strings.TrimSpace(strings.TrimPrefix(line, "export "))
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimRight(name, " \t"); !ok || !isVariable(name) {
			if !isVariable(line) { // "export NAME" alone takes the value that is there
				k.note(at, "is not NAME=VALUE")
			}
			continue
		}
		value = strings.TrimLeft(value, " \t")
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			quote, first := value[0], value[1:]
			last := closingLine(lines[i+1:], value, quote)
			if last < 0 {
				k.note(at, "the quotation mark is never closed")
				value = first
			} else {
				value = strings.Join(append([]string{value}, lines[i+1:i+1+last]...), "\n")
				i += last
				end := closing(value, quote)
				if rest := strings.TrimSpace(value[end+1:]); rest != "" && rest[0] != '#' {
					k.note(at, "something follows the closing quotation mark")
				}
				value = value[1:end]
			}
		} else if j := strings.Index(value, " #"); j >= 0 {
			value = strings.TrimSpace(value[:j])
		}
		if err := k.addOnce(Setting{Key: name, Kind: kindOf(value), Line: at,
			value: value}); err != nil {
			return err
		}
	}
	return nil
}

// closingLine is how many of the lines behind the one with value it takes to close the quotation
// mark that value begins with, or -1. A backslash at the end of a line takes the meaning from the
// end of the line only.
func closingLine(lines []string, value string, quote byte) int {
	if closing(value, quote) > 0 {
		return 0
	}
	for i, line := range lines {
		if closing(string(quote)+line, quote) > 0 {
			return i + 1
		}
	}
	return -1
}

// closing is the index of the quotation mark that closes the one value begins with, or -1.
func closing(value string, quote byte) int {
	for i := 1; i < len(value); i++ {
		switch {
		case value[i] == '\\' && quote == '"':
			i++
		case value[i] == quote:
			return i
		}
	}
	return -1
}

func isVariable(name string) bool {
	for i, c := range []byte(name) {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') &&
			(i == 0 || c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return name != ""
}
