package rfc2136

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/miekg/dns"

	"github.com/sluice-deploy/sluice/vip"
)

const (
	defaultInterval = 5 * time.Second
	defaultChecks   = 3
)

// Site is one place that a name may lead to.
type Site struct {
	// Target is the domain name of the site, to which the CNAME points.
	Target string
	// Healthy reports whether the site serves. An error means that it is not known, and changes
	// nothing. It is called by one goroutine, with a context of SwitchConfig.Interval.
	Healthy func(ctx context.Context) (bool, error)
}

// SwitchConfig configures a Switch. DNS, Name and Sites are required.
type SwitchConfig struct {
	// DNS is the server, zone and key, as for a Driver. Its TTL is that of the CNAME.
	DNS Config
	// Name is the name that testers and customers use: relative to the zone, or in it with a dot at
	// the end.
	Name string
	// Sites are at least two, the preferred one first.
	Sites []Site
	// Interval is the time between two checks, and how long one may take. The default is 5 s.
	Interval time.Duration
	// Checks is how many checks in a row have to say otherwise before a site counts as failed, or
	// as healthy again. The default is 3.
	Checks int
	// Logger receives the changes, and the errors of Run. The default discards.
	Logger *slog.Logger
}

// Switch keeps a CNAME at the first site that is healthy. When none is known to be, the name stays
// where it is. It changes a CNAME only from one of its sites to another; one that leads elsewhere
// is foreign.
type Switch struct {
	cfg    SwitchConfig
	client client
	name   string
	states []siteState
}

// siteState is the result of the checks of a site.
type siteState struct {
	known, healthy bool
	against        int // checks in a row that said otherwise
}

// NewSwitch returns a switch, without a word to the server. The error is vip.ErrInvalid and names
// every bad field.
func NewSwitch(cfg SwitchConfig) (*Switch, error) {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("rfc2136: SwitchConfig.%s: %s: %w", field,
			fmt.Sprintf(format, args...), vip.ErrInvalid))
	}
	if err := cfg.DNS.validate(); err != nil {
		errs = append(errs, err)
	}
	cfg.DNS.setDefaults()
	name, err := cfg.DNS.absolute(cfg.Name)
	if err != nil {
		bad("Name", "%v", err)
	}
	if len(cfg.Sites) < 2 {
		bad("Sites", "%d: want two or more", len(cfg.Sites))
	}
	seen := map[string]bool{}
	sites := make([]Site, len(cfg.Sites))
	for i, s := range cfg.Sites {
		if _, ok := dns.IsDomainName(s.Target); !ok || s.Target == "" ||
			seen[dns.CanonicalName(s.Target)] {
			bad("Sites", "site %d: target %.64q: want a domain name of its own", i+1, s.Target)
		}
		if s.Healthy == nil {
			bad("Sites", "site %d: Healthy is required", i+1)
		}
		s.Target = dns.CanonicalName(s.Target)
		seen[s.Target] = true
		sites[i] = s
	}
	if cfg.Interval < 0 {
		bad("Interval", "%s: want 0 (default %s) or more", cfg.Interval, defaultInterval)
	}
	if cfg.Checks < 0 {
		bad("Checks", "%d: want 0 (default %d) or more", cfg.Checks, defaultChecks)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	cfg.Sites = sites
	cfg.Interval = cmp.Or(cfg.Interval, defaultInterval)
	cfg.Checks = cmp.Or(cfg.Checks, defaultChecks)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Switch{cfg: cfg, client: client{cfg.DNS}, name: name, states: make([]siteState,
		len(sites))}, nil
}

