// Package provision makes the addresses that a vip.Allocator has leased answer on the network, and
// stop answering.
//
// The embedder chooses a Driver: None where the addresses are ready-made, as a cloud's load
// balancer gives them; keepalived for VRRP and LVS; rfc2136 for names in DNS. It then runs a Keeper
// beside the allocator, on the machine that announces. An address is announced from its allocation
// to the end of its cool-down, in which Nginx says on it that the task has ended; one in
// quarantine is not.
//
//	k := &provision.Keeper{Allocator: a, Driver: &keepalived.Driver{Path: "/etc/keepalived/keepalived.conf", Interface: "eth0"}}
//	go k.Run(ctx)
//
// A driver sets an address that it cannot announce aside and announces the others. When the Keeper
// ends, for any reason, it withdraws all addresses first and returns afterwards: two machines never
// announce one address because the first was slow to say that it has lost its lease on the job.
//
// An address is withdrawn when its lease is seen to end and rest. One whose lease has vanished from
// the store (vip.Allocator.Lost) stays announced: a store that was emptied must not take the
// network down. So it remains until the address is leased again, or the Keeper ends: to accept the
// state of the store, run another one.
//
// This package does not elect the machine that announces, and does not route packets itself.
package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// Driver announces addresses. Implementations pass provisiontest.Run.
type Driver interface {
	// Apply makes want, sorted and without duplicates, the addresses that are announced, and no
	// others. It returns the addresses that it had to set aside, with the reason. It neither keeps
	// nor changes want. After an error the announced addresses are as before the call, or as the
	// driver's documentation says; when ctx is done the error is context.Cause(ctx). Calls do not
	// overlap.
	Apply(ctx context.Context, want []netip.Addr) (aside map[netip.Addr]error, err error)
}

// LeaseDriver is a Driver that announces more of a lease than its address, such as the name of its
// task. A Keeper calls ApplyLeases in place of Apply, also when only the lease of an address has
// changed. To withdraw all it calls Apply without addresses.
type LeaseDriver interface {
	Driver
	// ApplyLeases is Apply for these leases, by address, in the states Leased, Draining and
	// Cooling.
	ApplyLeases(ctx context.Context, leases []vip.Lease) (aside map[netip.Addr]error, err error)
}

// None is the driver of ready-made addresses: they answer already.
type None struct{}

// Apply implements Driver.
func (None) Apply(context.Context, []netip.Addr) (map[netip.Addr]error, error) { return nil, nil }

// Keeper makes a driver announce the leases of an allocator.
type Keeper struct {
	Allocator *vip.Allocator // required
	Driver    Driver         // required
	// Retry is the time between two attempts while the driver fails or has set something aside. The
	// default is 5 s.
	Retry time.Duration
	// Withdraw bounds the last call of the driver, when Run ends. The default is 10 s.
	Withdraw time.Duration
	// Logger receives the failures that are tried again. The default discards.
	Logger *slog.Logger

	mu    sync.Mutex
	aside map[netip.Addr]error
}

// Run announces until ctx is done. Then it withdraws all addresses, and returns ctx's cause, joined
// with the error of the driver if that could not withdraw them.
func (k *Keeper) Run(ctx context.Context) error {
	log := k.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var announced []tenure
	first, failed, lost := true, false, 0
	for ctx.Err() == nil {
		from := k.Allocator.Revision()
		leases, held := k.leases(announced)
		if held != lost {
			log.Warn("addresses stay announced whose leases the store has lost", "addresses", held)
			lost = held
		}
		if want := k.tenures(leases); first || failed || !slices.Equal(want, announced) {
			aside, err := k.apply(ctx, leases)
			if err != nil && ctx.Err() == nil {
				log.Warn("announce addresses", "err", err)
			}
			for addr, why := range aside {
				log.Warn("address set aside", "addr", addr, "err", why)
			}
			if err == nil {
				announced = want
				k.setAside(aside)
			}
			first, failed = false, err != nil || len(aside) > 0
		}
		k.waitForNews(ctx, from, failed)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx),
		cmp.Or(k.Withdraw, 10*time.Second))
	defer cancel()
	_, err := k.Driver.Apply(last, nil)
	if err != nil {
		err = fmt.Errorf("withdraw addresses: %w", err)
	}
	return errors.Join(context.Cause(ctx), err)
}

// leases lists the leases to announce, by address, and returns the number of lost ones among them:
// the store has them no more, and they are announced.
func (k *Keeper) leases(announced []tenure) (all []vip.Lease, held int) {
	lost := k.Allocator.Lost()
	all = k.Allocator.List(vip.Query{States: []vip.State{vip.Leased, vip.Draining, vip.Cooling}})
	// one of the two lists has the leases that were lost or found meanwhile
	lost = append(lost, k.Allocator.Lost()...)
	if len(lost) == 0 {
		return all, 0
	}
	missing := map[netip.Addr]vip.Lease{}
	for _, l := range lost {
		missing[l.Addr] = l
	}
	for _, l := range all {
		delete(missing, l.Addr)
	}
	for _, t := range announced {
		if l, ok := missing[t.addr]; ok {
			all = append(all, l)
			held++
		}
	}
	slices.SortFunc(all, func(a, b vip.Lease) int { return a.Addr.Compare(b.Addr) })
	return all, held
}

// tenure holds the parts of a lease that the driver depends on.
type tenure struct {
	addr  netip.Addr
	id    string
	state vip.State
}

// tenures lists the state of the leases; when it changes, the driver is called again.
func (k *Keeper) tenures(leases []vip.Lease) []tenure {
	_, whole := k.Driver.(LeaseDriver)
	all := make([]tenure, len(leases))
	for i, l := range leases {
		if all[i].addr = l.Addr; whole {
			all[i].id, all[i].state = l.ID, l.State
		}
	}
	return all
}

// apply calls the driver with the leases or addresses to announce.
func (k *Keeper) apply(ctx context.Context, leases []vip.Lease) (map[netip.Addr]error, error) {
	if d, ok := k.Driver.(LeaseDriver); ok {
		return d.ApplyLeases(ctx, leases)
	}
	var want []netip.Addr
	for _, l := range leases {
		want = append(want, l.Addr)
	}
	return k.Driver.Apply(ctx, want)
}

func (k *Keeper) waitForNews(ctx context.Context, from uint64, failed bool) {
	if failed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(k.Retry, 5*time.Second))
		defer cancel()
	}
	_, _ = k.Allocator.Watch(ctx, from) // with any result the next round looks at everything
}

func (k *Keeper) setAside(aside map[netip.Addr]error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.aside = maps.Clone(aside)
}

// Aside returns the addresses that the driver has set aside, with the reasons. The caller may want
// to put them into quarantine.
func (k *Keeper) Aside() map[netip.Addr]error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.aside)
}
