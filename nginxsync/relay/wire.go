package relay

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// line is one line of the stream. It has one member.
type line struct {
	Hello *hello `json:"hello,omitempty"`
	Row   *row   `json:"row,omitempty"`
	Scope *scope `json:"scope,omitempty"`
	Task  *task  `json:"task,omitempty"`
	Pools *pools `json:"pools,omitempty"`
	Plan  *plan  `json:"plan,omitempty"`
	End   *end   `json:"end,omitempty"`
	// Silent is the error of the relay's source, whose last snapshot stays; empty when it is heard
	// again.
	Silent *string `json:"silent,omitempty"`
}

// hello begins a transfer: of everything where After is 0, else of the changes since.
type hello struct {
	Stream string `json:"stream"`
	After  uint64 `json:"after"`
}

// end makes a transfer take effect.
type end struct {
	Revision uint64 `json:"revision"`
	Sum      sum    `json:"sum"`
}

// row has the instances of a cluster in the baseline, on a VIP or in a branch.
type row struct {
	VIP       *netip.Addr `json:"vip,omitempty"`
	Branch    *string     `json:"branch,omitempty"`
	Cluster   string      `json:"cluster"`
	Instances []instance  `json:"instances,omitempty"`
	Gone      bool        `json:"gone,omitempty"`
}

type instance struct {
	ID      string         `json:"id"`
	Addr    netip.AddrPort `json:"addr"`
	Weight  int            `json:"weight,omitempty"`
	Version string         `json:"version,omitempty"`
	Backup  bool           `json:"backup,omitempty"`
}

type scope struct {
	VIP      netip.Addr `json:"vip"`
	Branches []string   `json:"branches,omitempty"`
	Ended    *ended     `json:"ended,omitempty"`
	Gone     bool       `json:"gone,omitempty"`
}

type ended struct {
	Task     string            `json:"task,omitempty"`
	At       time.Time         `json:"at"`
	Versions map[string]string `json:"versions,omitempty"`
}

type task struct {
	Task string     `json:"task"`
	VIP  netip.Addr `json:"vip"`
	Gone bool       `json:"gone,omitempty"`
}

// pools has the first and the last address of each.
type pools [][2]netip.Addr

// plan is an intent. Number is that of nginxsync.Intent.Numbered.
type plan struct {
	Intent nginxsync.Intent `json:"intent"`
	Number uint64           `json:"number,omitempty"`
	Gone   bool             `json:"gone,omitempty"`
}

// place is the subject of a line: a line takes the place of the one before about the same.
type place struct {
	kind    kind
	vip     netip.Addr
	name    string // of the branch or the task; the plan, without its number
	cluster string
}

type kind byte

const (
	ofBaseline kind = iota
	ofVIP
	ofBranch
	ofScope
	ofTask
	ofPools
	ofPlan
)

// place is the place of a line that changes the snapshot, and false for another line. gone reports
// whether the line takes away the one before.
func (l line) place() (at place, gone, ok bool) {
	switch {
	case l.Row != nil && l.Row.VIP != nil:
		return place{kind: ofVIP, vip: *l.Row.VIP, cluster: l.Row.Cluster}, l.Row.Gone, true
	case l.Row != nil && l.Row.Branch != nil:
		return place{kind: ofBranch, name: *l.Row.Branch, cluster: l.Row.Cluster}, l.Row.Gone, true
	case l.Row != nil:
		return place{kind: ofBaseline, cluster: l.Row.Cluster}, l.Row.Gone, true
	case l.Scope != nil:
		return place{kind: ofScope, vip: l.Scope.VIP}, l.Scope.Gone, true
	case l.Task != nil:
		return place{kind: ofTask, name: l.Task.Task}, l.Task.Gone, true
	case l.Pools != nil:
		return place{kind: ofPools}, len(*l.Pools) == 0, true
	case l.Plan != nil:
		return place{kind: ofPlan, name: content(l.Plan.Intent)}, l.Plan.Gone, true
	}
	return place{}, false, false
}

// gone is the line that takes away the line of a place.
func (p place) gone() line {
	switch p.kind {
	case ofBaseline:
		return line{Row: &row{Cluster: p.cluster, Gone: true}}
	case ofVIP:
		return line{Row: &row{VIP: &p.vip, Cluster: p.cluster, Gone: true}}
	case ofBranch:
		return line{Row: &row{Branch: &p.name, Cluster: p.cluster, Gone: true}}
	case ofScope:
		return line{Scope: &scope{VIP: p.vip, Gone: true}}
	case ofTask:
		return line{Task: &task{Task: p.name, Gone: true}}
	case ofPlan:
		var in nginxsync.Intent
		_ = json.Unmarshal([]byte(p.name), &in) // it is content's
		return line{Plan: &plan{Intent: in, Gone: true}}
	}
	return line{Pools: &pools{}}
}

// content is an intent without its number.
func content(in nginxsync.Intent) string {
	in.Until = stamp(in.Until)
	return string(encode(in))
}

// stamp is a time as JSON has it: of years of four digits, in UTC.
func stamp(t time.Time) time.Time {
	t = t.UTC()
	if first := (time.Time{}); t.Before(first) {
		return first
	}
	if last := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC); t.After(last) {
		return last
	}
	return t
}

// encode is the JSON of a value of this package, which has one.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("relay: %T: %v", v, err)) // the types here have no such value
	}
	return text
}

// sum is that of a line, or of several in any order by exclusive or.
type sum uint64

func sumOf(text string) sum {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // does not fail
	return sum(h.Sum64())
}

// MarshalText implements encoding.TextMarshaler.
func (s sum) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%016x", uint64(s)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *sum) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	*s = sum(n)
	return err
}
