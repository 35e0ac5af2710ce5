// Package hosts treats several Nginx hosts, each with an agent, as one: it waits until enough of
// them show a deployment, and changes one after another.
//
// Each host answers for itself, through the HTTP interface of its agent (package agenthttp). No
// host knows of the others, and a platform that is away keeps none from working.
//
//	h, err := hosts.New(hosts.Config{Hosts: []hosts.Host{{Name: "n1", Agent: client}, …}})
//	...
//	report, err := h.WaitReady(ctx, hosts.Want{VIP: vip, URL: "http://www.example/",
//		Clusters: map[string]string{"hello_web": "v2"}})
//
// Steps for the embedder:
//
//   - give each agent a token (agenthttp.Handler.Remote), and make a client of each host;
//   - call WaitReady after the snapshot of a deployment went to the source;
//   - call Roll for a change that must not happen to all hosts at the same time.
//
// A host that joins late, or was away, counts from the moment its own health says so, which is when
// its Nginx has the routes.
package hosts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Config configures Hosts. Hosts is required.
type Config struct {
	Hosts []Host
	// Quorum is how many hosts have to be ready. The default is more than half of them.
	Quorum int
	// Timeout bounds the questions to one host in one look. The default is 5 seconds.
	Timeout time.Duration
	// Logger logs the steps of Roll. The default discards.
	Logger *slog.Logger
	// Now is the clock of Observe. The default is time.Now.
	Now func() time.Time
	// Observe is called after each look at a host with "look", and after each step of Roll with
	// "drain", "change" and "undrain", how long it took and its error. It must return soon. Nil
	// means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Host is one Nginx host. Name and Agent are required.
type Host struct {
	Name  string // in reports; each has another one
	Agent *agenthttp.Client
	// Nginx is the name of the Nginx in the agent's configuration. The default is the only one.
	Nginx string
}

// Hosts is a set of hosts. It is safe for concurrent use.
type Hosts struct{ cfg Config }

// New makes a set of hosts and asks none. A configuration that is not valid is an error with all
// its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Hosts, error) {
	p := check.Problems{Package: "hosts", Sentinel: nginxsync.ErrInvalid}
	p.Require("Hosts", len(cfg.Hosts) > 0)
	seen := map[string]bool{}
	for i, h := range cfg.Hosts {
		if h.Name == "" || h.Agent == nil || seen[h.Name] {
			p.Add("Hosts", "%d: want Agent and a Name that no other host has, found %.64q", i,
				h.Name)
		}
		seen[h.Name] = true
	}
	check.Number(&p, "Quorum", &cfg.Quorum, len(cfg.Hosts)/2+1)
	if len(cfg.Hosts) > 0 && cfg.Quorum > len(cfg.Hosts) {
		p.Add("Quorum", "%d: there are %d hosts", cfg.Quorum, len(cfg.Hosts))
	}
	p.Duration("Timeout", &cfg.Timeout, 5*time.Second)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	cfg.Hosts = slices.Clone(cfg.Hosts)
	return &Hosts{cfg}, nil
}

// Want says which deployment a host has to show. VIP and Clusters are required.
type Want struct {
	VIP netip.Addr
	// Clusters are the versions by cluster: every instance that serves the cluster on the VIP has
	// it.
	Clusters map[string]string
	// URL is asked for on the VIP, through the Nginx of each host. The answer has to come from an
	// instance, with a status below 500. Empty means that no page is asked for.
	URL string
	// Version is the one that the answer has to have in X-Sluice-Version. The default is any of
	// Clusters.
	Version string
	// Instances are the ids that the answer may have in Identity, by the instance's own word. An
	// answer without the header passes. The default is all.
	Instances []string
	// Identity is the header of Instances. The default is agenthttp.DefaultIdentity.
	Identity string
}

// Report says why each host is not ready; empty where it is.
type Report map[string]string

// Ready is how many hosts are ready.
func (r Report) Ready() (n int) {
	for _, why := range r {
		if why == "" {
			n++
		}
	}
	return n
}

// String is such as "1 of 3 hosts are ready; n1: no answer within 5s; n3: drained by ops".
func (r Report) String() string {
	text := fmt.Sprintf("%d of %d hosts are ready", r.Ready(), len(r))
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if r[name] != "" {
			text += "; " + name + ": " + r[name]
		}
	}
	return text
}

