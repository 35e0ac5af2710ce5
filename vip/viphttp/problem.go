package viphttp

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/vip"
)

// Problem is the body of an error.
type Problem struct {
	Type   string           `json:"type"`
	Title  string           `json:"title"`
	Status int              `json:"status"`
	Code   string           `json:"code"`
	Detail string           `json:"detail"`
	Lease  *vip.Lease       `json:"lease,omitempty"` // of a conflict: the lease that the owner holds
	Diff   []vip.Difference `json:"diff,omitempty"`  // of a conflict
	Free   *uint64          `json:"free,omitempty"`  // of an exhausted pool, and the next three
	Cool   *uint64          `json:"cooling,omitempty"`
	Bad    *uint64          `json:"quarantined,omitempty"`
	Next   *time.Time       `json:"soonest,omitempty"`
}

type answer struct {
	err    error
	code   string
	status int
}

// codes is looked through in order: a request that waited in vain is exhausted before it is anything else.
var codes = []answer{
	{vip.ErrExhausted, "exhausted", http.StatusServiceUnavailable},
	{vip.ErrConflict, "conflict", http.StatusConflict},
	{vip.ErrFenced, "fenced", http.StatusPreconditionFailed},
	{vip.ErrNotFound, "not-found", http.StatusNotFound},
	{vip.ErrTaken, "taken", http.StatusConflict},
	{vip.ErrQuota, "quota", http.StatusTooManyRequests},
	{vip.ErrQuarantineFull, "quarantine-full", http.StatusConflict},
	{vip.ErrInvalid, "invalid", http.StatusBadRequest},
	{vip.ErrCompacted, "compacted", http.StatusGone},
	{vip.ErrUncertain, "uncertain", http.StatusServiceUnavailable},
	{vip.ErrContended, "contended", http.StatusServiceUnavailable},
}

func problem(w http.ResponseWriter, err error) {
	p := Problem{Status: http.StatusInternalServerError, Code: "internal", Detail: err.Error()}
	if i := slices.IndexFunc(codes, func(c answer) bool { return errors.Is(err, c.err) }); i >= 0 {
		p.Code, p.Status = codes[i].code, codes[i].status
	}
	var conflict *vip.ConflictError
	if errors.As(err, &conflict) {
		p.Lease, p.Diff = &conflict.Lease, conflict.Diff
	}
	var full *vip.ExhaustedError
	if errors.As(err, &full) {
		p.Free, p.Cool, p.Bad = &full.Free, &full.Cooling, &full.Quarantined
		if !full.Soonest.IsZero() {
			p.Next = &full.Soonest
		}
	}
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	p.reply(w)
}

func (p Problem) reply(w http.ResponseWriter) {
	p.Type, p.Title = "about:blank#"+p.Code, http.StatusText(p.Status)
	reply(w, p.Status, "application/problem+json", p)
}
