package vip

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State is where an address stands. Every address of a pool is in exactly one state at every
// revision.
type State uint8

// The states of an address. A lease is live while Leased.
const (
	Free        State = iota // may be handed out
	Leased                   // held by an owner
	Draining                 // given back, still waiting for the proof that nothing uses it
	Cooling                  // given back, waits for its cool-down
	Quarantined              // set aside as bad
	Reserved                 // never handed out, by configuration
	states
)

var stateNames = [states]string{"free", "leased", "draining", "cooling", "quarantined", "reserved"}

func (s State) String() string {
	if s < states {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText gives the name of the state.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name of a state.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("state %q: want one of %s", text, strings.Join(stateNames[:], ", "))
	}
	*s = State(i)
	return nil
}

// Forever as a TTL asks for a lease that does not expire.
const Forever time.Duration = -1

// Owner is the holder of an address. Task and the names of the overridden clusters are its
// identity: a task has one lease for a set of clusters, and two live leases of one task override
// disjoint sets.
type Owner struct {
	// the test task; required
	Task string `json:"task"`
	// that pays for it, for quotas; may be empty
	Team string `json:"team,omitempty"`
	// cluster → version that this VIP serves; the rest is baseline
	Overrides map[string]string `json:"overrides,omitempty"`
}

func (o Owner) clone() Owner {
	o.Overrides = maps.Clone(o.Overrides)
	return o
}

// Instance is one running container behind a VIP.
type Instance struct {
	ID      string         `json:"id"` // container id, unique among the running instances
	Addr    netip.AddrPort `json:"addr"`
	Cluster string         `json:"cluster,omitempty"`
	Version string         `json:"version,omitempty"`
	Digest  string         `json:"digest,omitempty"`
}

// Binding holds the instances that answer behind a VIP.
type Binding struct {
	Instances []Instance `json:"instances,omitempty"`
	Since     time.Time  `json:"since,omitzero"` // when it was recorded
}

// Lease holds the owner of an address and the time until which it holds it. After its end it stays
// with the address, as the last tenure, until the address is handed out again.
type Lease struct {
	// of this tenure alone, never used again: all that Renew, Bind and Release ask for. A caller
	// keeps it as it is, and reads nothing in it
	ID string `json:"id"`
	// grows with every tenure of the address: a fencing token for other systems
	Generation uint64     `json:"generation"`
	Addr       netip.Addr `json:"addr"`
	Pool       string     `json:"pool"`
	Owner      Owner      `json:"owner"`
	RequestID  string     `json:"requestID,omitempty"`
	// how many addresses AllocateN gave the owner together; 0 for one
	Count int `json:"count,omitempty"`
	// ID of the lease of the other address family that AllocateDual gave with this one
	Peer     string        `json:"peer,omitempty"`
	State    State         `json:"state"`
	TTL      time.Duration `json:"-"` // Forever when it does not expire; in JSON as Duration
	Acquired time.Time     `json:"acquired,omitzero"`
	// zero when it does not expire
	Expires time.Time `json:"expires,omitzero"`
	// when it was released, expired or taken away; zero while live
	Ended time.Time `json:"ended,omitzero"`
	// end of the cool-down, or of the quarantine
	CoolUntil time.Time `json:"coolUntil,omitzero"`
	// why it ended or is in quarantine; of a live lease, that the cool-down was cut short
	Reason  string   `json:"reason,omitempty"`
	Binding Binding  `json:"binding,omitzero"`
	Details *Details `json:"details,omitempty"` // of the address, from Pool.Details
}

// tenure is a lease as it is stored.
type tenure struct {
	Lease
	history uint64 // how many records of the past the address has had
	rest    *rest  // of an address that cools down, or is in quarantine for some time; nil for none
}

// shown is the lease as the caller gets it.
func (e *entry) shown() Lease {
	if e.rev == 0 { // never used
		return Lease{Addr: e.addr, Pool: e.pool.public.Load().Name, State: e.state}
	}
	l := e.last().Lease
	l.Owner = l.Owner.clone()
	l.Binding.Instances = slices.Clone(l.Binding.Instances)
	l.Acquired, l.Expires, l.Ended = onWall(l.Acquired), onWall(l.Expires), onWall(l.Ended)
	l.CoolUntil, l.Binding.Since = onWall(l.CoolUntil), onWall(l.Binding.Since)
	l.show(e.addr, e.state, e.pool)
	return l
}

// onWall is t as it is stored: in UTC, without a reading of the monotonic clock.
func onWall(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Round(0).UTC()
}

// show gives l, the last lease of addr and the caller's alone, the state, pool name and details
// that the address has now.
func (l *Lease) show(addr netip.Addr, state State, of *pool) {
	public := of.public.Load()
	l.State, l.Pool = state, public.Name
	if d, ok := public.Details[addr]; ok {
		l.Details = d.clone()
	}
}

func (d Details) clone() *Details {
	d.RealServers, d.Ports = slices.Clone(d.RealServers), slices.Clone(d.Ports)
	return &d
}

const idAlphabet = "abcdefghijkmnpqrstuvwxyz23456789" // 32 that look different

// newLeaseID names one tenure of one address, permanently: the random part makes it differ from an
// id of the same generation that was given before the store was restored from a backup.
func newLeaseID(addr string, generation uint64) string {
	id := make([]byte, 0, 32)
	id = append(append(id, addr...), '-')
	id = append(strconv.AppendUint(id, generation, 10), '-')
	chance := rand.Uint32()
	for range 5 {
		id = append(id, idAlphabet[chance%32])
		chance /= 32
	}
	return string(id)
}

// leaseID is an ID and the lease that it names.
type leaseID struct {
	text       string
	addr       netip.Addr
	generation uint64
}

// parseLeaseID reads an id. The random part may be missing: ids of earlier versions had none.
func parseLeaseID(id string) (leaseID, error) {
	before, after, ok := strings.Cut(id, "-")
	addr, err := netip.ParseAddr(before)
	number, chance, _ := strings.Cut(after, "-")
	generation, err2 := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || addr.Zone() != "" || err2 != nil || generation == 0 ||
		len(chance) > 5 || !isChance(chance) {
		return leaseID{}, fmt.Errorf("lease %.64q: want an ID as Allocate returns it: %w", id,
			ErrNotFound)
	}
	return leaseID{id, addr, generation}, nil
}

// isChance reports whether s may be the random part of an ID.
func isChance(s string) bool {
	for i := range len(s) {
		if strings.IndexByte(idAlphabet, s[i]) < 0 {
			return false
		}
	}
	return true
}

// Query selects leases: every field that is set must match. The zero Query matches all addresses
// that are not free.
type Query struct {
	Addr         netip.Addr        // the leased address, as in Request and Lease
	Pool         string            // pool name
	Selector     map[string]string // labels that the pool must have, as in Request
	Task         string            // task of the owner
	Team         string            // team of the owner
	Cluster      string            // overridden by the owner, or bound
	Version      string            // of the overridden cluster, or of a bound instance
	Instance     string            // id of a bound instance
	InstanceAddr netip.AddrPort    // host:port of a bound instance
	// States of the addresses. Leased and Draining addresses answer for their owner; Free finds the
	// last lease of an address that is free again. The default is all but Free.
	States []State
	// Limit is how many leases List returns at most. The default is all.
	Limit int
	// After leaves out the leases of this address and of those below. IPv4 addresses are below IPv6
	// addresses. The default is to leave out none.
	After netip.Addr
}
