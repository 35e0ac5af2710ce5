package check

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits that keep a hostile or broken file from taking the build down.
const (
	maxFile     = 16 << 20
	maxSettings = 1_000_000
	maxDepth    = 200
	maxProblems = 100      // of one file
	maxReread   = 32 << 20 // bytes that are read again behind mistakes of one file
	maxKey      = 1024
	maxKeys     = 128 << 20 // bytes of all keys of one file
)

// Kind is the type of a setting's value as far as its format has types.
type Kind string

// The kinds. Formats without types, such as properties, know strings only; there the text of the
// value determines the kind, so that a port that is a word in one environment stands out.
const (
	String Kind = "string"
	Number Kind = "number"
	Bool   Kind = "bool"
	Null   Kind = "null"
	List   Kind = "list"
)

// Setting is one key of a file. Its value is used to compare and is never shown.
type Setting struct {
	// Key is the path to the value, its elements joined by dots, e.g. "spring.datasource.url" or
	// "servers[0].host".
	Key string
	// Kind of the value.
	Kind Kind
	// Line counts from 1; it is 0 where the parser reports no line.
	Line int

	value  string
	secret bool
}

// SyntaxError is a violation of the rules of a file's format. It never quotes a value.
type SyntaxError struct {
	// Line counts from 1; it is 0 where the parser reports no line.
	Line int
	// Msg describes the problem.
	Msg string
}

// Error is the message with the line before it.
func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Msg
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Msg)
}

// sink collects the settings and problems of a parser.
type sink struct {
	settings []Setting
	keys     int // bytes of their keys
	problems []*SyntaxError
	// where in settings a key stands first, in formats that are lists of keys
	first map[string]int
	// some keys are missing, or differ from the format's own names
	partial bool
	// the offset at which the parser of XML stopped
	stopped int
	// names and replacements of the entities of an XML file with a document type
	entities map[string]string
}

// add takes a setting. The error is that there are too many.
func (k *sink) add(s Setting) error {
	s.Key = cutKey(s.Key)
	if k.keys += len(s.Key); len(k.settings) == maxSettings || k.keys > maxKeys {
		return &SyntaxError{s.Line, errTooMany.Error()}
	}
	k.settings = append(k.settings, s)
	return nil
}

// addOnce is add for formats that are lists of keys, in which the last of two equal keys counts:
// that is a problem where their values differ.
func (k *sink) addOnce(s Setting) error {
	if k.first == nil {
		k.first = map[string]int{}
	}
	if i, ok := k.first[s.Key]; !ok {
		k.first[s.Key] = len(k.settings)
	} else if first := &k.settings[i]; first.value != s.value {
		k.note(s.Line, "key %q stands in line %d already", s.Key, first.Line)
	}
	return k.add(s)
}

// note takes a problem after which the file can be read on.
func (k *sink) note(line int, format string, args ...any) {
	if len(k.problems) < maxProblems {
		k.problems = append(k.problems, &SyntaxError{line, fmt.Sprintf(format, args...)})
	}
}

// A parser gives its settings and problems to a sink. Its error is a [SyntaxError] after which it
// cannot go on.
type parser func(data []byte, k *sink) error

var parsers = map[string]parser{
	"properties": parseProperties, "yaml": parseYAML, "json": parseJSON, "toml": parseTOML,
	"xml": parseXML, "ini": parseINI, "dotenv": parseDotenv,
	"conf": parseConf, "shell": parseShell, "code": parseCode, "colons": parseColons,
	"chap": parseCHAP,
}

// Format returns the format of a file by its name: properties, yaml, json, toml, xml, ini, dotenv;
// conf, shell, code, colons or chap for a file that is read line by line, without syntax errors; or
// empty for a file that is compared as a whole.
func Format(name string) string {
	base := strings.ToLower(path.Base(name))
	if base == ".env" || strings.HasPrefix(base, ".env.") || strings.HasSuffix(base, ".env") {
		return "dotenv"
	}
	if format, ok := formats[path.Ext(base)]; ok {
		return format
	}
	if format, ok := formats[base]; ok {
		return format
	}
	if strings.HasPrefix(base, "dockerfile") || strings.HasPrefix(base, "containerfile") {
		return "shell"
	}
	return ""
}

