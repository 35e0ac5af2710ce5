package nginxsync

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Guard holds the changes of a Source that an Agent does not believe without a plan. The routes in
// force go on for a change that it holds, and the rest of the snapshot takes effect. The guard
// holds
//
//   - a cluster of the baseline or of a branch that would lose its last instance,
//   - a cluster of the baseline, of a branch or of an overlay that would keep less than Share of
//     its instances,
//   - clusters of overlays that vanish, or are emptied, when all do or less than Share of them
//     would stay,
//   - every cluster of baseline and branches that shrinks when they would keep less than Share of
//     all their instances.
//
// A change that is held takes effect when an Intent covers it, when Agent.Release names it, or
// after ReleaseAfter; it ends when the source takes it back.
type Guard struct {
	// Share is how much may go away without a plan, from 0 to 1. The default is 0.5.
	Share float64
	// AlarmAfter is how long a change is held before Held.Alarm is set. The default is 15 minutes.
	AlarmAfter time.Duration
	// ReleaseAfter is how long a change is held at most. The default is without limit.
	ReleaseAfter time.Duration
}

// Intent is a plan: it names the part that may shrink. It covers the cluster of the baseline when
// only Cluster is set, all clusters of an overlay or of a branch when only VIP or Branch is set,
// and one of them when both are. It is used up when its cluster or overlay has gone or has no
// instance, and it ends at Until.
type Intent struct {
	VIP     netip.Addr `json:"vip"`
	Branch  string     `json:"branch,omitempty"` // the cluster is one of the branch
	Cluster string     `json:"cluster"`
	// Until is when it ends. The default is 10 minutes after the agent saw it.
	Until time.Time `json:"until"`
	By    string    `json:"by"` // who has planned it; free text

	serial uint64 // a plan that is made again is another one
}

// Numbered returns the intent as another one than an equal intent with another number: a source
// of intents from elsewhere so tells a plan that was made again from a used one. An intent has the
// number 0 at first.
func (i Intent) Numbered(n uint64) Intent {
	i.serial = n
	return i
}

// planLife is the life of an intent without an end.
const planLife = 10 * time.Minute

func (i Intent) covers(k key) bool {
	if i.VIP.IsValid() {
		return i.VIP.Unmap() == k.vip && (i.Cluster == "" || i.Cluster == k.cluster)
	}
	return !k.vip.IsValid() && i.Branch == k.branch &&
		(i.Cluster == k.cluster || i.Branch != "" && i.Cluster == "")
}

// Held is a change that the guard holds.
type Held struct {
	// the zero Addr for the baseline and for a branch
	VIP netip.Addr `json:"vip"`
	// empty for the baseline and for a VIP
	Branch    string    `json:"branch,omitempty"`
	Cluster   string    `json:"cluster"`
	Instances int       `json:"instances"` // how many are kept
	Offered   int       `json:"offered"`   // how many the source has
	Reason    string    `json:"reason"`
	Since     time.Time `json:"since"` // when the change came
	// Release is when the change takes effect by itself; zero for never
	Release time.Time `json:"release"`
	Alarm   bool      `json:"alarm"` // it has been held for longer than Guard.AlarmAfter

	after, at uint64 // it came with a revision above after, at most at
}

// String is such as
//
//	baseline cluster "a": 11 instances kept, 1 offered: less than 50 % would stay
func (h Held) String() string {
	where := SetAside{VIP: h.VIP, Branch: h.Branch, Cluster: h.Cluster,
		Reason: fmt.Sprintf("%d instances kept, %d offered: %s", h.Instances, h.Offered, h.Reason)}
	return where.String()
}

func (h Held) key() key { return key{h.VIP, h.Branch, h.Cluster} }

// HeldError lists the changes of a revision that the guard holds.
type HeldError struct{ Held []Held }

// Error lists them.
func (e *HeldError) Error() string {
	text := ""
	for _, h := range e.Held {
		text += h.String() + "; "
	}
	return text + ErrHeld.Error()
}

// Is reports whether target is ErrHeld.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// shrink is a row that would lose instances.
type shrink struct {
	key        key
	have, want int
	gone       bool // the row goes
	reason     string
}

// judge gives each shrinking row a reason when the guard does not believe it. rows are those in
// force.
func (g Guard) judge(shrinks []shrink, rows map[key]*kept, planned func(key) bool) {
	lost, going := 0, 0 // of the overlays, and of the instances of the baseline
	for i := range shrinks {
		s := &shrinks[i]
		switch {
		case planned(s.key):
			continue
		case s.key.vip.IsValid() && s.want == 0:
			if s.have > 0 {
				lost++
			}
		case s.want == 0:
			s.reason = "the last instance would go"
		case float64(s.want) < g.Share*float64(s.have):
			s.reason = fmt.Sprintf("less than %.4g %% would stay", g.Share*100)
		}
		if !s.key.vip.IsValid() && s.reason == "" {
			going += s.have - s.want
		}
	}
	if lost == 0 && going == 0 {
		return
	}
	total, overlays := 0, 0
	for k, row := range rows {
		if !k.vip.IsValid() {
			total += len(row.instances)
		} else if len(row.instances) > 0 {
			overlays++
		}
	}
	few := float64(total-going) < g.Share*float64(total)
	stay := overlays - lost
	vanish := lost > 0 && (stay == 0 || float64(stay) < g.Share*float64(overlays))
	for i := range shrinks {
		s := &shrinks[i]
		switch {
		case s.reason != "" || planned(s.key):
		case vanish && s.key.vip.IsValid() && s.want == 0:
			s.reason = fmt.Sprintf("%d of %d clusters of overlays would stay", stay, overlays)
		case few && !s.key.vip.IsValid():
			s.reason = fmt.Sprintf("%d of %d instances of baseline and branches would stay",
				total-going,
				total)
		}
	}
}

func sortHeld(held []Held) {
	slices.SortFunc(held, func(a, b Held) int {
		return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.Branch, b.Branch),
			cmp.Compare(a.Cluster, b.Cluster))
	})
}
