package rules

import (
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
)

// Rules are the rules of a document. They never change.
type Rules struct{ list []rule }

// Cluster are the rules of one cluster, by environment.
type Cluster struct {
	// Approvals are the rules of promote.ApprovalGate.
	Approvals map[string]promote.ApprovalRule
	// Soak are the times of promote.SoakGate.
	Soak map[string]time.Duration
	// Traffic are the numbers of promote.TrafficGate.
	Traffic map[string]uint64
	// Freezes are those of promote.FreezeGate.
	Freezes []promote.Freeze
	// From are the names of the rules that apply, in the order of the document.
	From []string
}

// rule is one rule of a document.
type rule struct {
	name     string
	line     int
	clusters []string // patterns; empty for all
	Cluster
}

// applies reports whether the rule is for a cluster.
func (r rule) applies(cluster string) bool {
	return len(r.clusters) == 0 || slices.ContainsFunc(r.clusters, func(pattern string) bool {
		prefix, any := strings.CutSuffix(pattern, "*")
		return pattern == cluster || any && strings.HasPrefix(cluster, prefix)
	})
}

// For returns the rules of a cluster. The caller may change the maps and slices of the answer, but
// not the approvers in it.
func (r *Rules) For(cluster string) Cluster {
	all := Cluster{Approvals: map[string]promote.ApprovalRule{}, Soak: map[string]time.Duration{},
		Traffic: map[string]uint64{}}
	for _, rule := range r.list {
		if rule.applies(cluster) {
			maps.Copy(all.Approvals, rule.Approvals)
			maps.Copy(all.Soak, rule.Soak)
			maps.Copy(all.Traffic, rule.Traffic)
			all.Freezes = append(all.Freezes, rule.Freezes...)
			all.From = append(all.From, rule.name)
		}
	}
	maps.DeleteFunc(all.Approvals, func(_ string, r promote.ApprovalRule) bool {
		return r.Count == 0
	})
	maps.DeleteFunc(all.Soak, func(_ string, d time.Duration) bool { return d == 0 })
	maps.DeleteFunc(all.Traffic, func(_ string, n uint64) bool { return n == 0 })
	return all
}

// rule reads one rule.
func (p *parser) rule(n *yaml.Node) rule {
	r := rule{line: n.Line, Cluster: Cluster{Approvals: map[string]promote.ApprovalRule{},
		Soak: map[string]time.Duration{}, Traffic: map[string]uint64{}}}
	p.mapping(n, map[string]func(*yaml.Node){
		"name": func(n *yaml.Node) { r.name = p.text(n) },
		"clusters": func(n *yaml.Node) {
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				p.bad(n, "no cluster: leave clusters out for all of them")
			}
			p.sequence(n, func(n *yaml.Node) { r.clusters = append(r.clusters, p.pattern(n)) })
		},
		"approvals": func(n *yaml.Node) {
			p.environments(n, true, func(environment string, n *yaml.Node) {
				r.Approvals[environment] = p.approval(environment, n)
			})
		},
		"soak": func(n *yaml.Node) {
			p.environments(n, false, func(environment string, n *yaml.Node) {
				r.Soak[environment] = p.duration(n)
			})
		},
		"traffic": func(n *yaml.Node) {
			p.environments(n, false, func(environment string, n *yaml.Node) {
				r.Traffic[environment] = p.number(n)
			})
		},
		"freezes": func(n *yaml.Node) {
			p.sequence(n, func(n *yaml.Node) { r.Freezes = append(r.Freezes, p.freeze(n)) })
		},
	})
	if strings.TrimSpace(r.name) == "" {
		p.bad(n, "a rule without a name")
	}
	return r
}

// pattern reads a cluster, or the beginning of clusters with "*" behind it.
func (p *parser) pattern(n *yaml.Node) string {
	pattern := p.text(n)
	name := pattern
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		name = prefix + "a" // a prefix may end with a separator
	}
	if err := names.Cluster(name); err != nil {
		p.bad(n, "cluster %s: want the name of a cluster, or its beginning and *: %v",
			names.Quote(pattern), err)
	}
	return pattern
}

func (p *parser) approval(environment string, n *yaml.Node) promote.ApprovalRule {
	var rule promote.ApprovalRule
	count := false
	before := len(p.errs)
	p.mapping(n, map[string]func(*yaml.Node){
		"count": func(n *yaml.Node) {
			count = true
			rule.Count = int(min(p.number(n), 1<<20))
		},
		"approvers": func(n *yaml.Node) {
			rule.Approvers = p.texts(n)
			for _, actor := range rule.Approvers {
				if err := names.Actor(actor); err != nil {
					p.bad(n, "approvers: %v", err)
				}
			}
			if len(rule.Approvers) == 0 {
				p.bad(n, "no approver: leave approvers out for everybody")
			}
		},
		"notBuilder":  func(n *yaml.Node) { rule.NotBuilder = p.yes(n) },
		"notDeployer": func(n *yaml.Node) { rule.NotDeployer = p.yes(n) },
		"within":      func(n *yaml.Node) { rule.Within = p.duration(n) },
	})
	if !count {
		p.bad(n, "no count: want how many people have to approve, or 0")
	}
	if rule.Count > 0 && len(p.errs) == before {
		p.gate(n, promote.ApprovalGate{Rules: map[string]promote.ApprovalRule{
			environment: rule}}.Validate(p.pipeline))
	}
	return rule
}

func (p *parser) freeze(n *yaml.Node) promote.Freeze {
	var f promote.Freeze
	before := len(p.errs)
	p.mapping(n, map[string]func(*yaml.Node){
		"reason":       func(n *yaml.Node) { f.Reason = p.text(n) },
		"environments": func(n *yaml.Node) { f.Environments = p.texts(n) },
		"from":         func(n *yaml.Node) { f.From = p.instant(n) },
		"until":        func(n *yaml.Node) { f.Until = p.instant(n) },
		"days": func(n *yaml.Node) {
			p.sequence(n, func(n *yaml.Node) { f.Days = append(f.Days, p.weekday(n)) })
		},
		"start": func(n *yaml.Node) {
			at, err := time.Parse("15:04", n.Value)
			if err != nil {
				p.bad(n, "%s: want a time of day such as \"16:00\", in quotes",
					names.Quote(n.Value))
			}
			f.Start = time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
		},
		"length": func(n *yaml.Node) { f.Length = p.duration(n) },
		"location": func(n *yaml.Node) {
			location, err := time.LoadLocation(p.text(n))
			if err != nil || n.Value == "Local" {
				p.bad(n, "%s: want a name of the tz database, such as Europe/Berlin, that this "+
					"machine has", names.Quote(n.Value))
			}
			f.Location = location
		},
		"rollbacks": func(n *yaml.Node) { f.Rollbacks = p.yes(n) },
	})
	if len(p.errs) == before {
		p.gate(n, promote.FreezeGate{Freezes: []promote.Freeze{f}}.Validate(p.pipeline))
	}
	return f
}

func (p *parser) weekday(n *yaml.Node) time.Weekday {
	for day := time.Sunday; day <= time.Saturday; day++ {
		if strings.EqualFold(day.String(), n.Value) {
			return day
		}
	}
	p.bad(n, "%s: want a day of the week, such as friday", names.Quote(n.Value))
	return 0
}
