package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/agentmetrics"
	"github.com/sluice-deploy/sluice/nginxsync/healthcheck"
	"github.com/sluice-deploy/sluice/nginxsync/healthcheck/grpcprobe"
)

// healthEntry has the agent check the instances.
type healthEntry struct {
	Quorum float64      `yaml:"quorum"`
	Checks []checkEntry `yaml:"checks"`
}

// checkEntry has one of HTTP, TCP and GRPC.
type checkEntry struct {
	Clusters []string      `yaml:"clusters"`
	HTTP     *httpEntry    `yaml:"http"`
	TCP      *struct{}     `yaml:"tcp"`
	GRPC     *grpcEntry    `yaml:"grpc"`
	Every    time.Duration `yaml:"every"`
	Timeout  time.Duration `yaml:"timeout"`
	Rise     int           `yaml:"rise"`
	Fall     int           `yaml:"fall"`
}

type httpEntry struct {
	Path  string    `yaml:"path"`
	Host  string    `yaml:"host"`
	Least int       `yaml:"least"`
	Most  int       `yaml:"most"`
	TLS   *tlsEntry `yaml:"tls"`
}

type grpcEntry struct {
	Service string    `yaml:"service"`
	TLS     *tlsEntry `yaml:"tls"`
}

// counts are the checks as the metrics have them.
func (a *assembly) counts() agentmetrics.Checks {
	status := a.checks()
	c := agentmetrics.Checks{Checked: status.Checked, Failing: map[string]int{}}
	for _, f := range status.Failing {
		c.Failing[f.Cluster]++
	}
	return c
}

// check puts a checker between the sources and the agents.
func (a *assembly) check(source nginxsync.Source, bad func(string, error)) nginxsync.Source {
	h := a.file.Health
	if h == nil || source == nil {
		return source
	}
	quorum, share := h.Quorum, a.file.Guard.Share
	if quorum == 0 {
		quorum = 0.5
	}
	if share == 0 {
		share = 0.5
	}
	if quorum < share {
		bad("health.quorum", fmt.Errorf("%g: want at least guard.share, which is %g: the guard "+
			"would hold what the checks take out", quorum, share))
	}
	cfg := healthcheck.Config{Source: source, Quorum: h.Quorum, Logger: a.log,
		Now: now, Observe: a.metrics.Observe("health")}
	whole := true
	for i, entry := range h.Checks {
		at := fmt.Sprintf("health.checks[%d]", i)
		probe, err := entry.probe()
		if err != nil {
			bad(at, err)
			whole = false
		}
		cfg.Checks = append(cfg.Checks, healthcheck.Check{Clusters: entry.Clusters, Probe: probe,
			Every: entry.Every, Timeout: entry.Timeout, Rise: entry.Rise, Fall: entry.Fall})
	}
	if !whole {
		return source
	}
	checker, err := healthcheck.New(cfg)
	if err != nil {
		for _, e := range flatten(err) {
			at := "health"
			switch {
			case strings.Contains(e.Error(), "Config.Checks"):
				at = "health.checks"
			case strings.Contains(e.Error(), "Config.Quorum"):
				at = "health.quorum"
			}
			bad(at, e)
		}
		return source
	}
	a.runs, a.checks = append(a.runs, checker.Run), checker.Status
	return checker
}

// probe is the one that the entry asks for.
func (c checkEntry) probe() (healthcheck.Probe, error) {
	count := 0
	for _, has := range []bool{c.HTTP != nil, c.TCP != nil, c.GRPC != nil} {
		if has {
			count++
		}
	}
	if count != 1 {
		return nil, errors.New("want http, tcp or grpc, one of them; tcp is written as tcp: {}")
	}
	switch {
	case c.HTTP != nil:
		config, err := c.HTTP.TLS.config()
		if err != nil {
			return nil, err
		}
		return healthcheck.HTTP(healthcheck.HTTPConfig{Path: c.HTTP.Path, Host: c.HTTP.Host,
			Least: c.HTTP.Least, Most: c.HTTP.Most, TLS: config})
	case c.GRPC != nil:
		config, err := c.GRPC.TLS.config()
		if err != nil {
			return nil, err
		}
		return grpcprobe.New(c.GRPC.Service, config), nil
	}
	return healthcheck.TCP(), nil
}

// config reads the files of a section; nil where there is none.
func (t *tlsEntry) config() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	cfg := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("tls.ca: %s: no certificate in PEM", t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("tls.cert, tls.key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
