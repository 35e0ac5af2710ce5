package healthcheck

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Probe asks one instance whether it works. The error says why not, for an operator to read. Probe
// returns soon after ctx ends. It is called from several goroutines.
type Probe func(ctx context.Context, addr netip.AddrPort) error

// Check says how the instances of some clusters are asked. Probe is required.
type Check struct {
	// Clusters are the clusters that are asked so. The default is all that no other check names.
	Clusters []string
	Probe    Probe
	// Every is the time between two probes of one instance, of which up to a tenth is left out at
	// random. The default is 2 seconds.
	Every time.Duration
	// Timeout bounds a probe. The default is 1 second, or Every where that is less.
	Timeout time.Duration
	// Fall is after how many failed probes in a row an instance goes. One that fails its first
	// probe goes at once. The default is 3.
	Fall int
	// Rise is after how many good probes in a row it returns. The default is 2.
	Rise int
}

// Config configures a Checker. Source and Checks are required.
type Config struct {
	Source nginxsync.Source
	// Checks do not name a cluster twice, and one at most has no Clusters. A cluster without a
	// check is passed on as it is.
	Checks []Check
	// Quorum is the share of the instances of each cluster, by VIP, branch and baseline, that stays
	// in spite of their checks, rounded up: at least one instance does. The last to fail stay
	// first. The default is 0.5. A quorum below Guard.Share of the agents has their guards hold
	// the changes.
	Quorum float64
	// Parallel is how many probes run at the same time. The default is 100.
	Parallel int
	// Logger logs each instance that goes or returns. The default discards.
	Logger *slog.Logger
	// Now is the clock of the times in Status and of Observe. The default is time.Now.
	Now func() time.Time
	// Observe is called after each probe with "probe", how long it took and its error. It must
	// return soon. Nil means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// New makes a checker, and starts nothing. A configuration that is not valid is an error with all
// its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Checker, error) {
	p := check.Problems{Package: "healthcheck", Sentinel: nginxsync.ErrInvalid}
	p.Require("Source", cfg.Source != nil)
	p.Require("Checks", len(cfg.Checks) > 0)
	c := &Checker{byCluster: map[string]int{}, others: -1, targets: map[target]*health{},
		changed: make(chan struct{}), turned: make(chan struct{}, 1)}
	cfg.Checks = append([]Check(nil), cfg.Checks...)
	for i := range cfg.Checks {
		one := &cfg.Checks[i]
		if err := one.defaults(); err != nil {
			p.Add("Checks", "%d: %s", i, err)
		}
		if len(one.Clusters) == 0 {
			if c.others >= 0 {
				p.Add("Checks", "%d: want clusters: check %d is that of all others", i, c.others)
			}
			c.others = i
		}
		for _, name := range one.Clusters {
			if before, twice := c.byCluster[name]; twice {
				p.Add("Checks", "%d: cluster %.64q has check %d", i, name, before)
			}
			c.byCluster[name] = i
		}
	}
	if cfg.Quorum < 0 || cfg.Quorum > 1 || math.IsNaN(cfg.Quorum) {
		p.Add("Quorum", "%g: want a share from 0 (default 0.5) to 1", cfg.Quorum)
	}
	cfg.Quorum = cmp.Or(cfg.Quorum, 0.5)
	check.Number(&p, "Parallel", &cfg.Parallel, 100)
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
	c.cfg, c.slots = cfg, make(chan struct{}, cfg.Parallel)
	return c, nil
}

// defaults sets zero fields to their defaults.
func (c *Check) defaults() error {
	if c.Probe == nil {
		return fmt.Errorf("want a Probe")
	}
	if c.Every < 0 || c.Timeout < 0 || c.Fall < 0 || c.Rise < 0 {
		return fmt.Errorf("every %s, timeout %s, fall %d, rise %d: want 0 (defaults 2s, 1s, 3, "+
			"2) or more", c.Every, c.Timeout, c.Fall, c.Rise)
	}
	c.Every = cmp.Or(c.Every, 2*time.Second)
	c.Timeout = cmp.Or(c.Timeout, min(time.Second, c.Every))
	c.Fall, c.Rise = cmp.Or(c.Fall, 3), cmp.Or(c.Rise, 2)
	return nil
}
