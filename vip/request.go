package vip

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/sluice-deploy/sluice/internal/names"
)

const (
	// bytes of a team or a request id
	longestText = 1024
	// times are stored as nanoseconds since 1970, up to the year 2262
	longestTTL = 100 * 365 * 24 * time.Hour
)

// Request asks for an address. The task of the owner is required.
type Request struct {
	// Owner gets the lease. Task, clusters and versions follow the grammar of the module's names:
	// letters, digits, '.', '_' and '-', up to 63 bytes, clusters in lower case. A lease that was
	// stored under names of an older grammar lives on, and can be renewed, bound and released.
	Owner Owner
	// Pool to take the address from. The default is any enabled pool that Selector and TTL allow,
	// in the order of configuration.
	Pool string
	// Selector are labels that the pool must have. The default is none.
	Selector map[string]string
	// Fallback allows a pool without the labels of Selector when those with them have no address
	// left.
	Fallback bool
	// RequestID distinguishes two requests of one owner: a late duplicate of a request whose lease
	// has ended is refused with ErrFenced instead of taking a second address, as long as its
	// address has had no other lease: for the cool-down at least. The default is none.
	RequestID string
	// TTL after which the lease ends unless it is renewed, at most 100 years; Forever for no end.
	// The default is Config.DefaultTTL.
	TTL time.Duration
	// Addr asks for one address by name; an IPv4 address in IPv6 form is the IPv4 address. The
	// default is the address that the owner had last, if no other owner has had it since, even
	// while it still rests; else the one that has been free for longest.
	Addr netip.Addr
	// Wait waits in a queue, until the context is done, instead of failing with ErrExhausted. A
	// request that waits for a pool goes before later ones, unless the quota of the team keeps it
	// from having an address there. It has no effect on a request for an Addr, or for more
	// addresses than any of the pools holds.
	Wait bool
	// Priority in the queue: higher goes first, equal ones in the order of arrival. The default is
	// 0.
	Priority int

	dual bool // see AllocateDual
}

// validate returns all problems, each with the name of its field, unless only names are bad: a task
// that has a lease under an older grammar gets that lease again. named reports whether the names
// are good for a new lease.
func (r *Request) validate(n int) (named bool, err error) {
	var errs []error
	if badText(r.Owner.Team) {
		errs = append(errs, badField("Owner.Team", "%.64q: want UTF-8 text of at most %d bytes",
			r.Owner.Team, longestText))
	}
	if _, empty := r.Selector[""]; empty {
		errs = append(errs, badField("Selector", "a label has no name"))
	}
	if badText(r.RequestID) {
		errs = append(errs, badField("RequestID", "%.64q: want UTF-8 text of at most %d bytes",
			r.RequestID, longestText))
	}
	if r.TTL < 0 && r.TTL != Forever || r.TTL > longestTTL {
		errs = append(errs, badField("TTL", "%s: want 0 (default Config.DefaultTTL) to 100 "+
			"years, or Forever", r.TTL))
	}
	if r.dual {
		errs = append(errs, r.dualProblems()...)
	}
	switch {
	case n < 1 || n > MaxTogether:
		errs = append(errs, fmt.Errorf("%d addresses together: want 1 to %d: %w", n, MaxTogether,
			ErrInvalid))
	case n > 1 && r.Addr.IsValid() && !r.dual:
		errs = append(errs, badField("Addr", "%d addresses together: want 1 when one is named", n))
	}
	bad := r.badNames()
	if len(errs) > 0 || len(bad) > 0 && badText(r.Owner.Task) {
		return false, r.refuse(append(bad, errs...))
	}
	return len(bad) == 0, nil
}

// badNames returns all problems of the names that a new lease would get.
func (r *Request) badNames() []error {
	var errs []error
	if err := names.Task(r.Owner.Task); err != nil {
		errs = append(errs, badField("Owner.Task", "%v", err))
	}
	var clusters []string
	if len(r.Owner.Overrides) > 0 {
		clusters = slices.Sorted(maps.Keys(r.Owner.Overrides))
	}
	for _, cluster := range clusters {
		if err := names.Cluster(cluster); err != nil {
			errs = append(errs, badField("Owner.Overrides", "%v", err))
		}
		if err := names.Version(r.Owner.Overrides[cluster]); err != nil {
			errs = append(errs, badField("Owner.Overrides", "of cluster %.64q: %v", cluster, err))
		}
	}
	return errs
}

func badField(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", "Request."+field, fmt.Sprintf(format, args...), ErrInvalid)
}

// refuse joins the problems of the request, nil without any.
func (r *Request) refuse(problems []error) error {
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("allocate for task %.64q: %w", r.Owner.Task, err)
	}
	return nil
}

// badText reports whether a free text is not UTF-8, or too long for a record.
func badText(s string) bool { return !utf8.ValidString(s) || len(s) > longestText }
