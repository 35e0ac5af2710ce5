package promote

import (
	"slices"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Pipeline is the order of the environments that a digest passes through, first to last.
type Pipeline []string

// DefaultPipeline returns test, sandbox, production, stable.
func DefaultPipeline() Pipeline { return Pipeline{"test", "sandbox", "production", "stable"} }

// Index returns the place of environment in the pipeline from 0, or -1.
func (p Pipeline) Index(environment string) int { return slices.Index(p, environment) }

// Previous returns the environment that comes before, or "" for the first one and for one that is
// not in the pipeline.
func (p Pipeline) Previous(environment string) string {
	if i := p.Index(environment); i > 0 {
		return p[i-1]
	}
	return ""
}

// Validate returns every problem of the pipeline at once, each wrapping [ErrInvalid]. A pipeline
// has at least one environment, and none twice. An environment has 1 to 32 lower-case letters,
// digits and hyphens and begins with a letter; "default" and "local" are reserved.
func (p Pipeline) Validate() error { return p.problems().err("pipeline") }

func (p Pipeline) problems() (list problems) {
	if len(p) == 0 {
		list.add("no environment: name at least one")
	}
	for i, environment := range p {
		list.check(names.Environment(environment))
		if slices.Contains(p[:i], environment) {
			list.add("environment %s stands in it twice", names.Quote(environment))
		}
	}
	return list
}

// Target is a place that runs one digest at a time.
type Target struct {
	// Cluster is the business service.
	Cluster string `json:"cluster"`
	// Environment is one of the pipeline's.
	Environment string `json:"environment,omitempty"`
	// Task distinguishes the versions that run side by side in the pipeline's first environment,
	// one target for each test task. It is empty in every other environment.
	Task string `json:"task,omitempty"`
}

// String returns the target as people write it: "hello_web in test for task t1".
func (t Target) String() string {
	s := t.Cluster + " in " + t.Environment
	if t.Task != "" {
		s += " for task " + t.Task
	}
	return s
}