// Look asks every host once.
func (h *Hosts) Look(ctx context.Context, want Want) (Report, error) {
	if !want.VIP.IsValid() || len(want.Clusters) == 0 {
		return nil, fmt.Errorf("want a VIP and clusters: %w", nginxsync.ErrInvalid)
	}
	return h.each(ctx, func(ctx context.Context, host Host) error {
		return host.shows(ctx, want)
	}), nil
}

// each asks all hosts at the same time.
func (h *Hosts) each(ctx context.Context, ask func(context.Context, Host) error) Report {
	whys := make([]string, len(h.cfg.Hosts))
	var wg sync.WaitGroup
	for i, host := range h.cfg.Hosts {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, h.cfg.Timeout,
				fmt.Errorf("no answer within %s", h.cfg.Timeout))
			defer cancel()
			start := h.cfg.Now()
			err := ask(ctx, host)
			h.cfg.Observe("look", h.cfg.Now().Sub(start), err)
			if err != nil {
				whys[i] = cmp.Or(err.Error(), "fails")
			}
		})
	}
	wg.Wait()
	report := Report{}
	for i, host := range h.cfg.Hosts {
		report[host.Name] = whys[i]
	}
	return report
}

// healthy returns an error with the reasons why the host must not get requests.
func (h Host) healthy(ctx context.Context) error {
	health, err := h.Agent.Health(ctx)
	if err != nil {
		return err
	}
	if !health.OK {
		return errors.New(strings.Join(health.Reasons, ", "))
	}
	return nil
}

// shows returns an error unless the host shows the deployment.
func (h Host) shows(ctx context.Context, want Want) error {
	if err := h.healthy(ctx); err != nil {
		return err
	}
	for _, cluster := range slices.Sorted(maps.Keys(want.Clusters)) {
		e, err := h.Agent.Serves(ctx, want.VIP, cluster, h.Nginx)
		if err != nil {
			return err
		}
		if version := want.Clusters[cluster]; !slices.Equal(e.Versions, []string{version}) {
			return fmt.Errorf("cluster %s on %s is served by versions %q, want %q", cluster,
				want.VIP, e.Versions, version)
		}
	}
	if want.URL == "" {
		return nil
	}
	got, err := h.Agent.Probe(ctx, agenthttp.Probe{VIP: want.VIP, URL: want.URL,
		Identity: want.Identity})
	if err != nil {
		return err
	}
	versions := slices.Collect(maps.Values(want.Clusters))
	if want.Version != "" {
		versions = []string{want.Version}
	}
	switch {
	case got.Status >= 500 || got.Reason != "":
		return fmt.Errorf("%s: status %d %s", want.URL, got.Status, got.Reason)
	case !slices.Contains(versions, got.Version):
		return fmt.Errorf("%s: answered by version %q, want one of %q", want.URL, got.Version,
			versions)
	case len(want.Instances) > 0 && got.Instance != "" &&
		!slices.Contains(want.Instances, got.Instance):
		return fmt.Errorf("%s: answered by instance %.128q, want one of %q", want.URL,
			got.Instance, want.Instances)
	}
	return nil
}

// WaitReady waits until Config.Quorum of the hosts are ready: each is healthy, so that all workers
// of its Nginx have its routes, shows the versions on the VIP, and has answered the URL by an
// instance that is expected. The report is that of the last look. When ctx ends, the error has the
// report and the context's cause in its chain.
func (h *Hosts) WaitReady(ctx context.Context, want Want) (Report, error) {
	tries := retry.Backoff{}
	for {
		report, err := h.Look(ctx, want)
		switch {
		case err != nil:
			return nil, err
		case report.Ready() >= h.cfg.Quorum:
			return report, nil
		case ctx.Err() != nil:
			return report, fmt.Errorf("wait for %d hosts: %s: %w", h.cfg.Quorum, report,
				context.Cause(ctx))
		}
		// a context that ends: once more through the loop, for the report
		_ = retry.Sleep(ctx, tries.Next(20*time.Millisecond, time.Second))
	}
}
