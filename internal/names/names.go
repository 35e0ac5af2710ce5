// Package names holds the grammar of the names that the packages of this module share: one function
// for each word, so that a name that one package accepts is accepted by all of them.
//
//	word         length  bytes                                   begins with    ends with
//	cluster      1-63    a-z 0-9, single separators . _ __ -...  letter, digit  letter, digit
//	version      1-63    A-Z a-z 0-9 . _ -                       letter, digit  letter, digit
//	task         1-63    A-Z a-z 0-9 . _ -                       letter, digit  letter, digit
//	environment  1-32    a-z 0-9 -                               letter         letter, digit
//	instance     1-128   A-Z a-z 0-9 . _ - :                     letter, digit  letter, digit
//
// A cluster is at once a Consul service name, an Nginx upstream (Nginx compares upstream names
// without regard to case, so there are no capitals), a Kubernetes label value and a path component
// of an OCI repository. A version is an OCI tag and a Kubernetes label value. Where a system takes
// DNS labels only, [DNSLabel] maps any name to one.
//
// Check a name where it enters the system. Records written under an older grammar stay readable: a
// reader does not call these functions, or sets aside only the record with the bad name.
package names

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The greatest lengths of names, in bytes.
const (
	MaxCluster     = 63
	MaxVersion     = 63
	MaxTask        = 63
	MaxEnvironment = 32
	MaxInstance    = 128
)

const separators = "._-"

// grammar is the set of names that one word admits. Every name ends with a letter or digit.
type grammar struct {
	word    string
	max     int
	upper   bool   // upper-case letters are letters
	alpha   bool   // the first byte is a letter, not a digit
	strict  bool   // separators follow an OCI repository component: ".", "_", "__" or a run of "-"
	marks   string // the bytes that are neither letters nor digits
	allowed string
}

var (
	cluster = grammar{word: "cluster", max: MaxCluster, marks: separators, strict: true,
		allowed: "1 to 63 lower-case letters, digits and single separators (., _, __ or a run of " +
			"-), " +
			"with a letter or digit at both ends"}
	version = grammar{word: "version", max: MaxVersion, upper: true, marks: separators,
		allowed: "1 to 63 letters, digits, '.', '_' or '-', with a letter or digit at both ends"}
	task = grammar{word: "task", max: MaxTask, upper: true, marks: separators,
		allowed: "1 to 63 letters, digits, '.', '_' or '-', with a letter or digit at both ends"}
	environment = grammar{word: "environment", max: MaxEnvironment, alpha: true, marks: "-",
		allowed: "1 to 32 lower-case letters, digits or '-', " +
			"with a letter in front and a letter or digit at the end"}
	instance = grammar{word: "instance", max: MaxInstance, upper: true, marks: separators + ":",
		allowed: "1 to 128 letters, digits, '.', '_', '-' or ':', with a letter or digit at both " +
			"ends"}
)

// reserved are environments to which other tools give a meaning of their own, so that a slip would
// select them silently.
var reserved = []string{"default", "local"}

// Cluster returns nil when s is the name of a cluster, else an error that quotes s, names the first
// bad byte (counted from 1) and lists the allowed bytes.
func Cluster(s string) error { return cluster.check(s) }

// Version is [Cluster] for versions. A version with the "+" of a semantic version's build metadata
// is refused, because an OCI tag cannot hold it.
func Version(s string) error { return version.check(s) }

// Task is [Cluster] for test tasks.
func Task(s string) error { return task.check(s) }

// Environment is [Cluster] for environments. The words "default" and "local" are reserved.
func Environment(s string) error {
	if slices.Contains(reserved, s) {
		return fmt.Errorf("environment %q: the word is reserved: choose another", s)
	}
	return environment.check(s)
}

// Instance is [Cluster] for the ids of instances.
func Instance(s string) error { return instance.check(s) }

// check is the same scan for every word.
func (g *grammar) check(s string) error {
	if s == "" {
		return g.bad(s, "is empty")
	}
	if len(s) > g.max {
		return g.bad(s, fmt.Sprintf("has %d bytes", len(s)))
	}
	for i := range len(s) {
		if why := g.at(s, i); why != "" {
			return g.bad(s, fmt.Sprintf("byte %d %s", i+1, why))
		}
	}
	return nil
}

// at returns the problem of the byte s[i], or "".
func (g *grammar) at(s string, i int) string {
	c := s[i]
	switch {
	case isLower(c), isUpper(c) && g.upper:
		return ""
	case isUpper(c):
		return fmt.Sprintf("is the capital %q", c)
	case isDigit(c) && g.alpha && i == 0:
		return fmt.Sprintf("is %q: the first one has to be a letter", c)
	case isDigit(c):
		return ""
	case c == '+' && g.word == version.word:
		return "is '+': write '_' in its place"
	case c >= utf8.RuneSelf:
		return "is " + firstRune(s[i:])
	case strings.IndexByte(g.marks, c) < 0:
		return fmt.Sprintf("is %q", c)
	case i == 0:
		return fmt.Sprintf("is %q: the first one has to be a letter%s", c,
			unless(g.alpha, " or digit"))
	case i == len(s)-1:
		return fmt.Sprintf("is %q: the last one has to be a letter or digit", c)
	case g.strict && !joins(s, i):
		return fmt.Sprintf("is %q after %q: separators do not touch", c, s[i-1])
	}
	return ""
}

// joins reports whether the separator s[i], which is not the first byte, may follow s[i-1]: "__"
// and a run of "-" are one separator.
func joins(s string, i int) bool {
	switch before := s[i-1]; {
	case strings.IndexByte(separators, before) < 0:
		return true
	case s[i] == '-':
		return before == '-'
	case s[i] == '_':
		return before == '_' && (i < 2 || s[i-2] != '_')
	}
	return false
}

func (g *grammar) bad(s, why string) error {
	return fmt.Errorf("%s %s: %s: want %s", g.word, Quote(s), why, g.allowed)
}

// firstRune shows the character at the beginning of s, or its first byte where s is not UTF-8.
func firstRune(s string) string {
	if r, _ := utf8.DecodeRuneInString(s); r != utf8.RuneError {
		return strconv.QuoteRuneToASCII(r)
	}
	return fmt.Sprintf("0x%02x", s[0])
}

// Quote returns untrusted text for a message: quoted, in ASCII, and cut after 64 bytes, which three
// dots behind the quotes show.
func Quote(s string) string {
	const limit = 64
	if len(s) > limit {
		return strconv.QuoteToASCII(s[:limit]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

func unless(b bool, s string) string {
	if b {
		return ""
	}
	return s
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