// formats maps endings of names, and whole names, to formats.
var formats = func() map[string]string {
	m := map[string]string{}
	for format, endings := range map[string]string{
		"properties": ".properties",
		"yaml":       ".yaml .yml kubeconfig",
		"json":       ".json .jsonc .json5 .ndjson .jsonl .tfstate .dockercfg",
		"toml":       ".toml",
		"xml":        ".xml",
		"ini": ".ini .cnf .service .socket .timer .pypirc .my.cnf .gitconfig .s3cfg .boto " +
			"credentials",
		"conf": ".conf .cfg .cf .config .hocon .acl .vcl .npmrc .rc .tf .tfvars .hcl .yarnrc " +
			".netrc .curlrc .wgetrc .exp caddyfile msmtprc .msmtprc fetchmailrc .fetchmailrc " +
			"rndc.key",
		"colons": ".pgpass pgpass pgpass.conf sasl_passwd",
		"chap":   "chap-secrets pap-secrets",
		"shell": ".sh .bash .zsh .ksh .dash .profile .bashrc .envrc .bash_profile .cron crontab " +
			".bat .cmd .ps1 .git-credentials",
		"code": ".js .mjs .cjs .ts .jsx .tsx .py .rb .php .go .java .kt .scala .groovy .gradle " +
			".pl .lua " +
			".cs .swift .sql jenkinsfile",
	} {
		for _, ending := range strings.Fields(endings) {
			m[ending] = format
		}
	}
	return m
}()

// tree reports whether the format has keys that can be compared between environments.
func tree(format string) bool {
	switch format {
	case "", "conf", "shell", "code", "colons", "chap":
		return false
	}
	return true
}

var errTooMany = errors.New("more settings than can be checked")

// Parse returns the settings of a file in the order in which they stand there. The error joins a
// [SyntaxError] for each place that breaks the rules of the format; the settings are the readable
// rest of the file. A format that is not known has no settings.
func Parse(format string, data []byte) ([]Setting, error) {
	settings, problems, _ := read(format, data)
	all := make([]error, len(problems))
	for i, p := range problems {
		all[i] = p
	}
	return settings, errors.Join(all...)
}

// read is [Parse]. partial reports that the format's own rules led to a part of the settings only,
// and that the rest was read line by line: keys are missing then, and others differ from the
// format's own names.
func read(format string, data []byte) (settings []Setting, problems []*SyntaxError, partial bool) {
	parse := parsers[format]
	if parse == nil {
		return nil, nil, false
	}
	if len(data) > maxFile {
		return nil, []*SyntaxError{{Msg: fmt.Sprintf("longer than %d bytes", maxFile)}}, true
	}
	k := &sink{}
	data = k.text(format, data)
	if format == "conf" && bytes.HasPrefix(bytes.TrimSpace(data), []byte("<")) && isXML(data) {
		parse = parseXML // web.config and its like
	}
	err := parse(data, k)
	if err == nil {
		return k.settings, k.problems, k.partial
	}
	var fatal *SyntaxError
	if !errors.As(err, &fatal) {
		fatal = &SyntaxError{Msg: "cannot be read as " + format}
	}
	if !templated(data) {
		k.note(fatal.Line, "%s", fatal.Msg)
	}
	k.rest(format, data, fatal.Line)
	return k.settings, k.problems, true
}

// isXML reports whether a file whose name does not say so, and which begins with "<", is XML: the
// sections of Apache's configuration files are written in a similar way.
func isXML(data []byte) bool {
	if bytes.Contains(data, []byte("<?xml")) {
		return true
	}
	k := &sink{}
	return parseXML(data, k) == nil && len(k.problems) == 0
}

// text is the file's text in UTF-8.
func (k *sink) text(format string, data []byte) []byte {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")) && len(data)%2 == 0:
		data = fromUTF16(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte("\xfe\xff")) && len(data)%2 == 0:
		data = fromUTF16(data[2:], binary.BigEndian)
	case format == "xml":
		switch m := encoding.FindSubmatch(data); {
		case m == nil, isUTF8.Match(m[1]):
		case !aboveASCII.Match(m[1]):
			k.note(1, "is in the encoding %q, which is not known here: UTF-8 and those that have "+
				"ASCII in them are", m[1])
		case !utf8.Valid(data):
			return fromLatin1(data)
		}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if format != "properties" && !utf8.Valid(data) {
		if slices.Contains([]string{"yaml", "json", "toml", "xml"}, format) &&
			len(k.problems) == 0 {
			k.note(0, "is not UTF-8")
		}
		return fromLatin1(data)
	}
	return data
}

