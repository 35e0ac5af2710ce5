package envconfig

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/internal/place"
)

// start is one activation, or the preview of one: newStart, open, compare, and then activate for
// the former. From open to close no other start works on the same root.
type start struct {
	*Activator
	manifest *Manifest
	env      *Environment
	layout   layout
	state    string

	targets *place.Tree // nil before open, as the fields below
	unlock  func()
	source  *os.Root
	wanted  *wanted
	before  *record
	plan    *place.Plan
}

// newStart selects the environment. It opens nothing but the manifest.
func (a *Activator) newStart(environment string) (*start, error) {
	m, err := a.load()
	if err != nil {
		return nil, err
	}
	env, err := m.Select(environment)
	if err != nil {
		return nil, err
	}
	s := &start{Activator: a, manifest: m, env: env, state: cmp.Or(a.State, DefaultState)}
	s.layout = newLayout(cmp.Or(a.Root, DefaultRoot), cmp.Or(a.Source, DefaultSource), s.state, m)
	return s, nil
}

// close releases the resources of open and compare, after an error or a panic, too: other starts
// wait for the lock.
func (s *start) close() {
	if s.wanted != nil {
		s.wanted.sources.Forget()
	}
	if s.source != nil {
		s.source.Close()
	}
	if s.unlock != nil {
		s.unlock()
	}
	if s.targets != nil {
		s.targets.Close()
	}
}

// open opens the root, asks the witnesses, and waits for the lock.
func (s *start) open(ctx context.Context) error {
	root, err := os.OpenRoot(cmp.Or(s.Root, DefaultRoot))
	if err != nil {
		return place.TargetError("root", err)
	}
	s.targets = place.NewTree(root)
	if err := s.manifest.testify(root, s.env.Name, s.hostname); err != nil {
		return err
	}
	s.unlock, err = place.Lock(ctx, s.targets, s.layout.first(s.manifest))
	return err
}

// compare compares the wanted files with the targets. committed are the earlier starts that may not
// have written their record.
func (s *start) compare(committed []place.Committed) (err error) {
	if s.source, err = openSource(cmp.Or(s.Source, DefaultSource)); err != nil {
		return err
	}
	root := s.targets.Root()
	from := values{lookup: s.lookup, root: root}
	if s.wanted, err = newWanted(s.manifest, s.env, s.layout, s.source, from); err != nil {
		return err
	}
	if err := s.layout.checkLinks(root); err != nil {
		return err
	}
	read := readRecord(s.state, s.layout.state, s.targets, s.layout.beside(s.manifest), s.wanted)
	s.before = read.with(committed)
	stale := s.wanted.stale(s.targets, s.layout, s.manifest, s.before)
	s.plan, err = place.Diff(s.targets, s.wanted.files, stale, s.made())
	if err == nil && s.InPlace {
		err = s.plan.WriteInPlace(s.targets, s.layout.state)
	}
	return err
}

// made returns the directories that earlier activations have made.
func (s *start) made() []string {
	if s.before == nil {
		return nil
	}
	return s.before.Dirs
}

// writable reports all targets that this user cannot write, at once.
func (s *start) writable() error {
	blocked, err := s.plan.Blocked(s.targets)
	if err != nil || len(blocked) == 0 {
		return err
	}
	return fmt.Errorf("uid %d may not write %s: give the directories to this user in the image, "+
		"mount a writable volume there, or use the action pointer: %w",
		os.Geteuid(), strings.Join(blocked, ", "), ErrPermission)
}

// activate carries out the plan and writes the record.
func (s *start) activate(ctx context.Context) (Result, error) {
	after := newRecord(s.manifest, s.env, s.plan.Made(s.targets, s.made()))
	tx := &place.Transaction{
		Targets: s.targets, Contents: s.wanted, Durable: s.Durable, Step: s.step,
	}
	if err := tx.Run(ctx, s.plan); err != nil {
		return Result{}, err
	}
	if !s.before.says(after, s.wanted) {
		s.writeRecord(after)
	}
	if err := tx.Finish(); err != nil {
		return Result{}, err
	}
	r := Result{
		Environment: s.env.Name, Digest: s.manifest.Digest(),
		Kept: s.plan.Kept, Bytes: tx.Bytes(), StopSignal: s.manifest.Spec.StopSignal,
	}
	for _, o := range s.plan.Ops {
		switch o.Kind {
		case place.Create:
			r.Created++
		case place.Replace:
			r.Replaced++
		case place.Remove:
			r.Removed++
		}
	}
	return r, nil
}

// writeRecord writes the record with all files.
func (s *start) writeRecord(after *record) {
	if s.step != nil {
		s.step("record")
	}
	after.Activated = s.clock()().UTC()
	after.Files = make([]placed, 0, len(s.wanted.files))
	for i := range s.wanted.files {
		after.Files = append(after.Files, s.wanted.placed(i))
	}
	after.write(s.state, s.targets, s.layout.beside(s.manifest))
}
