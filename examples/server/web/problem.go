package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

// Problem is the body of an error response (RFC 9457).
type Problem struct {
	Title   string   `json:"title"`
	Status  int      `json:"status"`
	Detail  string   `json:"detail"`
	Reasons []string `json:"reasons,omitempty"` // of the gates that refused
	Missing []string `json:"missing,omitempty"` // files that a gate did not find
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	writeJSON(w, "application/problem+json", status, Problem{Title: http.StatusText(status), Status: status, Detail: detail})
}

// fail answers with the status that the error stands for.
func (w *web) fail(rw http.ResponseWriter, r *http.Request, err error) {
	problem := problemOf(err)
	if problem.Status == http.StatusInternalServerError && r.Context().Err() == nil {
		w.Logger.Error("request", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	writeJSON(rw, "application/problem+json", problem.Status, problem)
}

func problemOf(err error) Problem {
	status := http.StatusInternalServerError
	for _, known := range []struct {
		err    error
		status int
	}{
		{platform.ErrNotFound, http.StatusNotFound}, {instance.ErrNotFound, http.StatusNotFound}, {vip.ErrNotFound, http.StatusNotFound},
		{builder.ErrNotFound, http.StatusNotFound}, {promote.ErrUnbound, http.StatusNotFound},
		{platform.ErrInvalid, http.StatusBadRequest}, {promote.ErrInvalid, http.StatusBadRequest}, {vip.ErrInvalid, http.StatusBadRequest},
		{promote.ErrConflict, http.StatusConflict}, {promote.ErrRebound, http.StatusConflict}, {promote.ErrFenced, http.StatusConflict},
		{vip.ErrConflict, http.StatusConflict}, {vip.ErrFenced, http.StatusConflict},
		{vip.ErrExhausted, http.StatusServiceUnavailable}, {platform.ErrClosed, http.StatusServiceUnavailable}, {context.DeadlineExceeded, http.StatusGatewayTimeout},
	} {
		if errors.Is(err, known.err) {
			status = known.status
			break
		}
	}
	p := Problem{Status: status, Detail: err.Error()}
	if refused, ok := errors.AsType[*promote.RefusedError](err); ok {
		p.Status = http.StatusUnprocessableEntity
		for _, gate := range refused.Gates {
			p.Reasons = append(p.Reasons, gate.Reasons...)
			p.Missing = append(p.Missing, gate.Missing...)
		}
	}
	p.Title = http.StatusText(p.Status)
	return p
}

func writeJSON(w http.ResponseWriter, contentType string, status int, body any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(body) // the client has gone: nobody is left to tell
}
