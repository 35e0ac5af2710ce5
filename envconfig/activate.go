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
// after each return, by one goroutine at a time. Several activators, of one process or of many, may work on the same root
// at once: they take turns.
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
	// Lookup gives the variables that rendered files may draw on. The default is [os.LookupEnv].
	Lookup func(name string) (value string, set bool)
	// Hostname gives the name that a witness may be held to. The default is [os.Hostname].
	Hostname func() (string, error)
	// Now is the clock of the record. The default is [time.Now].
	Now func() time.Time

	loaded *Manifest

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
	m, err := a.load()
	if err != nil {
		return Result{}, err
	}
	env, err := m.Select(environment)
	if err != nil {
		return Result{}, err
	}
	rootName, sourceName, stateName := cmp.Or(a.Root, DefaultRoot), cmp.Or(a.Source, DefaultSource), cmp.Or(a.State, DefaultState)
	root, err := os.OpenRoot(rootName)
	if err != nil {
		return Result{}, targetError("root", err)
	}
	targets := &tree{root: root}
	defer targets.close()
	if err := m.testify(root, env.Name, a.hostname); err != nil {
		return Result{}, err
	}
	l := newLayout(rootName, sourceName, stateName)
	unlock, err := lock(ctx, targets, m.first(l))
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	finished, err := a.recover(targets, m, l)
	if err != nil {
		return Result{}, err
	}
	source, err := os.OpenRoot(sourceName)
	if err != nil {
		return Result{}, sourceError(err)
	}
	defer source.Close()
	wanted, err := wants(m, env, l, source, values{lookup: a.lookup, root: root})
	if err != nil {
		return Result{}, err
	}
	if err := m.checkLinks(root, l); err != nil {
		return Result{}, err
	}
	besides := beside(m, l)
	before := readRecord(stateName, targets, besides).with(finished)
	p, err := makePlan(targets, m, wanted, before)
	if err != nil {
		return Result{}, err
	}
	if err := p.preflight(targets); err != nil {
		return Result{}, err
	}
	after := newRecord(m, env, wanted, a.now())
	after.Dirs = p.dirs(targets, before)
	sources := &tree{root: source}
	defer sources.forget()
	tx := &transaction{targets: targets, source: sources, step: a.at}
	if err := tx.run(ctx, p); err != nil {
		return Result{}, err
	}
	if before == nil || !before.same(after) {
		a.at("record")
		after.write(stateName, targets, besides)
	}
	if err := tx.finish(); err != nil {
		return Result{}, err
	}
	r := p.result()
	r.Environment, r.Digest, r.Bytes = env.Name, m.Digest(), tx.bytes
	return r, nil
}

// Choose returns the environment that value, the content of the selecting variable, stands for. Where the variable is not
// set at all, it is the default of the spec, if there is one. The errors are those of [Manifest.Select].
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
		return a.Manifest, nil
	}
	if a.loaded != nil {
		return a.loaded, nil
	}
	source, err := os.OpenRoot(cmp.Or(a.Source, DefaultSource))
	if err != nil {
		return nil, sourceError(err)
	}
	defer source.Close()
	a.loaded, err = loadForStart(source.FS())
	return a.loaded, err
}

func (a *Activator) at(step string) {
	if a.step != nil {
		a.step(step)
	}
}

// sourceError is an error about the source folder as a whole.
func sourceError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("source folder: %w: %w", ErrIncomplete, err)
	}
	return fmt.Errorf("source folder: %w", err)
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

func (a *Activator) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}
