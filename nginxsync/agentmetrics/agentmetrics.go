// Package agentmetrics serves the state of agents in the text format of Prometheus, version 0.0.4
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
//
// Steps for the embedder:
//
//   - make one Metrics with New before the agents;
//   - give Metrics.Observe of each agent and source as its Config.Observe;
//   - call SetTargets with the agents, and SetChecks where there are health checks;
//   - serve the Metrics at /metrics, such as by agenthttp.Config.Metrics.
//
// All names begin with "sluice_agent_". The gauges show nginxsync.Status at the moment of the
// scrape. The package has no client library of Prometheus: a program that has one may read
// nginxsync.Status itself.
package agentmetrics

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// Config configures Metrics. The zero value is ready to use.
type Config struct {
	// Now is the clock of ages. The default is time.Now.
	Now func() time.Time
}

// Target is an Nginx.
type Target struct {
	Name   string // the label "nginx"
	Status func() nginxsync.Status
	// Cutoff counts the ends of connections to instances that are gone. The default is none.
	Cutoff func() Cutoff
}

// Cutoff counts the ends of connections to instances that are gone.
type Cutoff struct {
	Waiting int  // addresses whose time is not over
	Ended   int  // connections
	Failing bool // connections stay
}

// Checks counts the instances that have a health check.
type Checks struct {
	Checked int
	Failing map[string]int // by cluster
}

// Metrics is an http.Handler. It is safe for concurrent use.
type Metrics struct {
	cfg Config

	mu      sync.Mutex
	targets []Target
	checks  func() Checks // nil without checks
	calls   map[call]*calls
}

// call names one histogram.
type call struct{ of, op string }

// calls count by time; the last bucket has no bound.
type calls struct {
	buckets [len(bounds) + 1]uint64
	sum     float64
	errors  uint64
}

// bounds limit the histograms' buckets, in seconds: from a delta of one row to a driver that hangs.
var bounds = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// New makes Metrics without targets. No configuration is invalid yet.
func New(cfg Config) (*Metrics, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Metrics{cfg: cfg, calls: map[call]*calls{}}, nil
}

// SetTargets replaces the targets.
func (m *Metrics) SetTargets(targets []Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.targets = slices.Clone(targets)
}

// SetChecks has the metrics of checks written too: checks is called with each scrape. Nil writes
// none.
func (m *Metrics) SetChecks(checks func() Checks) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checks = checks
}

// Observe returns a function that counts calls: for Config.Observe of the agent or the source of
// that name, which becomes the label "of".
func (m *Metrics) Observe(of string) func(op string, took time.Duration, err error) {
	return func(op string, took time.Duration, err error) {
		seconds := took.Seconds()
		at, _ := slices.BinarySearch(bounds[:], seconds)
		m.mu.Lock()
		defer m.mu.Unlock()
		c := m.calls[call{of, op}]
		if c == nil {
			c = &calls{}
			m.calls[call{of, op}] = c
		}
		c.buckets[at]++
		c.sum += seconds
		if err != nil {
			c.errors++
		}
	}
}

// ServeHTTP implements http.Handler.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(m.text()) // fails when the client is gone
}

// text is the answer to a scrape.
func (m *Metrics) text() []byte {
	m.mu.Lock()
	targets, checks := m.targets, m.checks
	m.mu.Unlock()
	var b bytes.Buffer
	status := make([]nginxsync.Status, len(targets))
	for i, t := range targets {
		status[i] = t.Status()
	}
	now := m.cfg.Now()
	for _, f := range families {
		head(&b, f.name, f.help, f.kind)
		for i, t := range targets {
			sample(&b, f.name, f.value(status[i], now), "nginx", t.Name)
		}
	}
	const name = "sluice_agent_generation"
	head(&b, name, "Number of the generation of the routes.", "gauge")
	for i, t := range targets {
		s := status[i]
		for _, g := range []struct {
			state string
			at    nginxsync.Generation
		}{{"desired", s.Desired}, {"applied", s.Applied}, {"verified", s.Verified},
			{"saved", s.Saved}} {
			sample(&b, name, float64(g.at.Number), "nginx", t.Name, "state", g.state)
		}
	}
	cutoffs(&b, targets)
	if checks != nil {
		c := checks()
		const checked, failing = "sluice_agent_checked_instances", "sluice_agent_failing_instances"
		head(&b, checked, "Instances with a health check.", "gauge")
		sample(&b, checked, float64(c.Checked))
		head(&b, failing, "Instances that fail their health check, where there are any.", "gauge")
		for _, cluster := range slices.Sorted(maps.Keys(c.Failing)) {
			sample(&b, failing, float64(c.Failing[cluster]), "cluster", cluster)
		}
	}
	m.histograms(&b)
	return b.Bytes()
}

