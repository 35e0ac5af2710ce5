package promote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-deploy/sluice/internal/names"
)

// problems are the faults of one input. Each wraps ErrInvalid.
type problems []error

func (l *problems) add(format string, args ...any) {
	*l = append(*l, fmt.Errorf(format+": %w", append(args, ErrInvalid)...))
}

// check adds err, where it is not nil, as a problem.
func (l *problems) check(err error) {
	if err != nil {
		*l = append(*l, fmt.Errorf("%w: %w", err, ErrInvalid))
	}
}

// within adds the errors that err joins, each behind the field where they were found. They wrap
// ErrInvalid already, unless a gate of an embedder does not.
func (l *problems) within(field string, err error) {
	for _, err := range split(err) {
		if errors.Is(err, ErrInvalid) {
			*l = append(*l, fmt.Errorf("%s: %w", field, err))
		} else {
			*l = append(*l, fmt.Errorf("%s: %w: %w", field, err, ErrInvalid))
		}
	}
}

// split returns the errors that errors.Join has joined, whose text has one line for each; else err
// alone, or nothing for nil.
func split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	return joined.Unwrap()
}

// prefix returns the problems, each with its subject in front.
func (l problems) prefix(about string) []error {
	list := make([]error, len(l))
	for i, err := range l {
		list[i] = fmt.Errorf("%s: %w", about, err)
	}
	return list
}

// err returns all problems of an operation joined, or nil.
func (l problems) err(op string) error { return errors.Join(l.prefix(op)...) }

// environments holds the environments that a gate is set up for against the pipeline: a misspelt
// one would let all changes pass.
func (l *problems) environments(p Pipeline, environments []string) {
	for _, environment := range environments {
		if p.Index(environment) < 0 {
			l.add("environment %s: the pipeline has %s", names.Quote(environment),
				strings.Join(p, ", "))
		}
	}
}

// place checks that a target's environment is in the pipeline and that it has a task only where
// tasks are.
func (l *problems) place(p Pipeline, t Target) {
	l.environments(p, []string{t.Environment})
	if t.Task != "" && p.Index(t.Environment) > 0 {
		l.add("task %s in environment %s: only %s runs tasks side by side: leave the task empty",
			names.Quote(t.Task), t.Environment, p[0])
	}
}

// oldName is a name that its grammar refuses, and whether the journal has it all the same.
type oldName struct {
	err   error
	known func(*state) bool
}

// checkNames returns the problems of the cluster, the task and the version of a request; it skips
// an empty task or version. It accepts each name that the journal has, so that versions bound or
// deployed under an older grammar stay usable.
func (p *Promoter) checkNames(ctx context.Context, t Target, version string) (problems, error) {
	bad := []oldName{{names.Cluster(t.Cluster),
		func(s *state) bool { return s.clusters[t.Cluster] != nil }}}
	if t.Task != "" {
		bad = append(bad, oldName{names.Task(t.Task), func(s *state) bool { return s.knows(t) }})
	}
	if version != "" {
		bad = append(bad, oldName{names.Version(version), func(s *state) bool {
			_, ok := s.clusters[t.Cluster].bound(version)
			return ok
		}})
	}
	bad = slices.DeleteFunc(bad, func(n oldName) bool { return n.err == nil })
	if len(bad) == 0 {
		return nil, nil
	}
	var list problems
	err := p.view(ctx, func(s *state) {
		for _, n := range bad {
			if !n.known(s) {
				list.check(n.err)
			}
		}
	})
	return list, err
}

// texts checks the two texts that people write: a journal, a log line and a page have to show them.
func (l *problems) texts(actor, reason string) {
	l.check(names.Actor(actor))
	l.reason("reason", reason)
}

func (l *problems) reason(field, text string) {
	if len(text) > maxText || !utf8.ValidString(text) {
		l.add("%s of %d bytes: want valid UTF-8 of at most %d bytes", field, len(text), maxText)
	}
}

// actors checks a list of names.
func (l *problems) actors(field string, actors []string) {
	for i, actor := range actors {
		if err := names.Actor(actor); err != nil {
			l.add("%s[%d]: %w", field, i, err)
		}
	}
}

// wanted checks that a text is there.
func (l *problems) wanted(field, text, why string) {
	if strings.TrimSpace(text) == "" {
		l.add("%s: empty: want %s", field, why)
	}
}

// facts checks the free facts of a request.
func (l *problems) facts(facts map[string]string) {
	if len(facts) > maxFacts {
		l.add("facts: %d: want up to %d", len(facts), maxFacts)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(facts)) {
		switch value := facts[key]; {
		case key == "" || len(key) > maxFactKey || !utf8.ValidString(key):
			l.add("facts[%s]: want a key of 1 to %d bytes of UTF-8", names.Quote(key), maxFactKey)
		case len(value) > maxFact || !utf8.ValidString(value):
			l.add("facts[%s] of %d bytes: want valid UTF-8 of at most %d bytes", names.Quote(key),
				len(value), maxFact)
		}
	}
}

// key checks an idempotency key.
func (l *problems) key(s string) {
	if len(s) > maxKey || !utf8.ValidString(s) {
		l.add("key of %d bytes: want valid UTF-8 of at most %d bytes", len(s), maxKey)
	}
}

func (l *problems) digest(d Digest) {
	if _, err := ParseDigest(string(d)); err != nil {
		*l = append(*l, err)
	}
}

func (l *problems) expect(d Digest) {
	switch d {
	case None, Any:
		return
	case "":
		l.add("expect: empty: want the digest that is current, %q for nothing, or %q", None, Any)
		return
	}
	var own problems
	own.digest(d)
	*l = append(*l, own.prefix("expect")...)
}

var repositoryRE = regexp.MustCompile(
	`^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)

func (l *problems) repository(s string) {
	if !repositoryRE.MatchString(s) {
		l.add("repository %s: want registry/path without tag or digest", names.Quote(s))
	}
}