// rest reads the remainder of a file line by line, from the line on at which its parser stopped.
func (k *sink) rest(format string, data []byte, line int) {
	if format == "xml" {
		left := maxReread
		for range maxProblems { // from behind the token that it stopped at, as a fragment
			done := min(k.stopped, len(data))
			data = append(bytes.Repeat([]byte("\n"), bytes.Count(data[:done], []byte("\n"))),
				data[done:]...)
			left -= len(data)
			if done == 0 || left < 0 || len(bytes.TrimSpace(data)) == 0 ||
				parseXML(data, k) == nil {
				break
			}
		}
		return
	}
	if format != "json" && format != "properties" && format != "dotenv" {
		k.settings, line = nil, 1
	}
	loose := &sink{}
	_ = parseConf(data, loose)
	var lines [][]byte
	if format == "yaml" {
		lines = bytes.Split(data, []byte("\n"))
	}
	for _, s := range loose.settings {
		if 0 < s.Line && s.Line <= len(lines) && blockMark.MatchString(s.value) {
			s.value = blockText(lines[s.Line-1:])
		}
		if s.Line >= line && len(k.settings) < maxSettings {
			k.settings = append(k.settings, s)
		}
	}
}

// blockMark begins a block scalar of YAML (https://yaml.org/spec/1.2.2/#81-block-scalar-styles).
var blockMark = regexp.MustCompile(`^[|>][1-9+-]{0,2}$`)

// blockText returns the first line of the block scalar whose key is in the first of lines. An
// action of a template, such as {{ end }}, counts only where the block has no other line.
func blockText(lines [][]byte) (text string) {
	indent := func(line []byte) int { return len(line) - len(bytes.TrimLeft(line, " ")) }
	for _, line := range lines[1:min(len(lines), maxBlock)] {
		trimmed := string(bytes.TrimSpace(line))
		action := strings.HasPrefix(trimmed, "{{") && strings.HasSuffix(trimmed, "}}")
		switch {
		case trimmed == "":
		case action:
			text = cmp.Or(text, trimmed)
		case indent(line) <= indent(lines[0]):
			return text
		default:
			return trimmed
		}
	}
	return text
}

// maxBlock bounds the lines in which the text of a block scalar is looked for.
const maxBlock = 20

// templated reports whether the file is the template of one, as those of Helm, Jinja and ERB are:
// its rendered text is not known here.
func templated(data []byte) bool {
	for _, marks := range [][2]string{{"{{", "}}"}, {"{%", "%}"}, {"<%", "%>"}} {
		if _, after, ok := bytes.Cut(data, []byte(marks[0])); ok &&
			bytes.Contains(after, []byte(marks[1])) {
			return true
		}
	}
	return false
}

func fromUTF16(data []byte, order binary.ByteOrder) []byte {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// encoding is where XML says in which it is.
var encoding = regexp.MustCompile(
	`^\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']`)

var isUTF8 = regexp.MustCompile(`^(?i:utf-?8|us-ascii|ascii)$`)

// aboveASCII are encodings in which a byte that has a meaning in XML is never a part of another
// character. Read as Latin-1 they have the same elements, and values that are the same where they
// were.
var aboveASCII = regexp.MustCompile(
	`^(?i:iso-?8859-\d+|latin-?\d+|(?:windows|cp)-?125\d|koi8-[ru]|gbk|gb2312|gb18030|big5|shift_jis|euc-(?:jp|kr|cn|tw))$`)

// fromLatin1 is text of a byte a character in UTF-8.
func fromLatin1(data []byte) []byte {
	out := make([]byte, 0, len(data)+len(data)/8)
	for _, c := range data {
		out = utf8.AppendRune(out, rune(c))
	}
	return out
}

// kindOf returns the kind of a value in a format without types.
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

// Join returns the key of an element below prefix, which may be empty. It is cut at 1024 bytes, so
// that a long name is not copied for each of a million settings below it.
func Join(prefix, key string) string {
	if prefix == "" {
		return cutKey(key)
	}
	if len(prefix) >= maxKey {
		return prefix
	}
	return cutKey(prefix + "." + key)
}

func cutKey(key string) string {
	if len(key) <= maxKey {
		return key
	}
	return strings.ToValidUTF8(key[:maxKey], "")
}
