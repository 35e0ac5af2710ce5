package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/textfs"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

// ErrHeld is in the chain of an error of Sync when Config.Approve did not let the tree pass.
var ErrHeld = errors.New("held")

// maxShown is the number of changes that a comparison of the status has.
const maxShown = 200

// staged is the input and the result of the last Stage.
type staged struct {
	digest     string
	production map[string]string // texts of production's configuration
	result     map[string]string // of the transformed one
	origin     func(name string, line int) (int, bool)
}

// luaPlace finds a place within a block of code, as the Lua module writes it, and place one that
// Nginx writes.
var (
	luaPlace = regexp.MustCompile(`_by_lua\w*\(([^()\s]+):(\d+)\):(\d+): `)
	place    = regexp.MustCompile(` in (\S+):(\d+)(?:[\s;]|$)`)
)

// translated adds production's place to an error of Nginx, which has that of the transformed tree.
func (m *Mirror) translated(err error) error {
	if err == nil || m.next.origin == nil {
		return err
	}
	name, line := "", 0
	if found := luaPlace.FindStringSubmatch(err.Error()); found != nil {
		block, _ := strconv.Atoi(found[2])
		within, _ := strconv.Atoi(found[3])
		name, line = found[1], block+within-1
	} else if found := place.FindStringSubmatch(err.Error()); found != nil {
		name = found[1]
		line, _ = strconv.Atoi(found[2])
	}
	for _, dir := range []string{"staging", currentLink} {
		name = strings.TrimPrefix(name, m.path(dir)+"/")
	}
	origin, ok := m.next.origin(name, line)
	if !ok {
		return err
	}
	return fmt.Errorf("%w (production's %s:%d)", err, name, origin)
}

// textsOf are the texts of a tree's configuration, without assets.
func textsOf(tree *conf.Tree) map[string]string {
	texts := map[string]string{}
	for _, f := range tree.Files() {
		texts[f.Name] = f.Text
	}
	return texts
}

// review compares the staged tree with the one that Nginx runs on, shows the difference, and asks
// Config.Approve. Production's own trees are compared. After a restart of this process the old one
// of production is not at hand: then the transformed ones are.
func (m *Mirror) review(ctx context.Context, good string) error {
	var c *route.Comparison
	err := m.observed("compare", func() (err error) {
		c, err = m.compare(good)
		return err
	})
	shown := c
	if err != nil {
		m.cfg.Logger.Warn("what the tree changes is not known", "err", err)
	}
	m.update(func(st *Status) { st.Routes = shown })
	if c != nil && !c.Same() {
		m.cfg.Logger.Info("requests go elsewhere", "changed", c.Changed, "undecided", c.Undecided)
		for _, change := range c.Changes[:min(len(c.Changes), 20)] {
			m.cfg.Logger.Info("requests go elsewhere", "kind", change.Kind, "hosts", change.Hosts,
				"location", change.Location, "what", change.What, "old", change.Old.String(),
				"new", change.New.String(), slog.String("reason", change.Reason))
		}
	}
	if m.cfg.Approve == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("review: %w: %w", err, ErrHeld)
	}
	if c == nil {
		return nil // the first tree
	}
	if err := m.cfg.Approve(ctx, c); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("review: %w", context.Cause(ctx))
		}
		return fmt.Errorf("review: %d changed, %d undecided: %w: %w", c.Changed, c.Undecided, err,
			ErrHeld)
	}
	return nil
}

// compare is nil without an error when there is no tree to compare with.
func (m *Mirror) compare(good string) (*route.Comparison, error) {
	old, fresh := m.live.production, m.next.production
	parser := conf.Parser{Roots: m.cfg.Roots}
	var oldTree *conf.Tree
	var err error
	if old == nil {
		fresh, parser = m.next.result, conf.Parser{}
		if good == "" {
			return nil, nil
		}
		root, openErr := os.OpenRoot(m.path(good))
		if openErr != nil {
			return nil, fmt.Errorf("compare: %w", openErr)
		}
		defer root.Close()
		oldTree, err = parser.Parse(root.FS(), m.cfg.Main)
	} else {
		oldTree, err = parser.Parse(textfs.FS(old), m.cfg.Main)
	}
	if err != nil {
		return nil, fmt.Errorf("compare: the tree that nginx runs on: %w", err)
	}
	newTree, err := parser.Parse(textfs.FS(fresh), m.cfg.Main)
	if err != nil {
		return nil, fmt.Errorf("compare: %w", err)
	}
	return route.Compare(oldTree, newTree, maxShown), nil
}
