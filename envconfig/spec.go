package envconfig

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
	"github.com/sluice-deploy/sluice/envconfig/internal/signame"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/internal/strictjson"
)

// SpecName is the optional declarative file in the source directory.
const SpecName = "envconfig.json"

// Spec is the content of envconfig.json. The zero value, or no such file, means: copy every file
// with the mode that it has in the source directory, no default environment, and required are the
// files that any environment has.
type Spec struct {
	// Default is the environment when none is selected. The default is none: a missing selection is
	// refused. It may not be one of Live.
	Default string `json:"default,omitempty"`
	// Live are the environments that real users see. The default is production, prod, live and
	// stable.
	Live []string `json:"live,omitempty"`
	// Required are the target paths that every environment must have. The default is the union of
	// all environments'.
	Required []string `json:"required,omitempty"`
	// Paths are rules for single paths; of several that match, the last that says something about a
	// property wins.
	Paths []Rule `json:"paths,omitempty"`
	// Render declares the values that files with the action render may use.
	Render Render `json:"render,omitzero"`
	// StopSignal is the signal on which the service ends its work and stops, by name or number: the
	// image's STOPSIGNAL. The default is none.
	StopSignal string `json:"stopSignal,omitempty"`
	// Witnesses are second sources of the environment's name, all of which must agree with the
	// selection.
	Witnesses []Witness `json:"witnesses,omitempty"`
}

// Render declares the names that are filled in; other text that looks like a placeholder is left as
// it is.
type Render struct {
	// Variables are the environment variables that ${NAME} and ${NAME:-default} may name.
	Variables []string `json:"variables,omitempty"`
	// Files are patterns, as in [Rule.Match] with a slash before, of the files that ${file:/path}
	// may name.
	Files []string `json:"files,omitempty"`
}

// Rule says how the paths that match its pattern are activated.
type Rule struct {
	// Match is a pattern for target paths: each segment as in [path.Match], and "**" for any number
	// of segments.
	Match string `json:"match"`
	// Mode is the permission bits in octal, e.g. "0640". The default is the source's mode, and with
	// the actions link and pointer there is no other.
	Mode string `json:"mode,omitempty"`
	// Action is copy, link, pointer or render. The default is copy.
	Action Action `json:"action,omitempty"`
}

// Action is the way in which a file gets to its target.
type Action string

const (
	// Copy puts a copy of the source, made whole beside the target first, in the target's place.
	Copy Action = "copy"
	// Link makes the target a symbolic link to the source. Its mode is the source's. Tomcat, for
	// one, does not follow links inside of a web application.
	Link Action = "link"
	// Pointer expects that the image has a link in the target's place which leads through
	// <state>/current, see [Manifest.Bake]; an activation then makes that one link, however many
	// files there are. A rule whose pattern is a directory followed by "/**" is one link for the
	// directory as a whole; a file below it may have another action. Its directory is made in
	// <state>/view then, with links to the files beside it.
	Pointer Action = "pointer"
	// Fill is Copy with the placeholders filled in that [Render] declares.
	Fill Action = "render"
)

func (a Action) problem() string {
	if !slices.Contains([]Action{"", Copy, Link, Pointer, Fill}, a) {
		return "has the unknown action " + names.Quote(string(a))
	}
	return ""
}

// ParseSpec reads envconfig.json. Unknown names are errors, so that a slip of the pen does not go
// unnoticed. The error matches [ErrInvalid].
func ParseSpec(data []byte) (Spec, error) {
	var s Spec
	if err := strictjson.Decode(data, &s); err != nil {
		return Spec{}, invalid(SpecName, "%w", err)
	}
	if s.Default != "" {
		if err := names.Environment(s.Default); err != nil {
			return Spec{}, invalid(SpecName, "default: %w", err)
		}
	}
	if err := s.validate(); err != nil {
		return Spec{}, err
	}
	return s, nil
}

// IsLive reports whether real users see the environment of that name.
func (s *Spec) IsLive(name string) bool {
	live := s.Live
	if live == nil {
		live = []string{"production", "prod", "live", "stable"}
	}
	return slices.Contains(live, name)
}

// validate holds a spec to its rules, wherever it was read.
func (s *Spec) validate() error {
	if s.Default != "" {
		if err := checkStored(s.Default); err != nil {
			return invalid(SpecName, "default: %w", err)
		}
		if s.IsLive(s.Default) {
			return invalid(SpecName, "default %q: an environment that real users see must be "+
				"selected by name", s.Default)
		}
	}
	for _, p := range s.Required {
		if problem := place.PathProblem(p); problem != "" {
			return invalid(SpecName, "required path %s %s", names.Quote(p), problem)
		}
	}
	if n, ok := signame.Parse(s.StopSignal); s.StopSignal != "" &&
		(!ok || !signame.CanBeCaught(n)) {
		return invalid(SpecName, "stopSignal %s is no signal that can be caught, such as QUIT",
			names.Quote(s.StopSignal))
	}
	if err := errors.Join(s.Render.validate(), s.validateWitnesses()); err != nil {
		return err
	}
	for i, r := range s.Paths {
		if r.Match == "" || !validPattern(r.Match) {
			return invalid(SpecName, "paths[%d]: pattern %s is malformed", i, names.Quote(r.Match))
		}
		if _, err := r.mode(); err != nil {
			return invalid(SpecName, "paths[%d]: mode %s is not three or four octal digits "+
				"without set-id bits", i, names.Quote(r.Mode))
		}
		if problem := r.Action.problem(); problem != "" {
			return invalid(SpecName, "paths[%d]: %s", i, problem)
		}
	}
	return nil
}

func (r *Rule) mode() (fs.FileMode, error) {
	if r.Mode == "" {
		return 0, nil
	}
	mode, err := strconv.ParseUint(r.Mode, 8, 9)
	return fs.FileMode(mode), err
}

// apply sets the fields of f that the rules determine.
func (s *Spec) apply(f *File) {
	for _, r := range s.Paths {
		if !matchPath(r.Match, f.Path) {
			continue
		}
		if mode, _ := r.mode(); r.Mode != "" {
			f.Mode, f.modeGiven = mode, true
		}
		if r.Action == Copy {
			f.Action = ""
		} else if r.Action != "" {
			f.Action = r.Action
		}
	}
}

// SetStopSignal notes the signal that the image names. The error matches [ErrInvalid] when it is
// none, or envconfig.json names another.
func (m *Manifest) SetStopSignal(s string) error {
	if m.Spec.StopSignal != "" {
		a, _ := signame.Parse(m.Spec.StopSignal)
		if b, ok := signame.Parse(s); !ok || a != b {
			return invalid(SpecName, "stopSignal is %s, and the image's is %s", m.Spec.StopSignal,
				names.Quote(s))
		}
		return nil
	}
	spec := m.Spec
	spec.StopSignal = s
	if err := spec.validate(); err != nil {
		return err
	}
	m.Spec, m.spec, m.digest = spec, nil, ""
	return nil
}
