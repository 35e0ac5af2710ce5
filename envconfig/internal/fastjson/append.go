package fastjson

import (
	"fmt"
	"strings"
)

// AppendText appends s as a JSON string. Bytes beyond ASCII are appended as they are: s has to be
// UTF-8.
func AppendText(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range []byte(s) {
		switch {
		case c == '"', c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// AppendTexts appends all as a JSON array of strings.
func AppendTexts(b []byte, all []string) []byte {
	return AppendList(b, len(all), func(b []byte, i int) []byte { return AppendText(b, all[i]) })
}

// AppendList appends a JSON array of n elements; item appends the element i.
func AppendList(b []byte, n int, item func(b []byte, i int) []byte) []byte {
	b = append(b, '[')
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(b, i)
	}
	return append(b, ']')
}

// Compact returns data, which has to be JSON, without the blanks between its tokens: the form that
// json.Marshal gives.
func Compact(data string) []byte {
	out, quoted := make([]byte, 0, len(data)), false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\' && i+1 < len(data):
			out = append(out, c, data[i+1])
			i++
			continue
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			continue
		}
		out = append(out, data[i])
	}
	return out
}
