package envconfig

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// Where an image has its configuration when nothing else is said.
const (
	DefaultSource = "/etc/envconfig"
	DefaultRoot   = "/"
	DefaultState  = "/run/envconfig"
)

// Activator puts the files of one environment in place. The zero value works inside a container. It
// may be used again after each return, by one goroutine at a time. Several activators, of one
// process or of many, may work on the same root at once: they take turns.
type Activator struct {
	// Source is the directory that holds envs/. The default is [DefaultSource].
	Source string
	// Root is the directory that target paths are relative to; nothing outside of it is touched.
	// The default is [DefaultRoot].
	Root string
	// State is the directory for the record of the active environment. The default is
	// [DefaultState]. Where it cannot be written, the record stands beside the first target.
	State string
	// Manifest describes the source directory. The default is the manifest that [Load] returns. One
	// that breaks a rule of [ParseManifest] is refused.
	Manifest *Manifest
	// Lookup gives the variables that rendered files may draw on. The default is [os.LookupEnv].
	Lookup func(name string) (value string, set bool)
	// Hostname gives the name that a witness may be held to. The default is [os.Hostname].
	Hostname func() (string, error)
	// Durable makes an activation wait until the file systems of the targets have written it down,
	// by one syncfs(2) for each, so that it outlives a loss of power. The default is false: a
	// container's layer does not outlive its machine. Linux only.
	Durable bool
	// InPlace lets an activation write into targets that are mounts of their own, such as a single
	// file that a container's runtime has bind-mounted, which cannot be replaced; their modes and
	// owners stay. The default is false: such a target is refused. While it is written, a reader
	// may see a part of it, and after SIGKILL it is as it was only when the next activation has
	// begun. Linux only; needs /proc.
	InPlace bool
	// Now is the clock of the record. The default is [time.Now].
	Now func() time.Time

	loaded  *Manifest // as read from Source
	checked *Manifest // Manifest, once it was held to the rules

	// step is called with the name of each step before it is done, unless it is nil; tests end the
	// process there.
	step func(name string)
}

// Result describes a completed activation.
type Result struct {
	// Environment is the one that is active now.
	Environment string
	// Digest is the manifest's.
	Digest string
	// Created, Replaced, Removed and Kept count files.
	Created, Replaced, Removed, Kept int
	// Bytes were written to targets.
	Bytes int64
	// StopSignal is that of the [Spec].
	StopSignal string
}

// Activate makes environment the active one: every file of it stands at its target with its exact
// mode, files that only the environment before it had are gone, and files that are right already
// are not touched. It does all of it or nothing: after an error every target is as it was before.
// When the process is killed, the next call undoes the half-done changes before it does anything
// else.
//
// The error matches [ErrUnknownEnvironment], [ErrInvalid], [ErrIncomplete], [ErrTarget] or
// [ErrPermission], or is a plain I/O error. A cancelled ctx rolls back and returns its cause.
func (a *Activator) Activate(ctx context.Context, environment string) (Result, error) {
	s, err := a.newStart(environment)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return Result{}, err
	}
	committed, err := place.Recover(s.targets, s.layout.targetDirs(s.manifest), a.step)
	if err != nil {
		return Result{}, err
	}
	if err := s.compare(committed); err != nil {
		return Result{}, err
	}
	if err := s.writable(); err != nil {
		return Result{}, err
	}
	return s.activate(ctx)
}

// Change is the change that an activation would make at one target.
type Change struct {
	// Kind is "create", "replace" or "remove".
	Kind string
	// Path of the target, relative to the root.
	Path string
}

// Preview returns the changes that [Activator.Activate] would make, sorted by path, and changes
// nothing. The half-done changes of a killed start are not undone first, so that they may show as
// changes. The errors are those of Activate, one about targets that may not be written among them.
func (a *Activator) Preview(ctx context.Context, environment string) ([]Change, error) {
	s, err := a.newStart(environment)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if err := s.compare(nil); err != nil {
		return nil, err
	}
	changes := []Change{}
	for _, o := range s.plan.Ops {
		changes = append(changes, Change{string(o.Kind), o.Path})
	}
	sort.Slice(changes, func(i, j int) bool { return changes[i].Path < changes[j].Path })
	return changes, s.writable()
}

// Choose returns the environment that value, the content of the selecting variable, stands for.
// Where the variable is not set at all, it is the default of the spec, if there is one. The errors
// are those of [Manifest.Select].
func (a *Activator) Choose(value string, set bool) (string, error) {
	m, err := a.load()
	if err != nil {
		return "", err
	}
	if !set {
		value = m.Spec.Default
	}
	env, err := m.Select(value)
	if err != nil {
		return "", err
	}
	return env.Name, nil
}

// load returns the manifest, or as much of it as an activation needs, and keeps it.
func (a *Activator) load() (*Manifest, error) {
	if a.Manifest != nil {
		if a.checked != a.Manifest {
			if err := a.Manifest.validate(); err != nil {
				return nil, fmt.Errorf("Activator.Manifest: %w", err)
			}
			a.checked = a.Manifest
		}
		return a.Manifest, nil
	}
	if a.loaded != nil {
		return a.loaded, nil
	}
	root, err := openSource(cmp.Or(a.Source, DefaultSource))
	if err != nil {
		return nil, err
	}
	source := place.NewTree(root)
	defer source.Close()
	a.loaded, err = loadForStart(source)
	return a.loaded, err
}

func (a *Activator) lookup(name string) (string, bool) {
	if a.Lookup != nil {
		return a.Lookup(name)
	}
	return os.LookupEnv(name)
}

func (a *Activator) hostname() (string, error) {
	if a.Hostname != nil {
		return a.Hostname()
	}
	return os.Hostname()
}

func (a *Activator) clock() func() time.Time {
	if a.Now != nil {
		return a.Now
	}
	return time.Now
}
