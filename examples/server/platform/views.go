package platform

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/promote"
)

// Deployment is the version that serves a cluster in an environment.
type Deployment struct {
	Cluster     string    `json:"cluster"`
	Environment string    `json:"environment"`
	Task        string    `json:"task,omitempty"`
	Version     string    `json:"version"`
	Digest      string    `json:"digest"`
	Actor       string    `json:"actor"`
	Since       time.Time `json:"since"`
}

// DeploymentOf is d as the API shows it.
func DeploymentOf(d promote.Deployment) Deployment {
	return Deployment{d.Cluster, d.Environment, d.Task, d.Version, string(d.Digest), d.Actor,
		d.Since}
}

// Overview is the table of clusters × environments.
type Overview struct {
	Environments []string          `json:"environments"`
	Clusters     []ClusterOverview `json:"clusters"`
}

// ClusterOverview is one row: the deployments by environment; tasks stand beside one another in
// test.
type ClusterOverview struct {
	Cluster     string                  `json:"cluster"`
	Deployments map[string][]Deployment `json:"deployments"`
}

// Overview returns every cluster that Nginx knows, and every other one that has a version, with its
// deployments.
func (p *Platform) Overview(ctx context.Context) (Overview, error) {
	current, err := p.promoter.Current(ctx)
	if err != nil {
		return Overview{}, err
	}
	bindings, err := p.promoter.Bindings(ctx, "")
	if err != nil {
		return Overview{}, err
	}
	clusters := slices.Clone(p.Edge.Clusters)
	for _, b := range bindings {
		clusters = append(clusters, b.Cluster)
	}
	slices.Sort(clusters)
	overview := Overview{Environments: p.pipeline}
	rows := map[string]map[string][]Deployment{}
	for _, cluster := range slices.Compact(clusters) {
		rows[cluster] = map[string][]Deployment{}
		overview.Clusters = append(overview.Clusters, ClusterOverview{cluster, rows[cluster]})
	}
	for _, d := range current {
		if row := rows[d.Cluster]; row != nil {
			row[d.Environment] = append(row[d.Environment], DeploymentOf(d))
		}
	}
	return overview, nil
}

// Version is a version of a cluster and the digest that it stands for, permanently.
type Version struct {
	Cluster string    `json:"cluster"`
	Version string    `json:"version"`
	Digest  string    `json:"digest"`
	Actor   string    `json:"actor"`
	Bound   time.Time `json:"bound"`
}

// Versions returns the versions of the cluster, or with "" of all clusters, oldest first.
func (p *Platform) Versions(ctx context.Context, cluster string) ([]Version, error) {
	bindings, err := p.promoter.Bindings(ctx, cluster)
	if err != nil {
		return nil, err
	}
	versions := make([]Version, 0, len(bindings))
	for _, b := range bindings {
		versions = append(versions, Version{b.Cluster, b.Version, string(b.Digest), b.Actor,
			b.Time})
	}
	return versions, nil
}

// Entry is a line of the journal.
type Entry struct {
	// At is the place in the whole journal, Seq the one among the entries of the cluster.
	At          uint64    `json:"at"`
	Seq         uint64    `json:"seq"`
	Time        time.Time `json:"time"`
	Kind        string    `json:"kind"`
	Op          string    `json:"op,omitempty"`
	Cluster     string    `json:"cluster"`
	Environment string    `json:"environment,omitempty"`
	Task        string    `json:"task,omitempty"`
	Version     string    `json:"version"`
	Digest      string    `json:"digest"`
	Actor       string    `json:"actor"`
	Reason      string    `json:"reason,omitempty"`
	Error       string    `json:"error,omitempty"`
	Change      string    `json:"change,omitempty"` // that the entry belongs to
	Note        string    `json:"note,omitempty"`   // which gates were overridden, and why
}

// Journal returns the entries of the cluster, or with "" of all clusters, oldest first.
func (p *Platform) Journal(ctx context.Context, cluster string) ([]Entry, error) {
	history, err := p.promoter.History(ctx, promote.Target{Cluster: cluster})
	if err != nil {
		return nil, err
	}
	return entriesOf(history), nil
}

func entriesOf(journal []promote.Entry) []Entry {
	entries := make([]Entry, 0, len(journal))
	for _, e := range journal {
		entries = append(entries, Entry{
			e.At, e.Seq, e.Time, string(e.Kind), string(e.Op), e.Cluster, e.Environment, e.Task,
			e.Version, string(e.Digest), e.Actor, e.Reason, e.Error,
			string(e.ID()), e.Note,
		})
	}
	return entries
}

// Recent returns the newest n entries of the journal with an At below before, newest first; before
// 0 is the journal's end.
func (p *Platform) Recent(ctx context.Context, before uint64, n int) ([]Entry, error) {
	recent, err := p.promoter.Recent(ctx, promote.Target{}, before, n)
	return entriesOf(recent), err
}

