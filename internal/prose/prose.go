// Package main counts the comment lines whose clauses have no noun ("what is sent", "those that
// wait", "somebody") and the lines of Go code over 100 columns, and fails when a share is over its
// limit. make check runs it.
//
//	go run ./internal/prose -clauses 1 -long 1 [-list] FILE...
//
// The limits are percentages. -list prints each line that counts, as file:line: text.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"
)

// columns is the width of a line, where a tab is as wide as four characters.
const columns = 100

// nounless finds clauses that point at a thing or a person in place of its name. A question of a
// heading or "what to do" is allowed.
var nounless = regexp.MustCompile(
	`(?i)\b(what(ever)?\b|who(ever|m|mever)?\b|those (that|who|which)\b|` +
		`(some|any|no)body\b|anew\b|for ever\b|in doubt\b|on (its|their|the) way\b|(is|are|was|be) told\b|tells?\b)`)

var allowed = regexp.MustCompile(`(?i)what to do|whatwg`)

// counts are the figures of some files.
type counts struct {
	comments, clauses int // lines that are a comment, and among them those with a nounless clause
	lines, long       int // all lines, and among them those over the columns
}

func (c *counts) add(o counts) {
	c.comments, c.clauses = c.comments+o.comments, c.clauses+o.clauses
	c.lines, c.long = c.lines+o.lines, c.long+o.long
}

// count reads one file's text. found gets each line that counts, with its number from 1 and the
// reason; nil for none.
func count(src string, found func(line int, reason, text string)) counts {
	var c counts
	for i, line := range strings.Split(strings.TrimSuffix(src, "\n"), "\n") {
		c.lines++
		text := strings.TrimSpace(line)
		report := func(reason string) {
			if found != nil {
				found(i+1, reason, text)
			}
		}
		if utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")) > columns {
			c.long++
			report("long")
		}
		if comment, ok := strings.CutPrefix(text, "//"); ok {
			c.comments++
			if nounless.MatchString(allowed.ReplaceAllString(comment, "")) {
				c.clauses++
				report("clause")
			}
		}
	}
	return c
}

// share is the percentage of part in whole; 0 of nothing.
func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("prose", flag.ContinueOnError)
	flags.SetOutput(stderr)
	clauses := flags.Float64("clauses", 1, "largest percentage of comment lines with a nounless "+
		"clause")
	long := flags.Float64("long", 1, "largest percentage of lines over 100 columns")
	list := flags.Bool("list", false, "print each line that counts")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var total counts
	for _, name := range flags.Args() {
		src, err := os.ReadFile(name)
		if err != nil {
			fmt.Fprintln(stderr, "prose:", err)
			return 2
		}
		var found func(int, string, string)
		if *list {
			found = func(line int, reason, text string) {
				fmt.Fprintf(stdout, "%s:%d: %s: %s\n", name, line, reason, text)
			}
		}
		total.add(count(string(src), found))
	}
	c, l := share(total.clauses, total.comments), share(total.long, total.lines)
	fmt.Fprintf(stdout, "prose: %d of %d comment lines have a nounless clause (%.2f %%), %d of "+
		"%d lines are over %d columns (%.2f %%)\n",
		total.clauses, total.comments, c, total.long, total.lines, columns, l)
	if c > *clauses || l > *long {
		fmt.Fprintf(stderr, "prose: want at most %g %% and %g %%: name the thing in place of "+
			"\"what …\", break long lines; -list shows them\n",
			*clauses, *long)
		return 1
	}
	return 0
}
