package builder

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// Use says from which template, and with which values, the image of a cluster is built.
type Use struct {
	Cluster string `json:"cluster"`
	// Template is a name or an ID. A name stands for the newest version, as in Catalog.Template.
	Template string            `json:"template"`
	Values   map[string]string `json:"values,omitempty"`
}

// Usage is one version of a template with the clusters that are built from it, by name.
type Usage struct {
	// Template is the ID, and the text of Use.Template when the catalogue does not hold it.
	Template   string   `json:"template"`
	Deprecated string   `json:"deprecated,omitempty"`
	Missing    bool     `json:"missing,omitempty"` // the catalogue does not hold the template
	Clusters   []string `json:"clusters"`
}

// Usage says which clusters are built from which templates, by ID. Templates without clusters are
// left out.
func (c *Catalog) Usage(uses []Use) []Usage {
	found := map[string]*Usage{}
	for _, u := range uses {
		at := Usage{Template: u.Template, Missing: true}
		if t, err := c.Template(u.Template); err == nil {
			at = Usage{Template: t.ID(), Deprecated: t.Deprecated}
		}
		if found[at.Template] == nil {
			found[at.Template] = &at
		}
		found[at.Template].Clusters = append(found[at.Template].Clusters, u.Cluster)
	}
	list := make([]Usage, 0, len(found))
	for _, id := range slices.Sorted(maps.Keys(found)) {
		slices.Sort(found[id].Clusters)
		list = append(list, *found[id])
	}
	return list
}

// Change is the upgrade of one cluster.
type Change struct {
	Cluster string `json:"cluster"`
	From    string `json:"from"` // ID of the template now
	// Diff leads from the rendered Dockerfile of now to the one after the upgrade, in the unified
	// format; "" when they are the same.
	Diff string `json:"diff,omitempty"`
	// Values are the values for the new version: those of the Use without the ones that the new
	// version no longer declares.
	Values map[string]string `json:"values,omitempty"`
	// Dropped are the parameters that the new version no longer declares, by name.
	Dropped []string `json:"dropped,omitempty"`
}

// Refusal is a cluster that cannot be upgraded before its use is changed.
type Refusal struct {
	Cluster string `json:"cluster"`
	From    string `json:"from"` // ID of the template now, or the text of Use.Template
	// Err is [ErrNotFound] for a version that the catalogue does not hold, else the error of
	// Render: a [*ParamError] for each value that the version of now, or the new one, misses or
	// refuses, joined. In JSON it is a text.
	Err error `json:"-"`
}

// MarshalJSON writes Err as the text error.
func (r Refusal) MarshalJSON() ([]byte, error) {
	type plain Refusal
	text := ""
	if r.Err != nil {
		text = r.Err.Error()
	}
	return json.Marshal(struct {
		plain
		Error string `json:"error"`
	}{plain(r), text})
}

// Upgrade is a plan that leads clusters from one version of a template to another.
type Upgrade struct {
	To string `json:"to"` // ID
	// Batches are to be built and promoted one after the other, each after the one before has been
	// watched. The first has one cluster and each has at most twice as many as the one before, up
	// to the limit that was asked for.
	Batches [][]Change `json:"batches"`
	Refused []Refusal  `json:"refused,omitempty"`
	// Done are the clusters that are on the version already, by name.
	Done []string `json:"done,omitempty"`
}

// PlanUpgrade plans the way of all clusters that are built from another version of the template to,
// which is a name or an ID, in batches of at most limit clusters; limit is 1 or more. Clusters with
// other templates are passed over. Clusters come by name, so the same uses give the same plan. It
// changes nothing. The error is [ErrNotFound] for a template that the catalogue does not hold, and
// [ErrInvalid] for a limit below 1 and for a cluster that comes twice. A cluster whose use is wrong
// is refused and holds no other one up.
func (c *Catalog) PlanUpgrade(to string, uses []Use, limit int) (Upgrade, error) {
	target, err := c.Template(to)
	if err != nil {
		return Upgrade{}, fmt.Errorf("plan upgrade: %w", err)
	}
	if limit < 1 {
		return Upgrade{}, fmt.Errorf("plan upgrade to %s: limit %d: want 1 or more: %w",
			target.ID(), limit, ErrInvalid)
	}
	plan := Upgrade{To: target.ID(), Batches: [][]Change{}}
	var changes []Change
	var problems []error
	uses = slices.SortedFunc(slices.Values(uses), func(a, b Use) int {
		return cmp.Compare(a.Cluster, b.Cluster)
	})
	for i, u := range uses {
		if i > 0 && uses[i-1].Cluster == u.Cluster {
			problems = append(problems, fmt.Errorf("cluster %s comes twice: %w", quote(u.Cluster),
				ErrInvalid))
		}
		name, _, _ := strings.Cut(u.Template, "@")
		if name != target.Name {
			continue
		}
		from, err := c.Template(u.Template)
		if err != nil {
			plan.Refused = append(plan.Refused, Refusal{u.Cluster, u.Template, err})
			continue
		}
		if from == target {
			plan.Done = append(plan.Done, u.Cluster)
			continue
		}
		change, err := upgrade(from, target, u)
		if err != nil {
			plan.Refused = append(plan.Refused, Refusal{u.Cluster, from.ID(), err})
			continue
		}
		changes = append(changes, change)
	}
	if err := errors.Join(problems...); err != nil {
		return Upgrade{}, fmt.Errorf("plan upgrade to %s: %w", target.ID(), err)
	}
	for size := 1; len(changes) > 0; size = min(2*size, limit) {
		n := min(size, len(changes))
		plan.Batches = append(plan.Batches, changes[:n:n])
		changes = changes[n:]
	}
	return plan, nil
}

// upgrade is the change of one cluster, or the error of rendering it.
func upgrade(from, target *Template, u Use) (c Change, err error) {
	now, err := from.Render(u.Values)
	if err != nil {
		return c, err
	}
	c = Change{Cluster: u.Cluster, From: from.ID(), Values: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(u.Values)) {
		if slices.ContainsFunc(target.Params, func(p Param) bool { return p.Name == name }) {
			c.Values[name] = u.Values[name]
		} else {
			c.Dropped = append(c.Dropped, name)
		}
	}
	then, err := target.Render(c.Values)
	if err != nil {
		return c, err
	}
	c.Diff = string(diff.Diff(from.ID(), now, target.ID(), then))
	return c, nil
}
