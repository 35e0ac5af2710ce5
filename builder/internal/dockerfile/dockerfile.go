// Package dockerfile reads variables, ports and signals of Dockerfiles, for the check of a request
// and for engines.
package dockerfile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// LineOf is the first line of an instruction, counted from 1, and 0 for none.
func LineOf(where []parser.Range) int {
	if len(where) == 0 {
		return 0
	}
	return where[0].Start.Line
}

var parserPrefix = regexp.MustCompile(`^dockerfile parse error on line \d+: `)

// ParserError returns the line of an error of BuildKit's parser, 0 for none, and the error without it.
func ParserError(err error) (line int, without error) {
	var at *parser.LocationError
	if errors.As(err, &at) && len(at.Locations) > 0 {
		line = LineOf(at.Locations[0])
	}
	return line, errors.New(parserPrefix.ReplaceAllString(err.Error(), ""))
}

// SourceOf is the instruction as the Dockerfile has it, on one line.
func SourceOf(c instructions.Command) string {
	code, _, _ := strings.Cut(fmt.Sprint(c), "\n")
	return code
}

// Environment holds the values of $NAME in a stage: of ENV and ARG, the later one wins, as BuildKit has it (its
// reference says that ENV always wins).
type Environment map[string]string

var _ shell.EnvGetter = Environment{}

// Get implements shell.EnvGetter.
func (e Environment) Get(key string) (string, bool) {
	v, ok := e[key]
	return v, ok
}

// Keys implements shell.EnvGetter.
func (e Environment) Keys() []string { return slices.Collect(maps.Keys(e)) }

// Word fills in the variables of a word, and takes off its quotes.
func (e Environment) Word(word string) (string, error) { return Word(word, e) }

// Words is Word for a text of several words.
func (e Environment) Words(text string) ([]string, error) {
	return shell.NewLex(parser.DefaultEscapeToken).ProcessWords(text, e)
}

// Heredoc expands the text of a file in the Dockerfile, whose quotes mean nothing.
func (e Environment) Heredoc(text string) (string, error) {
	lex := shell.NewLex(parser.DefaultEscapeToken)
	lex.SkipProcessQuotes = true
	v, _, err := lex.ProcessWord(text, e)
	return v, err
}

// Word is [Environment.Word] for any source of values.
func Word(word string, values shell.EnvGetter) (string, error) {
	v, _, err := shell.NewLex(parser.DefaultEscapeToken).ProcessWord(word, values)
	if err != nil {
		// The lexer puts the character that it missed into its message, which may be NUL.
		return "", fmt.Errorf("expand %s: %s", word,
			strings.ReplaceAll(err.Error(), "\x00", "end of line"))
	}
	return v, nil
}

// Ports returns the ports of one word of EXPOSE, such as 8080, 53/udp or 8000-8010, as an image's
// configuration has them: "8080/tcp".
func Ports(spec string) ([]string, error) {
	ports, protocol, ok := strings.Cut(strings.ToLower(spec), "/")
	if !ok {
		protocol = "tcp"
	}
	from, to, ok := strings.Cut(ports, "-")
	if !ok {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil || first > last ||
		!slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return nil, fmt.Errorf("%q is no port: write 8080, 8080/udp or 8000-8010", spec)
	}
	var list []string
	for p := first; p <= last; p++ {
		list = append(list, fmt.Sprintf("%d/%s", p, protocol))
	}
	return list, nil
}

// Describe names the type of a file that is neither a regular one nor a directory or link.
func Describe(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "no regular file"
}
