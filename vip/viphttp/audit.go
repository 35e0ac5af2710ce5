package viphttp

import (
	"net/http"

	"github.com/sluice-deploy/sluice/vip/audit"
)

// report compares, and changes nothing.
func (h *handler) report(r *http.Request, _ params) (int, any, error) {
	report, err := h.cfg.Audit.Check(r.Context())
	return http.StatusOK, report, err
}

// AuditRequest is the body of POST /audit.
type AuditRequest struct {
	// repair the findings; else nothing is changed
	Apply bool `json:"apply"`
	// by view: so many changes although the report holds it
	Allow map[string]int `json:"allow,omitempty"`
}

func (h *handler) audit(r *http.Request, _ params) (int, any, error) {
	var in AuditRequest
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	report, err := h.cfg.Audit.Check(r.Context())
	if err != nil || !in.Apply {
		return http.StatusOK, report, err
	}
	repaired, err := h.cfg.Audit.Repair(r.Context(), report, in.Allow)
	if err != nil {
		return 0, nil, &auditError{err, report, repaired}
	}
	return http.StatusOK, struct {
		audit.Report
		Repaired int `json:"repaired"`
	}{report, repaired}, nil
}

// auditError is a repair that was not made, or not to its end.
type auditError struct {
	error
	report   audit.Report
	repaired int
}

func (e *auditError) Unwrap() error { return e.error }
