package viphttp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// AllocateRequest is the body of POST /leases: see vip.Request.
type AllocateRequest struct {
	Owner     vip.Owner         `json:"owner"`
	Pool      string            `json:"pool,omitempty"`
	Selector  map[string]string `json:"selector,omitempty"`
	Fallback  bool              `json:"fallback,omitempty"`
	RequestID string            `json:"requestID,omitempty"`
	TTL       vip.Duration      `json:"ttl,omitzero"`
	Addr      netip.Addr        `json:"addr,omitzero"`
	// of addresses, all or none; the default is 1
	Count int `json:"count,omitempty"`
	// an IPv4 and an IPv6 address, both or none: see vip.Allocator.AllocateDual; excludes Count
	DualStack bool `json:"dualStack,omitempty"`
	// in the queue; the default is not to wait
	Wait     vip.Duration `json:"wait,omitzero"`
	Priority int          `json:"priority,omitempty"`
}

func (h *handler) allocate(r *http.Request, _ params) (int, any, error) {
	var in AllocateRequest
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	ctx := r.Context()
	if in.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(in.Wait))
		defer cancel()
	}
	request := vip.Request{
		Owner: in.Owner, Pool: in.Pool, Selector: in.Selector, Fallback: in.Fallback,
		RequestID: in.RequestID,
		TTL:       time.Duration(in.TTL), Addr: in.Addr, Wait: in.Wait != 0, Priority: in.Priority,
	}
	if in.DualStack && in.Count != 0 {
		return 0, nil, fmt.Errorf("count %d: want none with dualStack: %w", in.Count, vip.ErrInvalid)
	}
	allocate := func(ctx context.Context) ([]vip.Lease, error) {
		if !in.DualStack {
			return h.a.AllocateN(ctx, request, cmp.Or(in.Count, 1))
		}
		v4, v6, err := h.a.AllocateDual(ctx, request)
		return []vip.Lease{v4, v6}, err
	}
	leases, err := allocate(ctx)
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, vip.ErrExhausted) &&
		r.Context().Err() == nil {
		request.Wait = false // the wait was over before the pools were looked at
		leases, err = allocate(r.Context())
	}
	return http.StatusCreated, leaseList{leases}, err
}

type leaseList struct {
	Leases []vip.Lease `json:"leases"`
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (h *handler) get(r *http.Request, _ params) (int, any, error) {
	l, err := h.a.Get(r.Context(), r.PathValue("id"))
	return http.StatusOK, l, err
}

func (h *handler) renew(r *http.Request, _ params) (int, any, error) {
	var in struct {
		TTL vip.Duration `json:"ttl"`
	}
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	l, err := h.a.Renew(r.Context(), r.PathValue("id"), time.Duration(in.TTL))
	return http.StatusOK, l, err
}

func (h *handler) bind(r *http.Request, _ params) (int, any, error) {
	var in struct {
		Instances []vip.Instance `json:"instances"`
	}
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	if in.Instances == nil {
		return 0, nil, fmt.Errorf("instances: want a list, [] when nothing answers: %w",
			vip.ErrInvalid)
	}
	l, err := h.a.Bind(r.Context(), r.PathValue("id"), in.Instances)
	return http.StatusOK, l, err
}

func (h *handler) release(r *http.Request, params params) (int, any, error) {
	l, err := h.a.Release(r.Context(), r.PathValue("id"), params.get("reason"))
	return http.StatusOK, l, err
}
