package httpproblem_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/internal/httpproblem"
)

// TestStatusOfEachKind reads the constants, so that a new kind without a status or with another one
// than its comment says fails.
func TestStatusOfEachKind(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "httpproblem.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Kind" {
			return true
		}
		kinds++
		text, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		status := httpproblem.Kind(text).Status()
		if !strings.HasPrefix(spec.Doc.Text(), strconv.Itoa(status)+": ") {
			t.Errorf("%s has the status %d, its comment says %q", spec.Names[0], status,
				spec.Doc.Text())
		}
		if status == http.StatusPreconditionFailed && text != "precondition" {
			t.Errorf("%s: 412 is for If-Match only", spec.Names[0])
		}
		if http.StatusText(status) == "" {
			t.Errorf("%s: no status %d", spec.Names[0], status)
		}
		return true
	})
	if kinds < 20 {
		t.Errorf("found %d kinds", kinds)
	}
	if got := httpproblem.Kind("other").Status(); got != http.StatusInternalServerError {
		t.Errorf("an unknown kind has the status %d", got)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	full, conflict := errors.New("exhausted"), errors.New("conflict")
	rules := httpproblem.Rules{{full, httpproblem.Exhausted}, {conflict, httpproblem.Conflict}}
	for _, tc := range []struct {
		name string
		err  error
		want httpproblem.Kind
	}{
		{"wrapped", fmt.Errorf("allocate: %w", conflict), httpproblem.Conflict},
		{"the earliest rule decides", errors.Join(conflict, full), httpproblem.Exhausted},
		{"a rule goes before the deadline", errors.Join(context.DeadlineExceeded, full),
			httpproblem.Exhausted},
		{"deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), httpproblem.Timeout},
		{"unknown", errors.New("disk"), httpproblem.Internal},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := rules.Problem(tc.err); got != httpproblem.New(tc.want, tc.err.Error()) {
				t.Errorf("got %+v, want the kind %s", got, tc.want)
			}
		})
	}
}

type extended struct {
	httpproblem.Problem
	Free  *int    `json:"free,omitempty"`
	Share float64 `json:"share,omitempty"`
}

func TestWrite(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, body httpproblem.Body, header http.Header) (*http.Response,
		map[string]any) {
		w := httptest.NewRecorder()
		for name, values := range header {
			w.Header()[name] = values
		}
		httpproblem.Write(w, body)
		var members map[string]any
		if err := json.NewDecoder(w.Body).Decode(&members); err != nil {
			t.Fatal(err)
		}
		return w.Result(), members
	}
	expect := func(t *testing.T, members map[string]any, want string) {
		t.Helper()
		got, err := json.Marshal(members)
		if err != nil || string(got) != want {
			t.Errorf("got %s, want %s (%v)", got, want, err)
		}
	}
	t.Run("standard members", func(t *testing.T) {
		resp, members := write(t, httpproblem.New(httpproblem.NotFound, `lease "a": not found`),
			nil)
		expect(t, members,
			`{"code":"not-found","detail":"lease \"a\": not found","status":404,"title":"Not Found"}`)
		if resp.StatusCode != 404 ||
			resp.Header.Get("Content-Type") != "application/problem+json" ||
			resp.Header.Get("Retry-After") != "" {
			t.Errorf("got %d %v", resp.StatusCode, resp.Header)
		}
	})
	t.Run("members beside the standard ones", func(t *testing.T) {
		free := 0
		body := extended{Problem: httpproblem.New(httpproblem.Exhausted, "full"), Free: &free}
		resp, members := write(t, body, nil)
		expect(t, members,
			`{"code":"exhausted","detail":"full","free":0,"status":503,"title":"Service Unavailable"}`)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("got %d %v", resp.StatusCode, resp.Header)
		}
	})
	t.Run("the caller's Retry-After stays", func(t *testing.T) {
		resp, _ := write(t, httpproblem.New(httpproblem.Contended, ""),
			http.Header{"Retry-After": {"7"}})
		if resp.Header.Get("Retry-After") != "7" {
			t.Errorf("got %v", resp.Header)
		}
	})
	t.Run("a retry waits for an operator", func(t *testing.T) {
		resp, _ := write(t, httpproblem.New(httpproblem.ReadOnly, ""), nil)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "60" {
			t.Errorf("got %d %v", resp.StatusCode, resp.Header)
		}
	})
	t.Run("a member that is no JSON is left out", func(t *testing.T) {
		resp, members := write(t, extended{Problem: httpproblem.New(httpproblem.Fenced, "old"),
			Share: math.NaN()}, nil)
		expect(t, members, `{"code":"fenced","detail":"old","status":409,"title":"Conflict"}`)
		if resp.StatusCode != 409 {
			t.Errorf("got %d", resp.StatusCode)
		}
	})
}

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/internal/httpproblem")
}
