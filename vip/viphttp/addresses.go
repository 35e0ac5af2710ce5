package viphttp

import (
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/audit"
)

func address(r *http.Request) (netip.Addr, error) {
	addr, err := netip.ParseAddr(r.PathValue("addr"))
	if err != nil {
		return addr, fmt.Errorf("%w: %w", err, vip.ErrInvalid)
	}
	return addr, nil
}

func (h *handler) history(r *http.Request, params params) (int, any, error) {
	addr, err := address(r)
	if err != nil {
		return 0, nil, err
	}
	if len(params) == 0 {
		past, err := h.a.History(r.Context(), addr)
		return http.StatusOK, leaseList{notNil(past)}, err
	}
	at, err := time.Parse(time.RFC3339, params.get("at"))
	if err != nil {
		return 0, nil, fmt.Errorf("at: want a time such as 2026-03-01T14:32:00Z: %w: %w", err,
			vip.ErrInvalid)
	}
	l, err := h.a.At(r.Context(), addr, at)
	return http.StatusOK, l, err
}

// poolList is the body of GET /pools.
type poolList struct {
	Pools []vip.Stats `json:"pools"`
	// by pool, such as "10.58.0.1-10.58.0.9": its leasable ones
	Addresses map[string][]string `json:"addresses"`
	Waiting   []vip.Waiter        `json:"waiting"`
	Suspects  []audit.Leak        `json:"suspects"`
	Held      *audit.Hold         `json:"held,omitempty"` // why the suspects keep their leases
}

func (h *handler) pools(*http.Request, params) (int, any, error) {
	all := poolList{Pools: h.a.Stats(), Waiting: notNil(h.a.Waiting()), Suspects: []audit.Leak{},
		Addresses: map[string][]string{}}
	for _, pool := range h.a.Pools() {
		ranges := []string{}
		for _, r := range pool.Leasable() {
			ranges = append(ranges, r.String())
		}
		all.Addresses[pool.Name] = ranges
	}
	if h.cfg.Leaks != nil {
		all.Suspects, all.Held = h.cfg.Leaks.Suspects(), h.cfg.Leaks.Held()
	}
	return http.StatusOK, all, nil
}

func (h *handler) quarantine(r *http.Request, _ params) (int, any, error) {
	var in struct {
		Reason string       `json:"reason"`
		Rest   vip.Duration `json:"rest"`
	}
	addr, err := address(r)
	if err == nil {
		err = read(r, &in)
	}
	if err != nil {
		return 0, nil, err
	}
	l, err := h.a.Quarantine(r.Context(), addr, in.Reason, max(time.Duration(in.Rest), 0))
	return http.StatusOK, l, err
}

func (h *handler) restore(r *http.Request, _ params) (int, any, error) {
	var in struct {
		Reason string `json:"reason"`
	}
	addr, err := address(r)
	if err == nil {
		err = read(r, &in)
	}
	if err != nil {
		return 0, nil, err
	}
	l, err := h.a.Restore(r.Context(), addr, in.Reason)
	return http.StatusOK, l, err
}
