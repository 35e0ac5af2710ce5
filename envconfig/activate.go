package envconfig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Where an image has its configuration when nothing else is said.
const (
	DefaultSource = "/etc/envconfig"
	DefaultRoot   = "/"
	DefaultState  = "/run/envconfig"
)

// Activator puts the files of one environment in place. The zero value works inside a container. It may be used again
// after each return, and several activators, of one process or of many, may work on the same root at once: they take turns.
type Activator struct {
	// Source is the folder that holds envs/. The default is [DefaultSource].
	Source string
	// Root is the folder that target paths are relative to; nothing outside of it is touched. The default is [DefaultRoot].
	Root string
	// State is the folder for the record of what is active. The default is [DefaultState]. Where it cannot be written, the
	// record stands beside the first target.
	State string
	// Manifest is what the source folder has. The default is what [Load] finds there.
	Manifest *Manifest
	// Now is the clock of the record. The default is [time.Now].
	Now func() time.Time

	// step is called with the name of each step before it is done; tests end the process there.
	step func(name string)
}

// Result says what an activation did.
type Result struct {
	// Environment is the one that is active now.
	Environment string
	// Digest is the manifest's.
	Digest string
	// Created, Replaced, Removed and Kept count files.
	Created, Replaced, Removed, Kept int
	// Bytes were written to targets.
	Bytes int64
}

// Activate makes environment the active one: every file of it stands at its target with its exact mode, files that only
// the environment before it had are gone, and files that are right already are not touched. It does all of it or nothing:
// after an error every target is as it was before. When the process is killed, the next call undoes what was half done
// before it does anything else.
//
// The error matches [ErrUnknownEnvironment], [ErrInvalid], [ErrIncomplete], [ErrTarget] or [ErrPermission], or is a plain
// I/O error. A cancelled ctx rolls back and returns its cause.
func (a *Activator) Activate(ctx context.Context, environment string) (Result, error) {
	source, err := os.OpenRoot(cmp.Or(a.Source, DefaultSource))
	if err != nil {
		return Result{}, sourceError(err)
	}
	defer source.Close()
	m := a.Manifest
	if m == nil {
		if m, err = Load(source.FS()); err != nil {
			return Result{}, err
		}
	}
	env, err := m.Select(environment)
	if err != nil {
		return Result{}, err
	}
	root, err := os.OpenRoot(cmp.Or(a.Root, DefaultRoot))
	if err != nil {
		return Result{}, targetError("root", err)
	}
	targets := &tree{root: root}
	defer targets.close()

	unlock, err := lock(ctx, targets, m)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := a.recover(targets, m); err != nil {
		return Result{}, err
	}
	before := readRecord(cmp.Or(a.State, DefaultState), targets, m)
	p, err := makePlan(targets, m, env, before)
	if err != nil {
		return Result{}, err
	}
	if err := p.preflight(targets); err != nil {
		return Result{}, err
	}
	after := newRecord(m, env, a.now())
	after.Dirs = p.dirs(before)
	tx := &transaction{targets: targets, source: source, step: a.at}
	if err := tx.run(ctx, p); err != nil {
		return Result{}, err
	}
	if before == nil || !before.same(after) {
		a.at("record")
		after.write(cmp.Or(a.State, DefaultState), targets, m)
	}
	if err := tx.finish(p); err != nil {
		return Result{}, err
	}
	r := p.result()
	r.Environment, r.Digest, r.Bytes = env.Name, m.Digest(), tx.bytes
	return r, nil
}

// Choose is [Manifest.Select] for the value of the selecting variable: where it is not set at all, the default of the
// spec is taken if there is one.
func (m *Manifest) Choose(value string, set bool) (*Environment, error) {
	if !set {
		value = m.Spec.Default
	}
	return m.Select(value)
}

func (a *Activator) at(step string) {
	if a.step != nil {
		a.step(step)
	}
}

func (a *Activator) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

// sourceError is an error about the source folder as a whole.
func sourceError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("source folder: %w: %w", ErrIncomplete, err)
	}
	return fmt.Errorf("source folder: %w", err)
}
