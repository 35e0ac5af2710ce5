package consulsource

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Source. Consul is required, and Services, Tag or both.
type Config struct {
	// Consul says how to reach the local Consul agent: address, token or its file, TLS, datacentre,
	// namespace. A HttpClient of its own is used as it is, but for the limit of an answer; the
	// probe has connections of its own where the Transport of that client is a *http.Transport.
	Consul *api.Config
	// Services maps clusters to the names of their services in Consul.
	Services map[string]string
	// Tag finds more services in the catalogue: each that has the tag is the cluster of its name.
	// Empty finds none.
	Tag string
	// Filter is a filter expression of Consul, such as `"blue" in Service.Tags`, that each instance
	// has to match. Empty matches all.
	Filter string
	// VersionMeta is the key of a service's metadata that holds the version of the instance. The
	// default is "version".
	VersionMeta string
	// Wait is how long one blocking query waits for a change, 1 s to 10 minutes; Consul adds up to
	// a sixteenth. A single connection that died unnoticed is noticed that late at the latest, and
	// by the kernel within 20 seconds where HttpClient is not set. The default is 5 minutes.
	Wait time.Duration
	// Connections bounds the blocking queries at one time: a Consul agent takes 200 connections of
	// a client (http_max_conns_per_client). The default is 180. With more services than that, the
	// queries take turns of Turn.
	Connections int
	// Turn is how long one blocking query waits when queries take turns. The default is 2 seconds.
	Turn time.Duration
	// Every is the mean time between two queries for one service while it changes all the time; two
	// may follow one another at once. The default is 500 ms.
	Every time.Duration
	// MaxStale is how old the state of the server may be that answers: any server may, also one
	// that is not the leader. The default is 10 seconds.
	MaxStale time.Duration
	// Probe is how often Consul is asked for its leader, so that one that hangs is noticed while
	// the blocking queries wait. The question goes over a connection that stays open. When there is
	// no answer in half a second, a new connection is tried: an answer there says that the old
	// connections are dead, and the blocking queries begin again on new ones. The default is 1
	// second.
	Probe time.Duration
	// FirstWait is how long the first snapshot waits for services that do not answer while others
	// do. The default is 10 seconds.
	FirstWait time.Duration
	// Logger logs failures and recoveries. The default discards.
	Logger *slog.Logger
	// Now is the clock of the times in Status and of the damping. The default is time.Now.
	Now func() time.Time
	// Observe is called after each query with "service", "catalog" or "probe", how long it took and
	// its error. It must return soon and be safe for concurrent use. Nil means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// clients are the connections of a source to Consul. The probe has its own, so that it asks over
// one that has been open for a while.
type clients struct {
	queries *api.Client
	kept    *api.Client // of the probe
	fresh   *api.Client // opens a connection for each question; nil when there is no way to
	idle    func()      // closes the connections of queries that no question uses
}

// connect makes the clients of a source that has so many queries at one time.
func connect(cfg api.Config, queries int) (c clients, err error) {
	if cfg.HttpClient == nil {
		dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}}
		cfg.HttpClient, err = api.NewHttpClient(&http.Transport{Proxy: http.ProxyFromEnvironment,
			DialContext: dialer.DialContext, TLSHandshakeTimeout: 5 * time.Second,
			// Without a limit a query that waits for a connection opens one, and uses another that
			// has become free meanwhile: so twice as many as Consul takes may be open.
			MaxConnsPerHost: queries, MaxIdleConnsPerHost: queries,
			IdleConnTimeout: 90 * time.Second}, cfg.TLSConfig)
		if err != nil {
			return c, err
		}
	}
	own := *cfg.HttpClient
	through := func(next http.RoundTripper) *api.Client {
		client, config := own, cfg
		client.Transport = limited{next}
		config.HttpClient = &client
		made, failed := api.NewClient(&config)
		err = cmp.Or(err, failed)
		return made
	}
	next := cmp.Or(own.Transport, http.DefaultTransport)
	c.queries = through(next)
	c.kept, c.idle = c.queries, func() {}
	if transport, ok := next.(*http.Transport); ok {
		c.idle = transport.CloseIdleConnections
		c.kept = through(transport.Clone())
		once := transport.Clone()
		once.DisableKeepAlives = true
		c.fresh = through(once)
	}
	return c, err
}

// mostBytes is the limit of one answer: some 15,000 instances.
const mostBytes = 16 << 20

// limited cuts an answer that is too large, so that no server can fill the memory.
type limited struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.ContentLength > mostBytes { // unread: to read it may take longer than a query has
		resp.Body.Close()
		return nil, fmt.Errorf("an answer of %d bytes, want %d at most: %w", resp.ContentLength,
			mostBytes, nginxsync.ErrTooLarge)
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, mostBytes)
	return resp, nil
}

// withDefaults checks the configuration: each problem has nginxsync.ErrInvalid in its chain.
func (cfg Config) withDefaults() (Config, error) {
	p := check.Problems{Package: "consulsource", Sentinel: nginxsync.ErrInvalid}
	p.Require("Consul", cfg.Consul != nil)
	p.Require("Services or Config.Tag", len(cfg.Services) > 0 || cfg.Tag != "")
	for _, cluster := range slices.Sorted(maps.Keys(cfg.Services)) {
		p.Join("Services", names.Cluster(cluster))
		if cfg.Services[cluster] == "" {
			p.Add("Services", "cluster %s: want the name of its service", names.Quote(cluster))
		}
	}
	if cfg.VersionMeta == "" {
		cfg.VersionMeta = "version"
	}
	p.Duration("Wait", &cfg.Wait, 5*time.Minute)
	if cfg.Wait > 10*time.Minute || cfg.Wait > 0 && cfg.Wait < time.Second {
		p.Add("Wait", "%s: want 1s to 10m, what Consul takes", cfg.Wait)
	}
	check.Number(&p, "Connections", &cfg.Connections, 180)
	p.Duration("Turn", &cfg.Turn, 2*time.Second)
	p.Duration("Every", &cfg.Every, 500*time.Millisecond)
	p.Duration("MaxStale", &cfg.MaxStale, 10*time.Second)
	p.Duration("Probe", &cfg.Probe, time.Second)
	p.Duration("FirstWait", &cfg.FirstWait, 10*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	cfg.Services = maps.Clone(cfg.Services)
	return cfg, p.Err()
}
