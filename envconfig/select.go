package envconfig

import (
	"slices"
	"strings"
)

// DefaultVariable is the environment variable that selects the environment when no other name was configured.
const DefaultVariable = "DEPLOY_ENV"

// maxName keeps an environment's name usable as a DNS label together with a prefix.
const maxName = 32

// reserved are names that other tools give a meaning of their own, so that a slip would select them silently.
var reserved = []string{"default", "local"}

// nameProblem says what keeps name from being the name of an environment, or is empty. A name is a lower-case letter
// followed by lower-case letters, digits and hyphens, 32 bytes at most.
func nameProblem(name string) string {
	switch {
	case name == "":
		return "no name given"
	case len(name) > maxName:
		return "longer than 32 bytes"
	case name[0] < 'a' || name[0] > 'z':
		return "must begin with a lower-case letter"
	case slices.Contains(reserved, name):
		return "is a reserved name"
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "may hold lower-case letters, digits and hyphens only"
		}
	}
	return ""
}

// Select returns the environment of that name. The name is taken as it is: nothing is trimmed, folded or guessed. The
// error matches [ErrUnknownEnvironment] when the name is empty, malformed or not in the manifest, and [ErrIncomplete]
// when the environment has no files or lacks required ones.
func (m *Manifest) Select(name string) (*Environment, error) {
	problem := nameProblem(name)
	env := m.Environments[name]
	if problem == "" && env == nil {
		problem = "not in the manifest"
	}
	if problem != "" {
		return nil, &UnknownEnvironmentError{Name: name, Reason: problem, Known: m.Names(), Nearest: nearest(name, m.Names())}
	}
	return env, m.complete(env)
}

// nearest is the name that a person who typed name most likely meant, or empty.
func nearest(name string, known []string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" || len(name) > maxName {
		return ""
	}
	best, bestDistance := "", max(1, (len(name)+1)/2)+1
	for _, k := range known {
		d := distance(name, k)
		if strings.HasPrefix(k, name) || strings.HasPrefix(name, k) {
			d = 1
		}
		if d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the number of insertions, deletions and substitutions that turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