// cutoffs writes the ends of connections, of each Nginx that has some.
func cutoffs(b *bytes.Buffer, targets []Target) {
	for _, f := range []struct {
		name, help, kind string
		value            func(Cutoff) float64
	}{
		{"sluice_agent_cutoff_waiting", "Addresses that left the routes and whose connections " +
			"have time left.", "gauge", func(c Cutoff) float64 { return float64(c.Waiting) }},
		{"sluice_agent_cutoff_ended_total", "Connections to instances that are gone, ended.",
			"counter", func(c Cutoff) float64 { return float64(c.Ended) }},
		{"sluice_agent_cutoff_error", "Whether connections to instances that are gone stay.",
			"gauge", func(c Cutoff) float64 { return truth(c.Failing) }},
	} {
		head(b, f.name, f.help, f.kind)
		for _, t := range targets {
			if t.Cutoff != nil {
				sample(b, f.name, f.value(t.Cutoff()), "nginx", t.Name)
			}
		}
	}
}

// histograms writes the calls, sorted.
func (m *Metrics) histograms(b *bytes.Buffer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(m.calls), func(x, y call) int {
		return cmp.Or(cmp.Compare(x.of, y.of), cmp.Compare(x.op, y.op))
	})
	const took, failed = "sluice_agent_call_duration_seconds", "sluice_agent_call_errors_total"
	head(b, took, "Time of calls to Nginx, the state file and the sources.", "histogram")
	for _, k := range keys {
		c, n := m.calls[k], uint64(0)
		for i, count := range c.buckets {
			n += count
			bound := "+Inf"
			if i < len(bounds) {
				bound = number(bounds[i])
			}
			sample(b, took+"_bucket", float64(n), "of", k.of, "op", k.op, "le", bound)
		}
		sample(b, took+"_sum", c.sum, "of", k.of, "op", k.op)
		sample(b, took+"_count", float64(n), "of", k.of, "op", k.op)
	}
	head(b, failed, "Calls that returned an error.", "counter")
	for _, k := range keys {
		sample(b, failed, float64(m.calls[k].errors), "of", k.of, "op", k.op)
	}
}

// families are the metrics with one value for each Nginx.
var families = []struct {
	name, help, kind string
	value            func(s nginxsync.Status, now time.Time) float64
}{
	{"sluice_agent_revision", "Revision of the sources that the desired routes are made from.",
		"gauge", func(s nginxsync.Status, _ time.Time) float64 { return float64(s.Revision) }},
	{"sluice_agent_verified_revision", "Newest revision that every worker answers with.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return float64(s.VerifiedRevision) }},
	{"sluice_agent_verified", "Whether every worker answers with the desired routes.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return truth(verified(s)) }},
	{"sluice_agent_lag_seconds", "For how long not every worker has answered with the desired " +
		"routes.", "gauge", func(s nginxsync.Status, now time.Time) float64 {
		if verified(s) {
			return 0
		}
		return age(s.ChangedAt, now)
	}},
	{"sluice_agent_verified_age_seconds", "Time since Nginx was last seen to have the desired " +
		"routes.", "gauge", func(s nginxsync.Status, now time.Time) float64 {
		return age(s.VerifiedAt, now)
	}},
	{"sluice_agent_held", "Changes that the guard holds.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return float64(len(s.Held)) }},
	{"sluice_agent_held_alarms", "Changes that the guard has held for too long.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 {
			n := 0
			for _, held := range s.Held {
				if held.Alarm {
					n++
				}
			}
			return float64(n)
		}},
	{"sluice_agent_set_aside", "Records that are not valid.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return float64(len(s.SetAside)) }},
	{"sluice_agent_workers", "Workers of Nginx.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return float64(len(s.Workers)) }},
	{"sluice_agent_memory_bytes", "Memory of Nginx for routes.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return float64(s.Memory) }},
	{"sluice_agent_memory_free_bytes", "Rest of that memory.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return float64(s.Free) }},
	{"sluice_agent_pushes_total", "Pushes of routes to Nginx.", "counter",
		func(s nginxsync.Status, _ time.Time) float64 { return float64(s.Pushes) }},
	{"sluice_agent_resumed", "Whether no source has spoken since the agent began.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return truth(s.Resumed) }},
	{"sluice_agent_fenced", "Whether another agent owns Nginx or the state file.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return truth(s.Fenced != "") }},
	{"sluice_agent_nginx_error", "Whether the last attempt at Nginx failed.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return truth(s.LastError != "") }},
	{"sluice_agent_save_error", "Whether the last write of the state file failed.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return truth(s.SaveError != "") }},
	{"sluice_agent_source_error", "Whether the last attempt at the sources failed.", "gauge",
		func(s nginxsync.Status, _ time.Time) float64 { return truth(s.SourceError != "") }},
}

func verified(s nginxsync.Status) bool {
	return s.Verified == s.Desired && s.Desired != nginxsync.Generation{}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// age is the time since t in seconds; 0 when there was no such time.
func age(t, now time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return max(0, now.Sub(t).Seconds())
}

func head(b *bytes.Buffer, name, help, kind string) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample writes one value; labels are names and values in turn.
func sample(b *bytes.Buffer, name string, value float64, labels ...string) {
	b.WriteString(name + "{")
	for i := 0; i+1 < len(labels); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(labels[i] + `="` + escape.Replace(labels[i+1]) + `"`)
	}
	b.WriteString("} " + number(value) + "\n")
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
