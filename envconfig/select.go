package envconfig

import (
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/nearest"
	"github.com/sluice-deploy/sluice/internal/names"
)

// DefaultVariable is the environment variable that selects the environment when no other name was
// configured.
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

// Select returns the environment of that name. The name is taken as it is: nothing is trimmed,
// folded or guessed. The error matches [ErrUnknownEnvironment] when the name is empty, malformed or
// not in the manifest, and [ErrIncomplete] when the environment has no files or lacks required
// ones.
func (m *Manifest) Select(name string) (*Environment, error) {
	env := m.Environments[name]
	if problem := m.selectProblem(name); problem != "" {
		return nil, &UnknownEnvironmentError{
			Name: name, Reason: problem, Known: m.Names(), Nearest: nearest.Of(name, m.Names()),
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
