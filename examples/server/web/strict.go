package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/internal/strictjson"
)

// parameters are the query parameters that operations take; any other is refused, because an answer
// that does not heed it would look as if it did.
var parameters = map[string][]string{
	"GET /versions": {"cluster"},
	"GET /journal": {"cluster", "environment", "task", "after", "before",
		"limit"},
	"DELETE /builds/{build}":     {"actor", "reason"},
	"GET /builds/{build}/events": {"after"},
	"GET /builds/{build}/log":    {"offset"},
	"DELETE /tasks/{task}":       {"actor"},
	"DELETE /changes/{change}":   {"actor", "reason"},
	"DELETE /freezes/{freeze}":   {"actor"},
	"GET /explanation": {"cluster", "environment", "version", "expect",
		"actor"},
	"POST /changes/{change}/pause":       {"actor"},
	"POST /changes/{change}/continue":    {"actor"},
	"POST /instances/{instance}/restart": {"actor"},
}

// strict refuses query parameters that the operation does not take, and one that comes twice.
func strict(operation string, next http.Handler) http.Handler {
	known := parameters[operation]
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" {
			next.ServeHTTP(rw, r)
			return
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			writeProblem(rw, httpproblem.Invalid, "query: "+err.Error())
			return
		}
		for name, values := range query {
			switch {
			case !slices.Contains(known, name):
				takes := "none"
				if len(known) > 0 {
					takes = strings.Join(known, ", ")
				}
				writeProblem(rw, httpproblem.Invalid, fmt.Sprintf("query parameter %.64q is not "+
					"known: %s takes %s", name, operation, takes))
				return
			case len(values) > 1:
				writeProblem(rw, httpproblem.Invalid, fmt.Sprintf("query parameter %s comes %d "+
					"times: want it once", name, len(values)))
				return
			case !utf8.ValidString(values[0]):
				writeProblem(rw, httpproblem.Invalid, fmt.Sprintf("query parameter %s: want UTF-8",
					name))
				return
			}
		}
		next.ServeHTTP(rw, r)
	})
}

// maxBody bounds the body of a request but for an upload.
const maxBody = 1 << 20

// decode reads the body, which is one JSON value of the fields of in, each spelt as here and once,
// and nothing else. The error matches platform.ErrInvalid, or is an *http.MaxBytesError.
func decode(rw http.ResponseWriter, r *http.Request, in any) error {
	data, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fmt.Errorf("request body: %w", err)
	}
	if err == nil {
		if err = strictjson.Decode(data, in); err == io.EOF {
			err = errors.New("want a JSON object")
		}
	}
	if err != nil {
		return fmt.Errorf("request body: %w: %w", err, platform.ErrInvalid)
	}
	return nil
}
