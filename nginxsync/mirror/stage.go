package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// Stage transforms the bundle, writes the tree and tests it, without touching the tree that Nginx
// runs on. It returns the tree's id. A new Nginx is started after Stage and Switch.
func (m *Mirror) Stage(ctx context.Context, b *bundle.Bundle) (id string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, _, err = m.stage(ctx, b)
	return id, err
}

// stage is Stage, without the lock. It reports whether the tree was written, and not there already
// as it should be.
func (m *Mirror) stage(ctx context.Context, b *bundle.Bundle) (id string, fresh bool, err error) {
	err = m.observed("stage", func() error {
		id, fresh, err = m.write(ctx, b)
		return err
	})
	return id, fresh, err
}

func (m *Mirror) write(ctx context.Context, b *bundle.Bundle) (id string, fresh bool, err error) {
	tree, err := conf.Parser{Roots: m.cfg.Roots}.Parse(b.FS(), m.cfg.Main)
	if err != nil {
		return "", false, err
	}
	result, err := transform.Transform(tree, m.cfg.Rules)
	if err != nil {
		return "", false, err
	}
	m.update(func(st *Status) { st.Changes = result.Changes })
	m.next = staged{b.Digest, textsOf(tree), result.Files, result.Origin}
	assets := assetsOf(b, result.Files)
	m.expected = expect(result, assets)
	final, staging, old := m.path(result.ID), m.path("staging"), m.path("replaced")
	_, statErr := os.Stat(final)
	if statErr == nil && len(m.expected.differences(final)) == 0 {
		return result.ID, false, nil // only a tree that passed the test is given a name
	}
	for _, dir := range []string{staging, old} {
		if err := os.RemoveAll(dir); err != nil {
			return "", false, fmt.Errorf("stage: %w", err)
		}
	}
	defer os.RemoveAll(staging)
	if err := result.WriteTo(staging); err != nil {
		return "", false, fmt.Errorf("stage: %w", err)
	}
	if err := writeAssets(staging, assets); err != nil {
		return "", false, fmt.Errorf("stage: %w", err)
	}
	if err := m.cfg.Nginx.Test(ctx, filepath.Join(staging,
		filepath.FromSlash(m.cfg.Main))); err != nil {
		return "", false, m.translated(fmt.Errorf("test: %w", err))
	}
	if statErr == nil { // it was changed on the disk
		defer os.RemoveAll(old)
		if err := os.Rename(final, old); err != nil {
			return "", false, fmt.Errorf("stage: %w", err)
		}
	}
	if err := os.Rename(staging, final); err != nil {
		return "", false, fmt.Errorf("stage: %w", err)
	}
	return result.ID, true, nil
}

func writeAssets(dir string, assets map[string]bundle.File) error {
	for name, f := range assets {
		target := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, []byte(f.Text), f.Mode.Perm()); err != nil {
			return err
		}
	}
	return nil
}

// expectedTree is the content of a tree's directory as the mirror wrote it: the SHA-256 of each
// file.
type expectedTree struct {
	id    string
	files map[string]string
}

func expect(r *transform.Result, assets map[string]bundle.File) expectedTree {
	e := expectedTree{id: r.ID, files: make(map[string]string, len(r.Files)+len(assets))}
	for name, text := range r.Files {
		e.files[name] = digestOf([]byte(text))
	}
	for name, f := range assets {
		e.files[name] = digestOf([]byte(f.Text))
	}
	return e
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// differences returns the differences of the directory from e, one line each, in the order of the
// names.
func (e expectedTree) differences(dir string) []string {
	found := map[string]string{}
	seen := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		seen[name] = true
		want, ok := e.files[name]
		switch {
		case !ok:
			found[name] = "is not of the tree"
		case !d.Type().IsRegular():
			found[name] = "is no regular file"
		default:
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if digestOf(text) != want {
				found[name] = "was changed"
			}
		}
		return nil
	})
	for name := range e.files {
		if !seen[name] {
			found[name] = "is missing"
		}
	}
	var list []string
	if err != nil {
		list = append(list, fmt.Sprintf("tree %s: %v", e.id, err))
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, fmt.Sprintf("file %s %s", name, found[name]))
	}
	return list
}

// CheckDrift compares the tree that was verified last with the present links, files and workers,
// and notes the differences in the status. Nothing is repaired: the next Sync writes a tree again
// whose files differ. A worker that starts, such as in a reload that is in flight, is no
// difference. Nil means no drift, or nothing to compare with before the first Sync.
func (m *Mirror) CheckDrift(ctx context.Context) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	tree := m.Status().Tree
	if tree == "" {
		return nil
	}
	var list []string
	for _, name := range []string{currentLink, goodLink} {
		if target := m.link(name); target != tree {
			list = append(list, fmt.Sprintf("link %s leads to %q, want %s", name, target, tree))
		}
	}
	if m.expected.id == tree {
		list = append(list, m.expected.differences(m.path(tree))...)
	}
	start := m.cfg.Now()
	state, err := m.cfg.Driver.State(ctx)
	m.cfg.Observe("drift", m.cfg.Now().Sub(start), err)
	if err != nil {
		list = append(list, fmt.Sprintf("workers: %v", err))
	}
	for _, w := range state.Workers {
		if w.PID != 0 && w.Tree != tree { // one that starts has not reported its tree
			list = append(list, fmt.Sprintf("worker %d runs on tree %q, want %s", w.PID, w.Tree,
				tree))
		}
	}
	m.update(func(st *Status) { st.Drift, st.DriftAt = list, m.cfg.Now() })
	return list
}

// assetsOf returns the files of the bundle that are no part of the configuration's text, such as
// password files and pages, without private keys, which stay in production, and without editors'
// backups that no include brings in.
func assetsOf(b *bundle.Bundle, config map[string]string) map[string]bundle.File {
	assets := map[string]bundle.File{}
	for name, f := range b.Files {
		if _, ok := config[name]; !ok && !secret(name, f.Text) && !bundle.Backup(name) {
			assets[name] = f
		}
	}
	return assets
}

// secret reports whether the file looks like a private key.
func secret(name, text string) bool {
	return slices.Contains([]string{".key", ".p12", ".pfx", ".jks"}, path.Ext(name)) ||
		strings.Contains(text, "PRIVATE KEY-----")
}
