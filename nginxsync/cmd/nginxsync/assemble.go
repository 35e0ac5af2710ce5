package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/agentmetrics"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/consulsource"
	"github.com/sluice-deploy/sluice/nginxsync/cutoff"
	"github.com/sluice-deploy/sluice/nginxsync/healthcheck"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/supervisor"
)

// assembly has the parts that one reading of the configuration file makes.
type assembly struct {
	file    *agentFile
	log     *slog.Logger
	runs    []func(context.Context) error // of the sources and the supervisors
	stops   []func(context.Context) error // of each Nginx that ends with the agent
	agents  []*nginxsync.Agent
	handler *agenthttp.Handler
	remote  http.Handler // nil without remote
	relay   http.Handler // nil without relay
	tls     struct{ remote, relay *tls.Config }
	metrics *agentmetrics.Metrics
	checks  func() healthcheck.Status // nil without checks
}

// assemble makes everything that the file asks for and starts nothing. The error lists every
// problem of the file with its line.
func assemble(ctx context.Context, f *agentFile, stderr io.Writer) (*assembly, error) {
	a := &assembly{file: f}
	var errs []error
	bad := func(at string, err error) {
		for _, e := range flatten(err) {
			errs = append(errs, f.problem(at, e))
		}
	}
	if _, _, err := agenthttp.ParseListen(f.Listen); err != nil {
		bad("listen", err)
	}
	if f.Public != "" {
		if _, err := netip.ParseAddrPort(f.Public); err != nil {
			bad("public", fmt.Errorf("%.128q: want an address with a port, such as 0.0.0.0:9181",
				f.Public))
		}
	}
	if !filepath.IsAbs(f.DrainFile) {
		bad("drainFile", fmt.Errorf("%.128q: want an absolute path", f.DrainFile))
	}
	remote, passOn := f.Remote.entrance("remote", bad), f.Relay.entrance("relay", bad)
	a.tls.remote, a.tls.relay = remote.tls, passOn.tls
	var err error
	if a.log, err = newLogger(f.Log, stderr); err != nil {
		bad("log", err)
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.metrics, err = agentmetrics.New(agentmetrics.Config{}); err != nil {
		return nil, err
	}
	parts := a.sources("sources", f.Sources, bad)
	a.runs = append(a.runs, parts.runs...)
	source := a.check(parts.source(), bad)
	if a.checks != nil {
		a.metrics.SetChecks(a.counts)
	}
	targets := a.targets(ctx, source, bad)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	a.handler, err = agenthttp.New(agenthttp.Config{Targets: targets, Sources: parts.shown,
		Lag: f.Lag, Checks: a.checks, DrainFile: f.DrainFile, Logger: a.log, Metrics: a.metrics,
		Now: now, Observe: a.metrics.Observe("http")})
	if err != nil {
		for _, e := range flatten(err) {
			at := "drainFile"
			if strings.Contains(e.Error(), "Config.Lag") {
				at = "lag"
			}
			bad(at, e)
		}
		return nil, errors.Join(errs...)
	}
	if f.Remote != nil {
		if a.remote, err = a.handler.Remote(remote.token); err != nil {
			return nil, f.problem("remote.tokenFile", err)
		}
	}
	if f.Relay != nil {
		if err := a.passOn(parts.source(), passOn.token); err != nil {
			return nil, f.problem("relay.tokenFile", err)
		}
	}
	return a, nil
}

func newLogger(l logEntry, stderr io.Writer) (*slog.Logger, error) {
	options := &slog.HandlerOptions{}
	if l.Level != "" {
		var level slog.Level
		if err := level.UnmarshalText([]byte(l.Level)); err != nil {
			return nil, fmt.Errorf("level %.64q: want debug, info, warn or error", l.Level)
		}
		options.Level = level
	}
	switch l.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(stderr, options)), nil
	}
	return nil, fmt.Errorf("format %.64q: want text or json", l.Format)
}

func (c *consulEntry) config(log *slog.Logger,
	observe func(string, time.Duration, error)) consulsource.Config {
	client := &api.Config{Address: c.Address, Datacenter: c.Datacenter, Namespace: c.Namespace,
		TokenFile: c.TokenFile}
	if c.TLS != nil {
		client.Scheme = "https"
		client.TLSConfig = api.TLSConfig{CAFile: c.TLS.CA, CertFile: c.TLS.Cert,
			KeyFile: c.TLS.Key, Address: c.TLS.ServerName}
	}
	return consulsource.Config{Consul: client, Tag: c.Tag, Services: c.Services, Filter: c.Filter,
		VersionMeta: c.VersionMeta, Wait: c.Wait, Connections: c.Connections,
		MaxStale: c.MaxStale, FirstWait: c.FirstWait, Logger: log, Now: now,
		Observe: observe}
}

