package platform

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/rules"
	"github.com/sluice-deploy/sluice/vip"
)

// longestTTL bounds CoolDown and TaskTTL: package vip keeps times up to the year 2262.
const longestTTL = 100 * 365 * 24 * time.Hour

// Config configures a Platform. Dir, Registry, Nginx, NginxPort, Pool and Envconfig are required.
type Config struct {
	// Dir holds everything that outlives the process. Open makes it if it is missing. The path of
	// the private Nginx below it becomes a part of the Nginx configuration, so it holds letters,
	// digits and /._- only.
	Dir string
	// Registry is host:port of the registry that images are pushed to and pulled from, over plain
	// HTTP.
	Registry string
	// Nginx is the production configuration tree; its main file is nginx.conf.
	Nginx fs.FS
	// NginxPort, 1 to 65535, is where the private Nginx listens in place of production's port 80.
	NginxPort int
	// NginxTLSPort is where it listens in place of production's port 443. The default is none: then
	// a tree that listens on port 443 is refused.
	NginxTLSPort int
	// Pool is the range of VIPs, such as 127.58.0.0/24. Its addresses are addresses of this
	// machine.
	Pool string
	// CoolDown keeps a returned VIP from the next task, for at most 100 years. The default is 130
	// s.
	CoolDown time.Duration
	// Envconfig is the path of the envconfig binary that goes into images.
	Envconfig string
	// TaskTTL is how long a task lives after it was served when last asked for, at most 100 years.
	// The default is 24 h.
	TaskTTL time.Duration
	// Instances is how many instances a deployment has, by environment of the pipeline. The default
	// is one.
	Instances map[string]int
	// Patience is how long a change waits for Nginx to take its routes. The default is 15 s.
	Patience time.Duration
	// Drain is how long an instance that is replaced may finish the requests that it has. The
	// default is 10 s.
	Drain time.Duration
	// Rules is the path of the rules of clusters and teams: approvals, soak and freezes (package
	// promote/rules). A new document is taken without a restart. The default is none.
	Rules string
	// Breakers are the actors that may override gates, Adopters the actors that may declare the
	// running version. Nobody is either by default.
	Breakers, Adopters []string
	// Templates is a directory of templates, as builder.Load reads it; a new version is on offer
	// without a restart. The default is builder.Default().
	Templates string
	// Door says where testers reach the doors of their tasks. The default is no door.
	Door DoorConfig
	// KeepBaseline lets an address of Pool that no task has answer as one outside of Pool does. The
	// default is 410.
	KeepBaseline bool
	// Builds is how many builds run at a time, at most 64. The default is 2.
	Builds int
	// BuildPolicy rules the builds of one cluster whose request has no policy: parallel, serial or
	// latestOnly. The default is parallel.
	BuildPolicy string
	// Fetch are the kinds of sources that builds may name, for the server to fetch: rsync, git,
	// archive, artifact. Each caller that may ask for a build can then have the server connect to
	// any address. The default is none: sources are uploaded.
	Fetch []string
	// Logger receives the events of the background work. The default discards.
	Logger *slog.Logger
}

// ConfigError is a problem with one field of a Config. errors.Is matches it with ErrInvalid.
type ConfigError struct {
	// Field is the name of the field, such as "Pool".
	Field string
	// Problem gives the field's value and the requirement.
	Problem string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("platform: Config.%s: %s: %v", e.Field, e.Problem, ErrInvalid)
}

// Is reports whether target is ErrInvalid.
func (e *ConfigError) Is(target error) bool { return target == ErrInvalid }

