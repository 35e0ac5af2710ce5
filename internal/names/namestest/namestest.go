// Package namestest holds good and bad samples of the names of package names. Each package that
// takes names runs them through its public entrances, so that all of them agree.
package namestest

import (
	"slices"
	"strings"
	"testing"
)

// Word is one of the words that have a grammar.
type Word string

// The words of package names.
const (
	Cluster     Word = "cluster"
	Version     Word = "version"
	Task        Word = "task"
	Environment Word = "environment"
	Instance    Word = "instance"
)

// Words returns all words.
func Words() []Word { return []Word{Cluster, Version, Task, Environment, Instance} }

// Sample is a name and whether it is a good one.
type Sample struct {
	Word Word
	Case string // for the name of a subtest: lower-case words
	Name string
	Good bool
}

// Of returns the samples of one word. Every entrance that takes this word accepts the good ones and
// refuses the bad ones, the empty name included; an entrance where a name may be left out does not
// run the sample "empty".
func Of(word Word) []Sample {
	return slices.DeleteFunc(Samples(), func(s Sample) bool { return s.Word != word })
}

// Run calls check with each sample of word, in a subtest of its own. It fails where check refuses a
// good name or accepts a bad one. check returns the error of the entrance under test; an error
// that has nothing to do with the name has to be avoided by check. except are cases to leave out.
func Run(t *testing.T, word Word, check func(name string) error, except ...string) {
	t.Helper()
	for _, s := range Of(word) {
		if slices.Contains(except, s.Case) {
			continue
		}
		t.Run(string(word)+" "+s.Case, func(t *testing.T) {
			switch err := check(s.Name); {
			case s.Good && err != nil:
				t.Errorf("%s %.80q is good, got the error %v", word, s.Name, err)
			case !s.Good && err == nil:
				t.Errorf("%s %.80q is bad, got no error", word, s.Name)
			}
		})
	}
}

// Samples returns the samples of all words.
func Samples() []Sample {
	var all []Sample
	add := func(good bool, cases map[string]string, words ...Word) {
		for _, word := range words {
			for name, value := range cases {
				all = append(all, Sample{Word: word, Case: name, Name: value, Good: good})
			}
		}
	}
	add(true, good, Words()...)
	add(false, bad, Words()...)
	add(true, goodSeparated, Cluster, Version, Task, Instance)
	add(false, goodSeparated, Environment)
	add(true, goodFree, Version, Task, Instance)
	add(false, goodFree, Cluster, Environment)
	add(true, goodID, Instance)
	add(false, goodID, Cluster, Version, Task, Environment)
	add(false, reserved, Environment)
	add(true, reserved, Cluster, Version, Task, Instance)
	for word, limit := range map[Word]int{Cluster: 63, Version: 63, Task: 63, Environment: 32,
		Instance: 128} {
		add(true, map[string]string{"longest": strings.Repeat("a", limit)}, word)
		add(false, map[string]string{"too long": strings.Repeat("a", limit+1)}, word)
	}
	slices.SortFunc(all, func(a, b Sample) int {
		if c := strings.Compare(string(a.Word), string(b.Word)); c != 0 {
			return c
		}
		return strings.Compare(a.Case, b.Case)
	})
	return all
}

var (
	good = map[string]string{
		"plain":             "hello",
		"one letter":        "a",
		"hyphen":            "hello-web",
		"run of hyphens":    "a---b",
		"digits inside":     "web2",
		"begins like a DNS": "xn--a",
	}
	goodSeparated = map[string]string{ // no environments
		"underscore":        "hello_web",
		"double underscore": "hello__web",
		"dot":               "hello.web",
		"begins with digit": "2048",
		"dotted version":    "1.2.3-rc.1",
		"mixed separators":  "a.b_c-d__e",
	}
	goodFree = map[string]string{ // no clusters and no environments
		"capital":             "Hello_Web",
		"last capital":        "webX",
		"two dots":            "a..b",
		"dot and hyphen":      "a.-b",
		"three underscores":   "a___b",
		"hyphen and dot":      "a-.b",
		"underscore and dash": "a_-b",
	}
	goodID = map[string]string{ // instances only
		"host and port": "10.0.0.7:8080",
		"colons":        "hello:test:t1:2",
	}
	reserved = map[string]string{
		"reserved default": "default",
		"reserved local":   "local",
	}
	bad = map[string]string{
		"empty":                "",
		"space":                "hello web",
		"space in front":       " hello",
		"space at the end":     "hello ",
		"space only":           " ",
		"newline inside":       "a\nb",
		"newline at the end":   "hello\n",
		"tab":                  "a\tb",
		"zero byte":            "a\x00b",
		"DEL":                  "a\x7fb",
		"slash":                "a/b",
		"dot only":             ".",
		"parent directory":     "..",
		"path upwards":         "../etc",
		"backslash":            `a\b`,
		"quote":                `a"b`,
		"single quote":         "a'b",
		"dollar":               "a$b",
		"braces":               "{{a}}",
		"semicolon":            "a;b",
		"plus":                 "1.0+build5",
		"at sign":              "a@b",
		"percent":              "a%2fb",
		"equals":               "a=b",
		"comma":                "a,b",
		"star":                 "a*",
		"non-ASCII letter":     "hellö",
		"Chinese":              "商品",
		"look-alike letter":    "hell\u043e", // Cyrillic o
		"zero-width space":     "a\u200bb",
		"right-to-left mark":   "a\u202eb",
		"combining accent":     "a\u0301b",
		"invalid UTF-8":        "a\xffb",
		"begins with hyphen":   "-a",
		"ends with hyphen":     "a-",
		"begins with dot":      ".a",
		"ends with dot":        "a.",
		"begins with underbar": "_a",
		"ends with underbar":   "a_",
		"begins with colon":    ":8080",
		"ends with colon":      "a:",
		"hyphen only":          "-",
		"very long":            strings.Repeat("a", 1<<16),
	}
)
