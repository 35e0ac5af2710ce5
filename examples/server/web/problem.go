package web

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/untar"
	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

// Problem is the body of an error response (RFC 9457).
type Problem struct {
	httpproblem.Problem
	Reasons []string `json:"reasons,omitempty"` // of the gates that refused
	Missing []string `json:"missing,omitempty"` // files that a gate did not find
}

// rules are the errors of the packages that a request can meet. vip.ErrExhausted goes first: a
// request that waited in vain is exhausted before it is anything else.
var rules = httpproblem.Rules{
	{Err: syscall.ENOSPC, Kind: httpproblem.StorageFull},
	{Err: syscall.EDQUOT, Kind: httpproblem.StorageFull},
	{Err: untar.ErrFormat, Kind: httpproblem.UnsupportedFormat},
	{Err: untar.ErrTooLarge, Kind: httpproblem.TooLarge},
	{Err: untar.ErrInvalid, Kind: httpproblem.Invalid},

	{Err: vip.ErrExhausted, Kind: httpproblem.Exhausted},
	{Err: vip.ErrConflict, Kind: httpproblem.Conflict},
	{Err: vip.ErrFenced, Kind: httpproblem.Fenced},
	{Err: vip.ErrTaken, Kind: httpproblem.Taken},
	{Err: vip.ErrQuota, Kind: httpproblem.Quota},
	{Err: vip.ErrQuarantineFull, Kind: httpproblem.QuarantineFull},
	{Err: vip.ErrCompacted, Kind: httpproblem.Gone},
	{Err: vip.ErrUncertain, Kind: httpproblem.Uncertain},
	{Err: vip.ErrContended, Kind: httpproblem.Contended},
	{Err: vip.ErrTooLarge, Kind: httpproblem.TooLarge},
	{Err: vip.ErrNotFound, Kind: httpproblem.NotFound},
	{Err: vip.ErrInvalid, Kind: httpproblem.Invalid},

	// The journal is at fault, not the request, and only an operator can help: no 4xx.
	{Err: promote.ErrDamaged, Kind: httpproblem.ReadOnly},
	{Err: promote.ErrNewer, Kind: httpproblem.ReadOnly},
	{Err: promote.ErrSetBack, Kind: httpproblem.ReadOnly},
	{Err: promote.ErrTooLarge, Kind: httpproblem.TooLarge},
	{Err: promote.ErrConflict, Kind: httpproblem.Conflict},
	{Err: promote.ErrRebound, Kind: httpproblem.Conflict},
	{Err: promote.ErrFenced, Kind: httpproblem.Fenced},
	{Err: promote.ErrUnbound, Kind: httpproblem.NotFound},
	{Err: promote.ErrNotFound, Kind: httpproblem.NotFound},
	{Err: promote.ErrClosed, Kind: httpproblem.Unavailable},
	{Err: promote.ErrClock, Kind: httpproblem.Unavailable},
	{Err: promote.ErrInvalid, Kind: httpproblem.Invalid},

	{Err: builder.ErrTagExists, Kind: httpproblem.Conflict},
	{Err: builder.ErrNotFound, Kind: httpproblem.NotFound},
	{Err: builder.ErrInvalid, Kind: httpproblem.Invalid},
	{Err: builder.ErrUnsupported, Kind: httpproblem.Invalid},

	{Err: platform.ErrUnverified, Kind: httpproblem.Timeout},
	{Err: instance.ErrStart, Kind: httpproblem.DeployFailed},
	{Err: platform.ErrConflict, Kind: httpproblem.Conflict},
	{Err: platform.ErrClosed, Kind: httpproblem.Unavailable},
	{Err: platform.ErrNotFound, Kind: httpproblem.NotFound},
	{Err: instance.ErrNotFound, Kind: httpproblem.NotFound},
	{Err: platform.ErrInvalid, Kind: httpproblem.Invalid},
}

// problemOf is the answer to err. It does not say where the server keeps its files.
func problemOf(err error) Problem {
	p := problemWithPaths(err)
	p.Detail = withoutPaths(p.Detail, err)
	return p
}

// withoutPaths replaces the absolute paths in the text that file operations in err's tree have
// named by their last elements.
func withoutPaths(text string, err error) string {
	hide := func(path string) {
		if filepath.IsAbs(path) {
			text = strings.ReplaceAll(text, path, filepath.Base(path))
		}
	}
	switch e := err.(type) {
	case *fs.PathError:
		hide(e.Path)
	case *os.LinkError:
		hide(e.Old)
		hide(e.New)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return withoutPaths(text, e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			text = withoutPaths(text, part)
		}
	}
	return text
}

func problemWithPaths(err error) Problem {
	if refused, ok := errors.AsType[*promote.RefusedError](err); ok {
		p := Problem{Problem: httpproblem.New(httpproblem.Refused, err.Error())}
		for _, gate := range refused.Gates {
			p.Reasons = append(p.Reasons, gate.Reasons...)
			p.Missing = append(p.Missing, gate.Missing...)
		}
		return p
	}
	// A deployer's error is about the service, not about the request, unless another server has
	// taken over or Nginx did not answer.
	if _, ok := errors.AsType[*promote.DeployError](err); ok &&
		!errors.Is(err, promote.ErrFenced) && !errors.Is(err, platform.ErrUnverified) {
		return Problem{Problem: httpproblem.New(httpproblem.DeployFailed, err.Error())}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return Problem{Problem: httpproblem.New(httpproblem.TooLarge, err.Error())}
	}
	return Problem{Problem: rules.Problem(err)}
}

func writeProblem(w http.ResponseWriter, kind httpproblem.Kind, detail string) {
	httpproblem.Write(w, httpproblem.New(kind, detail))
}

// forOperator reports whether the server logs p as an error: the fault is in the server or its
// journal.
func forOperator(p Problem) bool {
	return p.Code == httpproblem.Internal || p.Code == httpproblem.ReadOnly
}

// fail answers with the status that the error stands for.
func (w *web) fail(rw http.ResponseWriter, r *http.Request, err error) {
	problem := problemOf(err)
	if forOperator(problem) && r.Context().Err() == nil {
		w.Logger.Error("request", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	httpproblem.Write(rw, problem)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(body) // an error means that the client has gone
}
