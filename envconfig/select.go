package envconfig

import (
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
)

// DefaultVariable is the environment variable that selects the environment when no other name was configured.
const DefaultVariable = "DEPLOY_ENV"

// checkStored returns nil when a manifest may have an environment of that name, else why not. Names
// of new environments are held to names.Environment; a manifest from before that grammar may also
// have names that end in a hyphen, and its image must go on starting.
func checkStored(name string) error {
	if stem, ok := strings.CutSuffix(name, "-"); ok && names.Environment(stem+"0") == nil {
		return nil
	}
	return names.Environment(name)
}

// Select returns the environment of that name. The name is taken as it is: nothing is trimmed, folded or guessed. The
// error matches [ErrUnknownEnvironment] when the name is empty, malformed or not in the manifest, and [ErrIncomplete]
// when the environment has no files or lacks required ones.
func (m *Manifest) Select(name string) (*Environment, error) {
	env := m.Environments[name]
	if problem := m.selectProblem(name); problem != "" {
		return nil, &UnknownEnvironmentError{
			Name: name, Reason: problem, Known: m.Names(), Nearest: nearest(name, m.Names()),
		}
	}
	return env, m.complete(env)
}

// selectProblem returns why name selects nothing, or "".
func (m *Manifest) selectProblem(name string) string {
	if name == "" {
		return "no name given"
	}
	if err := checkStored(name); err != nil {
		return strings.TrimPrefix(err.Error(), "environment "+names.Quote(name)+": ")
	}
	if m.Environments[name] == nil {
		return "not in the manifest"
	}
	return ""
}

// nearest is the name that a person who typed name most likely meant, or empty.
func nearest(name string, known []string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" || len(name) > names.MaxEnvironment {
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
