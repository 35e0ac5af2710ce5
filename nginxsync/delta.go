package nginxsync

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

// Delta is one change of the routes of an Nginx: the unit that a Driver puts into it, whole.
type Delta struct {
	// Epoch and Writer are the term and the name of the agent that pushes. 0 and empty are for an
	// Nginx that no agent has a term on.
	Epoch  uint64
	Writer string // without spaces
	// From is the generation that must be in force; it does not matter for a full delta.
	From Generation
	To   Generation
	// Rows are the rows that change, each at most once. In a full delta they are all rows.
	Rows []Row
	Full bool
}

// NewDelta is the change from one state of the routes to another.
func NewDelta(from, to Routes) Delta {
	d := Delta{From: from.Generation, To: to.Generation}
	for _, c := range Diff(from.Snapshot, to.Snapshot) {
		d.Rows = append(d.Rows, Row{VIP: c.VIP, Branch: c.Branch, Cluster: c.Cluster,
			Instances: c.After, Gone: c.After == nil})
	}
	before := notes(from.Snapshot)
	for k, note := range notes(to.Snapshot) {
		if was, ok := before[k]; !ok || was != note {
			d.Rows = append(d.Rows, k.row(&kept{note: note}))
		}
		delete(before, k)
	}
	for k := range before {
		d.Rows = append(d.Rows, k.row(nil))
	}
	return d
}

// All is the full delta that leads to the routes.
func (r Routes) All() Delta {
	d := Delta{To: r.Generation, Full: true}
	r.Snapshot.each(func(row Row) { d.Rows = append(d.Rows, row) })
	return d
}

// Apply returns the routes after the delta. The error is ErrConflict, ErrGap or, when the rows do
// not lead to the digest of d.To, ErrInvalid. A delta to the generation of r changes nothing.
func (r Routes) Apply(d Delta) (Routes, error) {
	switch {
	case r.Generation == d.To:
		return r, nil
	case r.Generation != Generation{} && d.To.Number <= r.Generation.Number:
		return r, fmt.Errorf("routes %s: %s is in force: %w", d.To, r.Generation, ErrConflict)
	case !d.Full && d.From != r.Generation:
		return r, fmt.Errorf("routes %s: from %s: %s is in force: %w", d.To, d.From, r.Generation,
			ErrGap)
	}
	s := Snapshot{Baseline: map[string][]Instance{},
		Overlays: map[netip.Addr]map[string][]Instance{}}
	if !d.Full {
		s.Baseline = maps.Clone(r.Snapshot.Baseline)
		for vip, clusters := range r.Snapshot.Overlays {
			s.Overlays[vip] = maps.Clone(clusters)
		}
		for name, clusters := range r.Snapshot.Branches {
			if s.Branches == nil {
				s.Branches = map[string]map[string][]Instance{}
			}
			s.Branches[name] = maps.Clone(clusters)
		}
		s.Scopes, s.Pools = maps.Clone(r.Snapshot.Scopes), r.Snapshot.Pools
		s.Tasks = maps.Clone(r.Snapshot.Tasks)
		if s.Baseline == nil {
			s.Baseline = map[string][]Instance{}
		}
	}
	for _, row := range d.Rows {
		if row.Gone {
			s.drop(row)
		} else if err := s.put(row); err != nil {
			return r, fmt.Errorf("routes %s: row %s %s: %w: %w", d.To, row.scope(), row.Cluster,
				err, ErrInvalid)
		}
	}
	next := NewRoutes(d.To.Number, s)
	if next.Generation != d.To {
		return r, fmt.Errorf("routes %s: the rows lead to the digest %s: %w", d.To,
			next.Generation.Digest, ErrInvalid)
	}
	return next, nil
}

// AppendText appends the form in which a delta goes to Nginx:
//
//	sluice-delta 2 <epoch> <writer|-> <from|-> <to> <full|delta>
//	the rows
//	end <number of rows>
func (d Delta) AppendText(b []byte) ([]byte, error) {
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	kind := "delta"
	if d.Full {
		kind = "full"
	}
	b = append(b, "sluice-delta 2 "...)
	b = strconv.AppendUint(b, d.Epoch, 10)
	b = fmt.Appendf(b, " %s %s %s %s\n", or(d.Writer), or(d.From.String()), d.To, kind)
	b = slices.Grow(b, 128*len(d.Rows))
	for _, row := range d.Rows {
		b = row.appendTo(b)
	}
	return fmt.Appendf(b, "end %d\n", len(d.Rows)), nil
}
