package envconfig

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
	"github.com/sluice-deploy/sluice/internal/names"
)

// Witness is a second, independent source of the environment's name, so that one mistyped variable
// does not put production's configuration into a test cluster. Exactly one of File and Hostname is
// set.
type Witness struct {
	// File holds the name: as its only content or, with Key, as KEY="name" on a line of its own,
	// which is the form of the labels that Kubernetes' downward API mounts.
	File string `json:"file,omitempty"`
	// Key is the key in File. The default is that File holds the name alone.
	Key string `json:"key,omitempty"`
	// Hostname is a pattern as in [path.Match] for the host's name, in which {env} stands for the
	// environment.
	Hostname string `json:"hostname,omitempty"`
	// Environments are those for whose selection the witness is asked. The default is all.
	Environments []string `json:"environments,omitempty"`
}

const maxWitness = 1 << 20

func (s *Spec) validateWitnesses() error {
	for i, w := range s.Witnesses {
		rel, absolute := strings.CutPrefix(w.File, "/")
		switch {
		case (w.File == "") == (w.Hostname == ""):
			return invalid(SpecName, "witnesses[%d]: give either file or hostname", i)
		case w.File != "" && (!absolute || place.PathProblem(rel) != ""):
			return invalid(SpecName, "witnesses[%d]: file %s is not a clean absolute path", i,
				names.Quote(w.File))
		case w.Hostname != "" && !strings.Contains(w.Hostname, "{env}"):
			return invalid(SpecName, "witnesses[%d]: hostname %s does not name {env}", i,
				names.Quote(w.Hostname))
		}
		if _, err := path.Match(w.Hostname, ""); err != nil {
			return invalid(SpecName, "witnesses[%d]: hostname %s: %w", i, names.Quote(w.Hostname),
				err)
		}
	}
	return nil
}

// testify returns an error that matches [ErrUnknownEnvironment] unless every witness agrees with
// the selection.
func (m *Manifest) testify(root *os.Root, environment string,
	hostname func() (string, error)) error {
	for _, w := range m.Spec.Witnesses {
		if w.Environments != nil && !slices.Contains(w.Environments, environment) {
			continue
		}
		if problem := w.ask(root, environment, hostname); problem != "" {
			return &UnknownEnvironmentError{Name: environment, Reason: problem, Known: m.Names()}
		}
	}
	return nil
}

func (w *Witness) ask(root *os.Root, environment string, hostname func() (string, error)) string {
	if w.Hostname != "" {
		name, err := hostname()
		if err != nil {
			return "the witness hostname cannot be asked: " + err.Error()
		}
		if ok, _ := path.Match(strings.ReplaceAll(w.Hostname, "{env}", environment), name); !ok {
			return "the host name " + names.Quote(name) + " does not match " +
				names.Quote(w.Hostname)
		}
		return ""
	}
	content, err := place.ReadText(everything(root), strings.TrimPrefix(w.File, "/"), maxWitness)
	if err != nil {
		reason := place.Cause(err).Error()
		if errors.Is(err, fs.ErrNotExist) {
			reason = "there is no such file"
		}
		return "the witness " + w.File + " cannot be read: " + reason
	}
	says, ok := w.read(content)
	switch {
	case !ok:
		return "the witness " + w.File + " has no key " + names.Quote(w.Key)
	case says != environment:
		return "the witness " + w.File + " says " + names.Quote(says)
	}
	return ""
}

// read returns the name that the content of the witness's file says.
func (w *Witness) read(content string) (string, bool) {
	if w.Key == "" {
		return strings.TrimRight(content, "\r\n"), true
	}
	for line := range strings.Lines(content) {
		value, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), w.Key+"=")
		if !ok {
			continue
		}
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		return value, true
	}
	return "", false
}
