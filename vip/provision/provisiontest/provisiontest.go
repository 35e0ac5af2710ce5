// Package provisiontest holds every provision.Driver to its contract.
//
//	func TestDriver(t *testing.T) {
//		provisiontest.Run(t, func(t *testing.T) provisiontest.Harness {
//			d := &mydriver.Driver{}
//			return provisiontest.Harness{Driver: d, Announced: d.addresses}
//		})
//	}
package provisiontest

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-deploy/sluice/vip/provision"
)

// Harness is one driver under test, which announces nothing yet.
type Harness struct {
	Driver provision.Driver
	// Announced lists the addresses that are announced now, in any order, read from outside the
	// driver. It is nil for a driver of addresses that answer without it.
	Announced func(t *testing.T) []netip.Addr
}

// Addrs are the addresses that the suite announces: a driver has to be able to.
func Addrs() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("10.58.0.1"), netip.MustParseAddr("10.58.0.2"),
		netip.MustParseAddr("10.58.0.3"),
	}
}

// Run runs the suite. open is called for each case, and cleans up with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	all := Addrs()
	for name, test := range map[string]func(t *testing.T, h Harness){
		"what is wanted is announced": func(t *testing.T, h Harness) {
			h.apply(t, all)
			h.wants(t, all)
		},
		"an address that is not wanted any more is withdrawn": func(t *testing.T, h Harness) {
			h.apply(t, all[:2])
			h.apply(t, all[1:])
			h.wants(t, all[1:])
		},
		"to apply twice is to apply once": func(t *testing.T, h Harness) {
			h.apply(t, all)
			h.apply(t, all)
			h.wants(t, all)
		},
		"no addresses withdraw all": func(t *testing.T, h Harness) {
			h.apply(t, all)
			h.apply(t, nil)
			h.wants(t, nil)
		},
		"the first call may want none": func(t *testing.T, h Harness) {
			h.apply(t, nil)
			h.wants(t, nil)
		},
		"the slice stays the caller's": func(t *testing.T, h Harness) {
			mine := slices.Clone(all)
			h.apply(t, mine)
			if !slices.Equal(mine, all) {
				t.Errorf("the driver has changed the slice to %v", mine)
			}
			clear(mine)
			h.wants(t, all)
		},
		"a cancelled call returns the cause and changes nothing": func(t *testing.T, h Harness) {
			if h.Announced == nil {
				return // nothing to do, and nothing that could be done by half
			}
			h.apply(t, all[:1])
			why := errors.New("the program ends")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(why)
			for _, want := range [][]netip.Addr{all, all[:1], nil} { // all[:1] is there already
				if _, err := h.Driver.Apply(ctx, want); !errors.Is(err, why) {
					t.Errorf("apply %v: got %v, want the cause of the context", want, err)
				}
				h.wants(t, all[:1])
			}
		},
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func (h Harness) apply(t *testing.T, want []netip.Addr) {
	t.Helper()
	aside, err := h.Driver.Apply(t.Context(), want)
	if err != nil {
		t.Fatalf("apply %v: %v", want, err)
	}
	if len(aside) > 0 {
		t.Fatalf("apply %v: set aside: %v", want, aside)
	}
}

func (h Harness) wants(t *testing.T, want []netip.Addr) {
	t.Helper()
	if h.Announced == nil {
		return
	}
	got := h.Announced(t)
	slices.SortFunc(got, netip.Addr.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("announced are %v, want %v", got, want)
	}
}
