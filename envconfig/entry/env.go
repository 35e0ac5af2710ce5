package entry

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Environ selects the variables of this process that a service gets, and sets others.
type Environ struct {
	// Pristine passes on nothing but Set. The default is false.
	Pristine bool
	// Unset are patterns as in [path.Match]; variables with such names are left out.
	Unset []string
	// Set are NAME=VALUE, put in last, in place of earlier values. Of several for the same name the
	// last counts.
	Set []string
}

// Apply returns the variables for the service; env is left as it is.
func (e *Environ) Apply(env []string) []string {
	out := make([]string, 0, len(env)+len(e.Set))
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if !e.Pristine && !e.leavesOut(name) {
			out = append(out, kv)
		}
	}
	for i, kv := range e.Set {
		if name, _, _ := strings.Cut(kv, "="); !sets(e.Set[i+1:], name) {
			out = append(out, kv)
		}
	}
	return out
}

func sets(all []string, name string) bool {
	return slices.ContainsFunc(all, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
}

func (e *Environ) leavesOut(name string) bool {
	if sets(e.Set, name) {
		return true
	}
	return slices.ContainsFunc(e.Unset, func(pattern string) bool {
		ok, _ := path.Match(pattern, name)
		return ok
	})
}

// Validate returns all problems at once: patterns that are malformed, and elements of Set that name
// no variable. The errors match [ErrInvalid] and do not repeat the values of Set, which may be
// secrets.
func (e *Environ) Validate() error {
	var problems []error
	for i, pattern := range e.Unset {
		if _, err := path.Match(pattern, ""); err != nil {
			problems = append(problems, bad(fmt.Sprintf("Environ.Unset[%d]: %.64q", i, pattern),
				"a pattern"))
		}
	}
	for i, kv := range e.Set {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" || strings.ContainsRune(kv, 0) {
			problems = append(problems, bad(fmt.Sprintf("Environ.Set[%d]", i), "NAME=VALUE"))
		}
	}
	return errors.Join(problems...)
}

// Lookup returns the value of a variable in env, which holds NAME=VALUE as [os.Environ] does, and
// reports whether it is set. Of several for the same name the first counts, as in the C library.
func Lookup(env []string, name string) (value string, set bool) {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value, true
		}
	}
	return "", false
}