// MaxEntries is the most that one JournalQuery may ask for.
const MaxEntries = 1000

// JournalQuery asks for a part of the journal. An empty field of the target matches everything.
type JournalQuery struct {
	Cluster, Environment, Task string
	// After asks for the oldest entries with an At above it, unless it is 0.
	After uint64
	// Before asks for the newest entries with an At below it; 0 is the journal's end. One of After
	// and Before is 0.
	Before uint64
	// Limit is how many at most, 1 to MaxEntries.
	Limit int
}

// JournalPage returns a part of the journal, oldest first, and whether there are others on the side
// where After or Before leads on: newer ones with After, else older ones.
func (p *Platform) JournalPage(ctx context.Context, q JournalQuery) (entries []Entry, more bool,
	err error) {
	if q.Limit < 1 || q.Limit > MaxEntries {
		return nil, false, invalid("limit %d: want 1 to %d", q.Limit, MaxEntries)
	}
	if q.After > 0 && q.Before > 0 {
		return nil, false, invalid("after %d and before %d: want one of them", q.After, q.Before)
	}
	target := promote.Target{Cluster: q.Cluster, Environment: q.Environment, Task: q.Task}
	var found []promote.Entry
	if q.After > 0 {
		if found, err = p.promoter.History(ctx, target); err != nil {
			return nil, false, err
		}
		from, _ := slices.BinarySearchFunc(found, q.After+1, func(e promote.Entry, at uint64) int {
			return cmp.Compare(e.At, at)
		})
		found = found[from:]
	} else {
		if found, err = p.promoter.Recent(ctx, target, q.Before, q.Limit+1); err != nil {
			return nil, false, err
		}
	}
	more = len(found) > q.Limit
	found = found[:min(q.Limit, len(found))]
	if q.After == 0 {
		slices.Reverse(found)
	}
	return entriesOf(found), more, nil
}

// Pool counts the addresses of a pool.
type Pool struct {
	Pool     string `json:"pool"`
	Size     uint64 `json:"size"`
	Free     uint64 `json:"free"`
	Leased   uint64 `json:"leased"`
	Cooling  uint64 `json:"cooling"`
	Reserved uint64 `json:"reserved"`
}

// Pools returns the pools' counts.
func (p *Platform) Pools() []Pool {
	var pools []Pool
	for _, s := range p.leases.Stats() {
		pools = append(pools, Pool{s.Pool, s.Size, s.Free, s.Leased + s.Draining, s.Cooling +
			s.Quarantined, s.Reserved})
	}
	return pools
}

// Instances returns all instances, sorted by id.
func (p *Platform) Instances() []instance.Instance { return p.instances.List() }

// InstanceLog returns the file that the output of a running instance goes to. Another one is
// ErrNotFound.
func (p *Platform) InstanceLog(id string) (string, error) {
	if !slices.ContainsFunc(p.instances.List(), func(i instance.Instance) bool {
		return i.ID == id
	}) {
		return "", fmt.Errorf("%w: no instance %q runs", ErrNotFound, id)
	}
	return p.instances.Log(id), nil
}

// NginxStatus is the state that the agent and Nginx report.
type NginxStatus struct {
	Port     int      `json:"port"`
	Revision uint64   `json:"revision"` // of the routes that are asked for
	Verified uint64   `json:"verified"` // the newest that every worker answers with
	Workers  []Worker `json:"workers"`
	// clusters whose last instances are kept against an unplanned loss
	Held  int    `json:"held"`
	Error string `json:"error,omitempty"`
	// Changes lists the changes in the production configuration.
	Changes []NginxChange `json:"changes"`
}

// NginxChange is one change in the production configuration, at file:line, and its reason.
type NginxChange struct {
	At     string `json:"at"`
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
}

// Worker is one worker process of Nginx; Verified says that it answers with the newest routes.
type Worker struct {
	PID      int  `json:"pid"`
	Verified bool `json:"verified"`
}

// NginxStatus asks Nginx.
func (p *Platform) NginxStatus(ctx context.Context) (NginxStatus, error) {
	state, err := p.driver.State(ctx)
	if err != nil {
		return NginxStatus{}, err
	}
	status := p.routes.Agent().Status()
	out := NginxStatus{
		Port: p.config.NginxPort, Revision: status.Revision, Verified: status.VerifiedRevision,
		Held: len(status.Held), Error: status.LastError,
	}
	if damage := p.routes.Damage(); out.Error == "" && damage != nil {
		out.Error = damage.Error()
	}
	for _, c := range p.Edge.Result.Changes {
		out.Changes = append(out.Changes, NginxChange{c.At.String(), c.Rule, c.Reason})
	}
	for _, w := range state.Workers {
		out.Workers = append(out.Workers, Worker{w.PID, w.Applied == state.Applied})
	}
	return out, nil
}