// targets makes an agent for each Nginx.
func (a *assembly) targets(ctx context.Context, source nginxsync.Source,
	bad func(string, error)) (targets []agenthttp.Target) {
	seen := map[string]string{}
	for i, n := range a.file.Nginx {
		at := fmt.Sprintf("nginx[%d]", i)
		whole := true
		for _, key := range []struct{ name, value string }{{"name", n.Name}, {"socket", n.Socket},
			{"stateFile", n.StateFile}} {
			switch known := key.name + " " + key.value; {
			case key.value == "":
				bad(at+"."+key.name, errors.New("is required where there are several Nginx"))
				whole = false
			case seen[known] != "":
				bad(at+"."+key.name, fmt.Errorf("%.128q: %s has it", key.value, seen[known]))
				whole = false
			default:
				seen[known] = at
			}
		}
		if n.StateFile != "" && !filepath.IsAbs(n.StateFile) {
			bad(at+".stateFile", fmt.Errorf("%.128q: want an absolute path", n.StateFile))
			whole = false
		}
		tree, err := n.reader()
		if err != nil {
			bad(at, err)
		}
		if !whole {
			continue
		}
		if n.Start != nil {
			a.supervise(n, at+".start", bad)
		}
		driver, cut, err := a.driver(n, at, bad)
		if err != nil {
			continue
		}
		g := a.file.Guard
		agent, err := nginxsync.OpenAgent(ctx, nginxsync.Config{Source: source, Driver: driver,
			StateFile: n.StateFile, Logger: a.log.With("nginx", n.Name),
			Now: now, Observe: stepped(a.metrics.Observe(n.Name)),
			Guard: nginxsync.Guard{Share: g.Share, AlarmAfter: g.AlarmAfter,
				ReleaseAfter: g.ReleaseAfter}})
		if source == nil { // a problem that was noted
			continue
		}
		if err != nil {
			bad("guard", err)
			continue
		}
		a.agents = append(a.agents, agent)
		targets = append(targets, agenthttp.Target{Name: n.Name, Agent: agent, Driver: driver,
			Tree: tree, Cutoff: cut})
	}
	watched := make([]agentmetrics.Target, len(targets))
	for i, t := range targets {
		watched[i] = agentmetrics.Target{Name: t.Name, Status: t.Agent.Status}
		if t.Cutoff != nil {
			watched[i].Cutoff = func() agentmetrics.Cutoff {
				s := t.Cutoff()
				return agentmetrics.Cutoff{Waiting: s.Waiting, Ended: s.Ended,
					Failing: s.Error != ""}
			}
		}
	}
	a.metrics.SetTargets(watched)
	return targets
}

// driver makes the driver of an Nginx, and the status of the ends of connections, nil without any.
// It notes its error.
func (a *assembly) driver(n nginxEntry, at string, bad func(string, error)) (nginxsync.Driver,
	func() agenthttp.Cutoff, error) {
	driver, err := luadriver.New(luadriver.Config{Socket: n.Socket})
	if err != nil {
		bad(at+".socket", err)
		return nil, nil, err
	}
	cut, err := cutoff.New(cutoff.Config{Driver: driver, After: n.CutAfter,
		File: n.StateFile + ".gone", Logger: a.log.With("nginx", n.Name), Now: now,
		Observe: a.metrics.Observe(n.Name)})
	if err != nil {
		bad(at+".cutAfter", err)
		return nil, nil, err
	}
	if n.KeepOpen {
		return driver, nil, nil
	}
	a.runs = append(a.runs, cut.Run)
	return cut, func() agenthttp.Cutoff { return agenthttp.Cutoff(cut.Status()) }, nil
}

// supervise has the agent start an Nginx.
func (a *assembly) supervise(n nginxEntry, at string, bad func(string, error)) {
	if n.Tree == "" {
		bad(at, errors.New("want the main file of the configuration as tree"))
		return
	}
	s, err := supervisor.New(supervisor.Config{Prefix: n.Start.Prefix, Program: n.Start.Program,
		Main: n.Tree, PIDFile: n.Start.PIDFile, ErrorLog: n.Start.ErrorLog,
		Before: func() error {
			return luadriver.RemoveStaleSockets(luadriver.SnippetConfig{Socket: n.Socket})
		},
		Logger: a.log.With("nginx", n.Name), Observe: a.metrics.Observe(n.Name)})
	if err != nil {
		bad(at, err)
		return
	}
	a.runs = append(a.runs, s.Run)
	if n.Start.Stop {
		a.stops = append(a.stops, s.Stop)
	}
}

// reader returns the function that reads the tree of an Nginx; nil when none is named.
func (n nginxEntry) reader() (func(context.Context) (*conf.Tree, error), error) {
	if n.Tree == "" {
		return nil, nil
	}
	if !filepath.IsAbs(n.Tree) {
		return nil, fmt.Errorf("tree: %.128q: want the absolute path of the main file", n.Tree)
	}
	dir, main := filepath.Split(n.Tree)
	root := n.Root
	if root == "" {
		root = strings.TrimSuffix(dir, "/")
	}
	p := &places{root: root, roots: conf.Roots{}, extra: map[string]string{}}
	for abs, dir := range n.Also {
		at := ".also" + abs
		p.roots[abs], p.extra[at] = at, dir
	}
	p.roots[root] = "."
	if err := p.roots.Validate(); err != nil {
		return nil, fmt.Errorf("root, also: %w", err)
	}
	return func(context.Context) (*conf.Tree, error) {
		again := &places{root: p.root, roots: conf.Roots{}, extra: p.extra}
		for abs, at := range p.roots {
			again.roots[abs] = at
		}
		return again.parse(dir, main)
	}, nil
}

// run runs the sources and agents until ctx ends.
func (a *assembly) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, run := range a.runs {
		wg.Go(func() { _ = run(ctx) }) // its error is the context's cause
	}
	for _, agent := range a.agents {
		wg.Go(func() { _ = agent.Run(ctx) })
	}
	wg.Wait()
}

// stop ends each Nginx that is to end with the agent, after its requests.
func (a *assembly) stop() {
	for _, stop := range a.stops {
		if err := stop(context.Background()); err != nil {
			a.log.Error("stop nginx", "err", err)
		}
	}
}

// alive reports whether every agent has looked at its Nginx since the last call. beats are the
// revisions of that call.
func (a *assembly) alive(beats map[*nginxsync.Agent]uint64) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return !slices.ContainsFunc(a.agents, func(agent *nginxsync.Agent) bool {
		status, revision, err := agent.Watch(ctx, 0)
		stuck := err != nil || revision == beats[agent] && status.Fenced == ""
		beats[agent] = revision
		return stuck
	})
}
