package promote

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Pipeline is the order of the environments that a digest passes through, first to last.
type Pipeline []string

// DefaultPipeline returns test, sandbox, production, stable.
func DefaultPipeline() Pipeline { return Pipeline{"test", "sandbox", "production", "stable"} }

// Index returns the place of environment in the pipeline from 0, or -1.
func (p Pipeline) Index(environment string) int { return slices.Index(p, environment) }

// Previous returns the environment that comes before, or "" for the first one and for one that is not in the pipeline.
func (p Pipeline) Previous(environment string) string {
	if i := p.Index(environment); i > 0 {
		return p[i-1]
	}
	return ""
}

// Validate reports every problem of the pipeline at once: it needs at least one environment, and no name twice.
func (p Pipeline) Validate() error {
	var errs []error
	if len(p) == 0 {
		errs = append(errs, fmt.Errorf("%w: pipeline: no environment: name at least one", ErrInvalid))
	}
	for i, environment := range p {
		errs = append(errs, checkName("pipeline: environment", environment))
		if slices.Contains(p[:i], environment) {
			errs = append(errs, fmt.Errorf("%w: pipeline: environment %q stands in it twice", ErrInvalid, environment))
		}
	}
	return errors.Join(errs...)
}

// Target is a place that runs one digest at a time.
type Target struct {
	// Cluster is the business service.
	Cluster string `json:"cluster"`
	// Environment is one of the pipeline's.
	Environment string `json:"environment,omitempty"`
	// Task tells apart the versions that run side by side in the pipeline's first environment, one target for each test
	// task. It is empty in every other environment.
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

// checkEnvironments holds the environments that a gate is set up for against the pipeline: a misspelt one would let all pass.
func (p Pipeline) checkEnvironments(environments []string) error {
	var errs []error
	for _, environment := range environments {
		if p.Index(environment) < 0 {
			errs = append(errs, fmt.Errorf("%w: environment %q: the pipeline has %s", ErrInvalid, clip(environment, 100), strings.Join(p, ", ")))
		}
	}
	return errors.Join(errs...)
}

func (p Pipeline) checkTarget(t Target) error {
	errs := []error{checkName("cluster", t.Cluster), p.checkEnvironments([]string{t.Environment})}
	switch i := p.Index(t.Environment); {
	case t.Task != "" && i > 0:
		errs = append(errs, fmt.Errorf("%w: task %q in environment %s: only %s runs tasks side by side: leave the task empty", ErrInvalid, clip(t.Task, 100), t.Environment, p[0]))
	case t.Task != "":
		errs = append(errs, checkName("task", t.Task))
	}
	return errors.Join(errs...)
}

// The names end in host names, upstream names, image labels and file names, so the set is the one that all of these take.
var (
	nameRE       = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	versionRE    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}$`)
	repositoryRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
)

func checkName(what, name string) error {
	return match(nameRE, what, name, "1 to 128 letters, digits, '.', '_' or '-'")
}

func checkVersion(version string) error {
	return match(versionRE, "version", version, "1 to 128 letters, digits, '.', '_', '+' or '-'")
}

func match(re *regexp.Regexp, what, s, want string) error {
	if !re.MatchString(s) {
		return fmt.Errorf("%w: %s %q: want %s", ErrInvalid, what, clip(s, 100), want)
	}
	return nil
}

// checkWho holds the two texts that people write to what a journal, a log line and a page can show.
func checkWho(actor, reason string) error {
	var errs []error
	if actor == "" || len(actor) > 256 || !utf8.ValidString(actor) || strings.ContainsFunc(actor, unicode.IsControl) {
		errs = append(errs, fmt.Errorf("%w: actor %q: want who asks, up to 256 bytes without control characters", ErrInvalid, clip(actor, 100)))
	}
	if len(reason) > maxText || !utf8.ValidString(reason) {
		errs = append(errs, fmt.Errorf("%w: reason of %d bytes: want valid UTF-8 of at most %d bytes", ErrInvalid, len(reason), maxText))
	}
	return errors.Join(errs...)
}

func checkExpect(d Digest) error {
	if d == "" || d == None {
		return nil
	}
	if _, err := ParseDigest(string(d)); err != nil {
		return fmt.Errorf("expect: %w", err)
	}
	return nil
}