// Run checks every SwitchConfig.Interval until ctx is done, and returns context.Cause(ctx). The
// CNAME stays.
func (s *Switch) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.Interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if _, err := s.Check(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("switch of sites", "name", s.name, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return context.Cause(ctx)
}

// Check asks every site once, and switches when that is due. It returns where the name leads; empty
// when it does not exist. Errors of sites are joined with that of the server: the name may have
// been switched all the same. Calls do not overlap, with those of Run neither.
func (s *Switch) Check(ctx context.Context) (target string, err error) {
	var errs []error
	for i, site := range s.cfg.Sites {
		if err := s.ask(ctx, &s.states[i], site); err != nil {
			errs = append(errs, fmt.Errorf("site %s: %w", site.Target, err))
		}
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("switch %s: %w", s.name, context.Cause(ctx))
	}
	now, foreign, err := s.current(ctx)
	if err != nil {
		return "", errors.Join(append(errs, err)...)
	}
	want := s.want()
	switch want {
	case "":
		return now, errors.Join(append(errs, foreign)...)
	case now:
		return now, errors.Join(errs...)
	}
	if err := s.point(ctx, now, want); err != nil {
		if foreign != nil && errors.Is(err, ErrForeign) {
			err = foreign // which says more
		}
		return now, errors.Join(append(errs, err)...)
	}
	s.cfg.Logger.Info("switched site", "name", s.name, "from", now, "to", want)
	return want, errors.Join(errs...)
}

// ask notes the result of one check of a site.
func (s *Switch) ask(ctx context.Context, state *siteState, site Site) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Interval, fmt.Errorf("no answer within %s",
		s.cfg.Interval))
	defer cancel()
	healthy, err := site.Healthy(ctx)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	switch {
	case err != nil: // not known: neither for nor against
		return err
	case !state.known:
		*state = siteState{known: true, healthy: healthy}
	case healthy == state.healthy:
		state.against = 0
	default:
		if state.against++; state.against >= s.cfg.Checks {
			*state = siteState{known: true, healthy: healthy}
		}
	}
	return nil
}

// want is the target of the first healthy site; empty when none is known to be.
func (s *Switch) want() string {
	for i, state := range s.states {
		if state.known && state.healthy {
			return s.cfg.Sites[i].Target
		}
	}
	return ""
}

// current asks the server where the name leads, a wildcard included. foreign is the error when that
// is none of the sites.
func (s *Switch) current(ctx context.Context) (target string, foreign, err error) {
	answer, err := s.client.exchange(ctx, "query", new(dns.Msg).SetQuestion(s.name, dns.TypeCNAME),
		dns.RcodeNameError)
	if err != nil {
		return "", nil, err
	}
	for _, rr := range answer.Answer {
		c, ok := rr.(*dns.CNAME)
		if !ok {
			continue
		}
		target := dns.CanonicalName(c.Target)
		for _, site := range s.cfg.Sites {
			if site.Target == target {
				return target, nil, nil
			}
		}
		return "", fmt.Errorf("name %s: it leads to %s, which is none of the sites: %w", s.name,
			target, ErrForeign), nil
	}
	return "", nil, nil
}

// point makes the name lead to a site, provided that it still leads to from, or has no record: then
// from came from a wildcard, or is empty.
func (s *Switch) point(ctx context.Context, from, to string) error {
	if from != "" {
		if done, err := s.pointIf(ctx, from, to); done || err != nil {
			return err
		}
	}
	if done, err := s.pointIf(ctx, "", to); done || err != nil {
		return err
	}
	return fmt.Errorf("name %s: somebody else has changed it, or has records of another kind "+
		"there: %w", s.name, ErrForeign)
}

// pointIf makes the name lead to a site, and reports whether it has: if the name leads to from;
// when that is empty, if it has no record.
func (s *Switch) pointIf(ctx context.Context, from, to string) (done bool, err error) {
	cname := func(target string) dns.RR {
		return &dns.CNAME{Target: target, Hdr: dns.RR_Header{
			Name: s.name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET,
			Ttl: uint32(s.cfg.DNS.TTL.Seconds()),
		}}
	}
	m := new(dns.Msg).SetUpdate(s.cfg.DNS.Zone)
	if from == "" {
		m.NameNotUsed([]dns.RR{cname(to)})
	} else {
		m.Used([]dns.RR{cname(from)})
		m.RemoveRRset([]dns.RR{cname(from)})
	}
	m.Insert([]dns.RR{cname(to)})
	answer, err := s.client.exchange(ctx, "update", m, dns.RcodeYXDomain, dns.RcodeNXRrset,
		dns.RcodeNameError)
	return err == nil && answer.Rcode == dns.RcodeSuccess, err
}
