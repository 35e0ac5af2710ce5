package check

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Limits that keep a hostile or broken file from taking the build down.
const (
	maxFile     = 16 << 20
	maxSettings = 1_000_000
	maxDepth    = 200
)

// Kind is the type of a setting's value as far as its format has types.
type Kind string

// The kinds. Formats without types, such as properties, know strings only; there the kind is told by how the value reads,
// so that a port that is a word in one environment stands out.
const (
	String Kind = "string"
	Number Kind = "number"
	Bool   Kind = "bool"
	Null   Kind = "null"
	List   Kind = "list"
)

// Setting is one key of a file. Its value is used to compare and is never shown.
type Setting struct {
	// Key is the path to the value, its elements joined by dots, e.g. "spring.datasource.url" or "servers[0].host".
	Key string
	// Kind of the value.
	Kind Kind
	// Line counts from 1; 0 where the parser does not tell.
	Line int

	value string
}

// SyntaxError says where a file breaks the rules of its format. It never quotes a value.
type SyntaxError struct {
	// Line counts from 1; 0 where the parser does not tell.
	Line int
	// Msg says what is wrong.
	Msg string
}

// Error is the message with the line before it.
func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Msg
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Msg)
}

type parser func(data []byte, add func(Setting) error) error

var parsers = map[string]parser{
	"properties": parseProperties, "yaml": parseYAML, "json": parseJSON, "toml": parseTOML, "xml": parseXML, "ini": parseINI, "dotenv": parseDotenv,
}

// Format tells the format of a file from its name: properties, yaml, json, toml, xml, ini, dotenv, or empty for a file that
// is compared as a whole.
func Format(name string) string {
	base := path.Base(name)
	if base == ".env" || strings.HasPrefix(base, ".env.") || strings.HasSuffix(base, ".env") {
		return "dotenv"
	}
	switch ext := strings.ToLower(path.Ext(base)); ext {
	case ".properties", ".json", ".toml", ".xml", ".ini":
		return ext[1:]
	case ".yaml", ".yml":
		return "yaml"
	}
	return ""
}

var errTooMany = errors.New("more settings than can be checked")

// Parse returns the settings of a file in the order in which they stand there. The error is a [SyntaxError]. A format that
// is not known has no settings.
func Parse(format string, data []byte) ([]Setting, error) {
	parse := parsers[format]
	if parse == nil {
		return nil, nil
	}
	if len(data) > maxFile {
		return nil, &SyntaxError{Msg: fmt.Sprintf("longer than %d bytes", maxFile)}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if format == "xml" {
		switch m := encoding.FindSubmatch(data); {
		case m == nil, isUTF8.Match(m[1]):
		case !aboveASCII.Match(m[1]):
			return nil, &SyntaxError{1, fmt.Sprintf("is in the encoding %q, which is not known here: UTF-8 and those that have ASCII in them are", m[1])}
		case !utf8.Valid(data):
			data = fromLatin1(data)
		}
	}
	if format != "properties" && !utf8.Valid(data) {
		return nil, &SyntaxError{Msg: "is not UTF-8"}
	}
	var settings []Setting
	seen := map[string]int{}
	err := parse(data, func(s Setting) error {
		if len(settings) == maxSettings {
			return &SyntaxError{s.Line, errTooMany.Error()}
		}
		if first, ok := seen[s.Key]; ok && format != "xml" {
			return &SyntaxError{s.Line, fmt.Sprintf("key %q stands in line %d already", s.Key, first)}
		}
		seen[s.Key] = s.Line
		settings = append(settings, s)
		return nil
	})
	var syntax *SyntaxError
	if err != nil && !errors.As(err, &syntax) {
		err = &SyntaxError{Msg: "cannot be read as " + format}
	}
	return settings, err
}

// encoding is where XML says in which it is.
var encoding = regexp.MustCompile(`^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']`)

var isUTF8 = regexp.MustCompile(`^(?i:utf-?8|us-ascii|ascii)$`)

// aboveASCII are encodings in which a byte that has a meaning in XML is never a part of another character. Read as Latin-1 they
// have the same elements, and values that are the same where they were.
var aboveASCII = regexp.MustCompile(`^(?i:iso-?8859-\d+|latin-?\d+|(?:windows|cp)-?125\d|koi8-[ru]|gbk|gb2312|gb18030|big5|shift_jis|euc-(?:jp|kr|cn|tw))$`)

// fromLatin1 is text of a byte a character in UTF-8.
func fromLatin1(data []byte) []byte {
	out := make([]byte, 0, len(data)+len(data)/8)
	for _, c := range data {
		out = utf8.AppendRune(out, rune(c))
	}
	return out
}

// kindOf tells the kind of a value in a format without types.
func kindOf(value string) Kind {
	switch value {
	case "true", "false":
		return Bool
	case "":
		return String
	}
	digits := 0
	for i, c := range []byte(value) {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case (c == '-' || c == '+') && i == 0, c == '.' && strings.Count(value, ".") == 1:
		default:
			return String
		}
	}
	if digits == 0 {
		return String
	}
	return Number
}

// Join is the key of what stands below prefix, which may be empty.
func Join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}