// Validate returns all problems of cfg at once, each a *ConfigError, or nil. It looks at this
// machine, but changes nothing.
func (cfg Config) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &ConfigError{field, fmt.Sprintf(format, args...)})
	}
	if cfg.Dir == "" {
		bad("Dir", "want the path of a directory")
	}
	if host, port, err := net.SplitHostPort(cfg.Registry); err != nil {
		bad("Registry", "%v: want host:port", err)
	} else if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
		bad("Registry", "%q: want host:port with a port from 1 to 65535", cfg.Registry)
	}
	if cfg.Nginx == nil {
		bad("Nginx", "want the production configuration tree")
	} else if _, err := fs.Stat(cfg.Nginx, "nginx.conf"); err != nil {
		bad("Nginx", "%v: want a tree with nginx.conf in it", err)
	}
	if cfg.NginxPort < 1 || cfg.NginxPort > 65535 {
		bad("NginxPort", "%d: want a port from 1 to 65535", cfg.NginxPort)
	}
	if cfg.NginxTLSPort < 0 || cfg.NginxTLSPort > 65535 || cfg.NginxTLSPort == cfg.NginxPort {
		bad("NginxTLSPort", "%d: want 0 (none), or a port from 1 to 65535 other than NginxPort",
			cfg.NginxTLSPort)
	}
	if pool, err := cfg.pool(); err != nil {
		bad("Pool", "%v", err)
	} else if addr, err := foreign(pool); err != nil {
		bad("Pool", "%s: %s is not an address of this machine (%v): choose a part of "+
			"127.0.0.0/8, or make the range "+
			"local first with: ip route add local %s dev lo", cfg.Pool, addr, err, cfg.Pool)
	}
	if info, err := os.Stat(cfg.Envconfig); err != nil {
		bad("Envconfig", "%v: want the path of the envconfig binary", err)
	} else if !info.Mode().IsRegular() {
		bad("Envconfig", "%s is no regular file: want the envconfig binary", cfg.Envconfig)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"CoolDown", cfg.CoolDown}, {"TaskTTL", cfg.TaskTTL}, {"Patience", cfg.Patience},
		{"Drain", cfg.Drain}} {
		if d.value < 0 || d.value > longestTTL {
			bad(d.field, "%s: want 0 for the default, or more, up to 100 years", d.value)
		}
	}
	if cfg.Rules != "" {
		_, err := rules.Open(context.Background(), rules.Config{Path: cfg.Rules,
			Pipeline: pipeline()})
		if err != nil {
			bad("Rules", "%v", err)
		}
	}
	if cfg.Templates != "" {
		if _, err := builder.Load(os.DirFS(cfg.Templates)); err != nil {
			bad("Templates", "%v", err)
		}
	}
	for _, list := range []struct {
		field  string
		actors []string
	}{{"Breakers", cfg.Breakers}, {"Adopters", cfg.Adopters}} {
		for _, actor := range list.actors {
			if err := names.Actor(actor); err != nil {
				bad(list.field, "%v", err)
			}
		}
	}
	cfg.Door.check(bad)
	if cfg.Builds < 0 || cfg.Builds > 64 {
		bad("Builds", "%d: want 0 for the default, or up to 64", cfg.Builds)
	}
	if err := checkPolicy(cfg.BuildPolicy); err != nil {
		bad("BuildPolicy", "%v", err)
	}
	for _, kind := range cfg.Fetch {
		if err := checkKind(kind); err != nil {
			bad("Fetch", "%v", err)
		}
	}
	for _, environment := range slices.Sorted(maps.Keys(cfg.Instances)) {
		if n := cfg.Instances[environment]; pipeline().Index(environment) < 0 || n < 1 {
			bad("Instances", "%d in %q: want 1 or more, in one of %v", n, environment, pipeline())
		}
	}
	return errors.Join(errs...)
}

func pipeline() promote.Pipeline { return promote.DefaultPipeline() }

func (cfg Config) withDefaults() Config {
	cfg.Patience = cmp.Or(cfg.Patience, 15*time.Second)
	cfg.Drain = cmp.Or(cfg.Drain, 10*time.Second)
	cfg.Builds = cmp.Or(cfg.Builds, 2)
	cfg.TaskTTL = cmp.Or(cfg.TaskTTL, 24*time.Hour)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	return cfg
}

func (cfg Config) pool() (vip.Pool, error) {
	pool, err := vip.ParsePool("trial", cfg.Pool)
	pool.CoolDown = cfg.CoolDown
	return pool, err
}

// foreign returns an address at an end of the pool on which this machine cannot listen, and why
// not; a nil error when there is none.
func foreign(pool vip.Pool) (netip.Addr, error) {
	for _, r := range pool.Ranges {
		first, last := r.First, r.Last
		if pool.Reserved[first] != "" {
			first = first.Next()
		}
		if pool.Reserved[last] != "" {
			last = last.Prev()
		}
		for _, addr := range []netip.Addr{first, last} {
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
			if err != nil {
				return addr, err
			}
			_ = l.Close()
		}
	}
	return netip.Addr{}, nil
}
