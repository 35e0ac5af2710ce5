// Package httpproblem writes the errors of HTTP interfaces as application/problem+json (RFC 9457).
//
// One table says which status a kind of error has, for all interfaces of this module. The package
// knows kinds, not packages: each interface has a [Rules] that maps the sentinels which it meets to
// kinds.
//
//	var rules = httpproblem.Rules{
//		{Err: vip.ErrExhausted, Kind: httpproblem.Exhausted},
//		{Err: vip.ErrInvalid, Kind: httpproblem.Invalid},
//	}
//
//	httpproblem.Write(w, rules.Problem(err))
//
// An interface that has more to say embeds [Problem] in a struct of its own and hands that to
// [Write]: the fields become members beside the standard ones.
package httpproblem

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Kind is a kind of error. Its text is the member "code" of the answer, by which a program
// distinguishes errors that share a status.
type Kind string

// The kinds of errors. The table of this package gives each its status.
const (
	// 400: the request is wrong and stays wrong
	Invalid Kind = "invalid"
	// 401: credentials are missing or wrong
	Unauthenticated Kind = "unauthenticated"
	// 403: the caller may not do this
	Forbidden Kind = "forbidden"
	// 404: the path or the thing does not exist
	NotFound Kind = "not-found"
	// 405: the path takes other methods
	MethodNotAllowed Kind = "method-not-allowed"
	// 409: the state is not the one that the caller expects
	Conflict Kind = "conflict"
	// 409: a newer generation has taken over
	Fenced Kind = "fenced"
	// 409: another owner has it
	Taken Kind = "taken"
	// 409: no wait and no retry can ever fulfil the request
	Unsatisfiable Kind = "unsatisfiable"
	// 409: the pool admits no further quarantine
	QuarantineFull Kind = "quarantine-full"
	// 410: the history asked for was cut off
	Gone Kind = "compacted"
	// 412: If-Match names another revision; nothing else is 412
	Precondition Kind = "precondition"
	// 413: the request or its content exceeds a limit
	TooLarge Kind = "too-large"
	// 415: the content is in none of the formats that are taken
	UnsupportedFormat Kind = "unsupported-format"
	// 421: the host name is not one of this server
	Misdirected Kind = "misdirected"
	// 422: a policy, such as a gate, does not let it pass
	Refused Kind = "refused"
	// 422: the deployed version did not come up
	DeployFailed Kind = "deploy-failed"
	// 429: the caller has used up its share
	Quota Kind = "quota"
	// 500: any error without a rule
	Internal Kind = "internal"
	// 503: nothing is free now; later there may be
	Exhausted Kind = "exhausted"
	// 503: whether the change was stored is not known yet
	Uncertain Kind = "uncertain"
	// 503: others changed the same state again and again
	Contended Kind = "contended"
	// 503: the server shuts down or lacks a service that it depends on
	Unavailable Kind = "unavailable"
	// 503: reads go on, and writes fail until an operator has acted
	ReadOnly Kind = "read-only"
	// 504: the deadline passed before the work was done
	Timeout Kind = "timeout"
	// 507: the disk or the quota of the server is full
	StorageFull Kind = "storage-full"
)

var statuses = map[Kind]int{
	Invalid:           http.StatusBadRequest,
	Unauthenticated:   http.StatusUnauthorized,
	Forbidden:         http.StatusForbidden,
	NotFound:          http.StatusNotFound,
	MethodNotAllowed:  http.StatusMethodNotAllowed,
	Conflict:          http.StatusConflict,
	Fenced:            http.StatusConflict,
	Taken:             http.StatusConflict,
	Unsatisfiable:     http.StatusConflict,
	QuarantineFull:    http.StatusConflict,
	Gone:              http.StatusGone,
	Precondition:      http.StatusPreconditionFailed,
	TooLarge:          http.StatusRequestEntityTooLarge,
	UnsupportedFormat: http.StatusUnsupportedMediaType,
	Misdirected:       http.StatusMisdirectedRequest,
	Refused:           http.StatusUnprocessableEntity,
	DeployFailed:      http.StatusUnprocessableEntity,
	Quota:             http.StatusTooManyRequests,
	Internal:          http.StatusInternalServerError,
	Exhausted:         http.StatusServiceUnavailable,
	Uncertain:         http.StatusServiceUnavailable,
	Contended:         http.StatusServiceUnavailable,
	Unavailable:       http.StatusServiceUnavailable,
	ReadOnly:          http.StatusServiceUnavailable,
	Timeout:           http.StatusGatewayTimeout,
	StorageFull:       http.StatusInsufficientStorage,
}

// Status returns the HTTP status of the kind; that of Internal for one that is not in the table.
func (k Kind) Status() int {
	if status, ok := statuses[k]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// Rule says which kind an error is that matches Err by errors.Is.
type Rule struct {
	Err  error
	Kind Kind
}

// Rules are looked through in order; the first match decides. An error that matches several is the
// kind of the earliest rule.
type Rules []Rule

// Kind returns the kind of err: that of the first matching rule, else Timeout for
// context.DeadlineExceeded, else Internal.
func (r Rules) Kind(err error) Kind {
	for _, rule := range r {
		if errors.Is(err, rule.Err) {
			return rule.Kind
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	return Internal
}

// Problem returns the problem of err, with its text as the detail.
func (r Rules) Problem(err error) Problem { return New(r.Kind(err), err.Error()) }

// Problem is the body of an error. There is no member "type": RFC 9457 then means "about:blank",
// a problem that says no more than its status; Code is the extension that distinguishes kinds.
type Problem struct {
	Title  string `json:"title"`  // the status in words
	Status int    `json:"status"` // the HTTP status
	Code   Kind   `json:"code"`
	Detail string `json:"detail"` // what happened, for a person
}

// New returns the problem of a kind.
func New(kind Kind, detail string) Problem {
	status := kind.Status()
	return Problem{Title: http.StatusText(status), Status: status, Code: kind, Detail: detail}
}

func (p Problem) problem() Problem { return p }

// Body is a Problem, or a struct that embeds one and adds members.
type Body interface{ problem() Problem }

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

// When a caller may try again after a status of 503, where Write was not told better.
const (
	retryAfter         = time.Second
	retryAfterOperator = time.Minute
)

// Write answers with body and its status. With a status of 503 it sets Retry-After to one second,
// and to one minute for ReadOnly, unless the header is set already. Headers such as Allow are set
// by the caller before.
func Write(w http.ResponseWriter, body Body) {
	p := body.problem()
	h := w.Header()
	if p.Status == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
		after := retryAfter
		if p.Code == ReadOnly {
			after = retryAfterOperator
		}
		h.Set("Retry-After", strconv.Itoa(int(after/time.Second)))
	}
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil { // a member that is no JSON: the standard ones always are
		text, _ = json.MarshalIndent(p, "", "  ")
	}
	h.Set("Content-Type", ContentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Content-Length")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(text, '\n')) // fails when the client is gone
}
