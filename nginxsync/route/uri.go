package route

import (
	"fmt"
	"strings"
)

// normalize splits and decodes a request's path as Nginx does: percent signs, ".", "..", and runs
// of slashes when they are merged. It reports false for a path that Nginx answers with 400.
func normalize(raw string, merge bool) (path, args string, ok bool) {
	raw, args, _ = strings.Cut(raw, "?")
	var decoded strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c < ' ' || c == 0x7f {
			return "", "", false
		}
		if c == '%' {
			if i+2 >= len(raw) {
				return "", "", false
			}
			high, low := unhex(raw[i+1]), unhex(raw[i+2])
			if high < 0 || low < 0 || high == 0 && low == 0 {
				return "", "", false
			}
			c = byte(high<<4 | low)
			i += 2
		}
		decoded.WriteByte(c)
	}
	// A path that ends in "." or ".." names a directory.
	segments := strings.Split(decoded.String(), "/")[1:]
	var out []string
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case s == ".." && len(out) == 0:
			return "", "", false
		case s == "..":
			out = out[:len(out)-1]
			if last {
				out = append(out, "")
			}
		case s == ".":
			if last {
				out = append(out, "")
			}
		case s == "" && !last && merge:
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/"), args, true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// escape writes a decoded path as Nginx writes it into a request line.
func escape(path string) string { return escapeBytes(path, " \"#%<>?\\^`{|}") }

// escapeBytes writes control bytes, those above ASCII and the given ones with percent signs.
func escapeBytes(text, special string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f || strings.IndexByte(special, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescapeRedirect decodes the path of a redirect by rewrite as Nginx does: it decodes percent
// signs for bytes above the percent sign itself and below 0x7f. A percent sign without two
// hexadecimal digits is lost.
func unescapeRedirect(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '?' {
			b.WriteString(path[i:])
			break
		}
		if path[i] != '%' {
			b.WriteByte(path[i])
			continue
		}
		if i+1 < len(path) && unhex(path[i+1]) < 0 {
			continue // only the percent sign goes
		}
		if i+2 < len(path) && unhex(path[i+2]) >= 0 {
			if c := unhex(path[i+1])<<4 | unhex(path[i+2]); c > '%' && c < 0x7f {
				b.WriteByte(byte(c))
			} else {
				b.WriteString(path[i : i+3])
			}
		}
		i += 2
	}
	return b.String()
}
