package vip

import (
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"
)

const (
	longestTask = 1024                       // bytes: the name is part of a key in the store
	longestTTL  = 100 * 365 * 24 * time.Hour // times are stored as nanoseconds since 1970, up to the year 2262
)

// Request asks for an address.
type Request struct {
	Owner Owner
	// Pool to take the address from. The default is any enabled pool that Selector and TTL allow, in the order of configuration.
	Pool string
	// Selector are labels that the pool must have. The default is none.
	Selector map[string]string
	// Fallback allows a pool without the labels of Selector when those with them have no address left.
	Fallback bool
	// RequestID tells two requests of one owner apart: a late duplicate of a request whose lease has ended is refused
	// with ErrFenced instead of taking a second address, as long as its address has had no other lease: for the cool-down
	// at least. The default is none.
	RequestID string
	// TTL after which the lease ends unless it is renewed, at most 100 years; Forever for no end. The default is Config.DefaultTTL.
	TTL time.Duration
	// Addr asks for one address by name. The default is the address that the owner had last, if it is free, else the one
	// that has been free for longest.
	Addr netip.Addr
	// Wait waits in a queue, until the context is done, instead of failing with ErrExhausted. Whoever waits for a pool goes
	// before who comes later, unless the quota of the team keeps it from having an address there. It has no effect on a
	// request for an Addr, or for more addresses than any of the pools holds.
	Wait bool
	// Priority in the queue: higher goes first, equal ones in the order of arrival. The default is 0.
	Priority int
}

func (r *Request) validate() error {
	switch {
	case r.Owner.Task == "":
		return fmt.Errorf("%w: the owner has no task", ErrInvalid)
	case !utf8.ValidString(r.Owner.Task) || len(r.Owner.Task) > longestTask:
		return fmt.Errorf("task %.64q: %w: want UTF-8 text of at most %d bytes", r.Owner.Task, ErrInvalid, longestTask)
	case r.TTL < 0 && r.TTL != Forever || r.TTL > longestTTL:
		return fmt.Errorf("task %q: %w: ttl %s: want more than 0 and at most 100 years, or Forever", r.Owner.Task, ErrInvalid, r.TTL)
	}
	for cluster, version := range r.Owner.Overrides {
		if cluster == "" || version == "" {
			return fmt.Errorf("task %q: %w: override %q: %q: cluster and version are required", r.Owner.Task, ErrInvalid, cluster, version)
		}
	}
	return nil
}
