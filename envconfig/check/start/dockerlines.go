package start

import (
	"regexp"
	"slices"
	"strings"
)

// The functions below read a Dockerfile as BuildKit's parser does:
// https://docs.docker.com/reference/dockerfile/

// directive is a line before the first instruction that controls the parser.
var directive = regexp.MustCompile(`^\s*#\s*([A-Za-z]+)\s*=\s*(.+?)\s*$`)

// escapeOf is the character that joins lines and takes the meaning from others: a backslash, unless
// a directive sets another one.
func escapeOf(lines []string) byte {
	for _, line := range lines {
		m := directive.FindStringSubmatch(line)
		if m == nil || !slices.Contains([]string{"syntax", "escape", "check"},
			strings.ToLower(m[1])) {
			break
		}
		if strings.EqualFold(m[1], "escape") && m[2] == "`" {
			return '`'
		}
	}
	return '\\'
}

// instructions gives do each instruction as one line, without the comments and empty lines within
// it. Lines of heredocs are no instructions.
func instructions(lines []string, escape byte, do func(name, rest string)) {
	for len(lines) > 0 {
		var line strings.Builder
		for more := true; more && len(lines) > 0; lines = lines[1:] {
			part := strings.TrimRight(lines[0], "\r")
			if trimmed := strings.TrimSpace(part); trimmed != "" && trimmed[0] != '#' {
				part, more = goesOn(part, escape)
				line.WriteString(part)
			}
		}
		name, rest := split(line.String())
		for _, end := range heredocs(name, rest) {
			for len(lines) > 0 && !end.reached(lines[0]) {
				lines = lines[1:]
			}
			lines = lines[min(1, len(lines)):]
		}
		if name != "" {
			do(name, rest)
		}
	}
}

// goesOn takes the mark away with which a line goes on in the next.
func goesOn(line string, escape byte) (string, bool) {
	end := len(strings.TrimRight(line, " \t")) - 1
	if end < 0 || line[end] != escape || end > 0 && line[end-1] == escape {
		return line, false
	}
	return line[:end], true
}

// heredoc is the line that ends one.
type heredoc struct {
	name string
	tabs bool // may stand before it
}

func (h heredoc) reached(line string) bool {
	line = strings.TrimRight(line, "\r")
	if h.tabs {
		line = strings.TrimLeft(line, "\t")
	}
	return line == h.name
}

var heredocStart = regexp.MustCompile(`^\d*<<(-?)\s*([^<]*)$`)

// heredocs returns the heredocs that an instruction begins, in their order.
func heredocs(name, rest string) (ends []heredoc) {
	if name == "ONBUILD" {
		name, rest = split(rest)
	}
	if !slices.Contains([]string{"RUN", "COPY", "ADD"}, name) {
		return nil
	}
	list, closed := words(rest, '\\')
	if !closed {
		return nil
	}
	for _, word := range list {
		if m := heredocStart.FindStringSubmatch(word); m != nil {
			if name := (&filler{escape: '\\'}).fill(m[2]); name != "" {
				ends = append(ends, heredoc{name, m[1] == "-"})
			}
		}
	}
	return ends
}

const blanks = " \t\v\f\r\n"

// words are parted by blanks outside of quotation marks, which stay in them, but not behind "<<".
// closed reports whether every quotation mark is closed.
func words(line string, escape byte) (list []string, closed bool) {
	start, quote := -1, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		if quote == 0 && strings.IndexByte(blanks, c) >= 0 {
			if start >= 0 {
				list = append(list, line[start:i])
			}
			start = -1
			continue
		}
		if start < 0 {
			start = i
		}
		switch {
		case c == escape && quote != '\'':
			i++
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && strings.HasPrefix(line[i:], "<<"):
			for i++; i+1 < len(line) && strings.IndexByte(blanks, line[i+1]) >= 0; {
				i++
			}
		}
	}
	if start >= 0 {
		list = append(list, line[start:])
	}
	return list, quote == 0
}
