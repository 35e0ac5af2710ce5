package envconfig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
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
	// Durable makes an activation wait until the file systems of the targets have written it down, by one syncfs(2) for each,
	// so that it outlives a loss of power. The default is false: a container's layer does not outlive its machine. Linux only.
	Durable bool
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
	p, err := a.prepare(ctx, environment, a.recover)
	if err != nil {
		return Result{}, err
	}
	defer p.close()
	if err := p.plan.preflight(p.targets); err != nil {
		return Result{}, err
	}
	after := newRecord(p.manifest, p.env, p.plan.dirs(p.targets, p.before))
	sources := &tree{root: p.source}
	defer sources.forget()
	tx := &transaction{targets: p.targets, source: sources, durable: a.Durable, step: a.at}
	if err := tx.run(ctx, p.plan); err != nil {
		return Result{}, err
	}
	if !p.before.says(after, p.wanted) {
		a.at("record")
		after.Activated = a.now().UTC()
		after.Files = make([]placed, 0, len(p.wanted))
		for i := range p.wanted {
			after.Files = append(after.Files, p.wanted[i].placed())
		}
		after.write(cmp.Or(a.State, DefaultState), p.targets, p.besides)
	}
	if err := tx.finish(); err != nil {
		return Result{}, err
	}
	r := p.plan.result()
	r.Environment, r.Digest, r.Bytes = p.env.Name, p.manifest.Digest(), tx.bytes
	return r, nil
}

// Change is what an activation would do to one target.
type Change struct {
	// Kind is "create", "replace" or "remove".
	Kind string
	// Path of the target, relative to the root.
	Path string
}

// Preview returns what [Activator.Activate] would change, sorted by path, and changes nothing. What a killed start has left
// is not undone first, so that it may show as changes. The errors are those of Activate, one about targets that may not be
// written among them.
func (a *Activator) Preview(ctx context.Context, environment string) ([]Change, error) {
	p, err := a.prepare(ctx, environment, func(*tree, *Manifest, layout) ([]*journal, error) { return nil, nil })
	if err != nil {
		return nil, err
	}
	defer p.close()
	changes := []Change{}
	for _, o := range p.plan.ops {
		changes = append(changes, Change{string(o.Kind), o.Path})
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return changes, p.plan.preflight(p.targets)
}

// prepared is an activation of which nothing was done yet, and during which no other start works on the same root.
type prepared struct {
	manifest *Manifest
	env      *Environment
	targets  *tree
	source   *os.Root
	wanted   []want
	before   *record
	besides  string
	plan     *plan
	unlock   func()
}

func (p *prepared) close() {
	if p.source != nil {
		p.source.Close()
	}
	if p.unlock != nil {
		p.unlock()
	}
	p.targets.close()
}

// prepare waits for its turn, lets tidy look for what killed starts have left, and compares what is wanted with what is.
func (a *Activator) prepare(ctx context.Context, environment string, tidy func(*tree, *Manifest, layout) ([]*journal, error)) (*prepared, error) {
	m, err := a.load()
	if err != nil {
		return nil, err
	}
	env, err := m.Select(environment)
	if err != nil {
		return nil, err
	}
	rootName, sourceName, stateName := cmp.Or(a.Root, DefaultRoot), cmp.Or(a.Source, DefaultSource), cmp.Or(a.State, DefaultState)
	root, err := os.OpenRoot(rootName)
	if err != nil {
		return nil, targetError("root", err)
	}
	p := &prepared{manifest: m, env: env, targets: &tree{root: root}}
	done := false
	defer func() {
		if !done { // after a panic, too: others wait for the lock
			p.close()
		}
	}()
	if err := m.testify(root, env.Name, a.hostname); err != nil {
		return nil, err
	}
	l := newLayout(rootName, sourceName, stateName)
	if p.unlock, err = lock(ctx, p.targets, m.first(l)); err != nil {
		return nil, err
	}
	finished, err := tidy(p.targets, m, l)
	if err != nil {
		return nil, err
	}
	if p.source, err = openSource(sourceName); err != nil {
		return nil, err
	}
	if p.wanted, err = wants(m, env, l, p.source, values{lookup: a.lookup, root: root}); err != nil {
		return nil, err
	}
	if err := m.checkLinks(root, l); err != nil {
		return nil, err
	}
	p.besides = beside(m, l)
	p.before = readRecord(stateName, p.targets, p.besides, p.wanted).with(finished)
	if p.plan, err = makePlan(p.targets, m, p.wanted, p.before); err != nil {
		return nil, err
	}
	done = true
	return p, nil
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
	source, err := openSource(cmp.Or(a.Source, DefaultSource))
	if err != nil {
		return nil, err
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

// openSource opens the source folder.
func openSource(name string) (*os.Root, error) {
	root, err := os.OpenRoot(asFolder(name))
	if err == nil {
		return root, nil
	}
	err = &fs.PathError{Op: "open", Path: name, Err: cause(err)}
	if errors.Is(err, fs.ErrNotExist) || isNoFolder(err) {
		return nil, fmt.Errorf("source folder: %w: %w", ErrIncomplete, err)
	}
	return nil, fmt.Errorf("source folder: %w", err)
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
