// Package gatetest holds a [promote.Gate] to its contract. A gate's test calls [Run] with changes
// of which it knows whether they pass.
package gatetest

import (
	"context"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-deploy/sluice/promote"
)

// Harness is a gate under test.
type Harness struct {
	Gate promote.Gate
	// Pipeline is one that the gate's settings fit. The default, for nil, is
	// promote.DefaultPipeline().
	Pipeline promote.Pipeline
	// Pass are changes that the gate lets pass, by description; at least one.
	Pass map[string]promote.Change
	// Refuse are changes that the gate does not let pass, by description; at least one.
	Refuse map[string]promote.Change
}

var oneOrTwoWords = regexp.MustCompile(`^[a-z]+( [a-z]+)?$`)

// Run runs the suite. open gives every case a gate of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"the name is one or two words", named},
		{"the settings fit the pipeline", fits},
		{"changes pass", passes},
		{"a refusal has reasons", refuses},
		{"a pure gate judges as it checks", judges},
		{"the change stays as it was", leavesAlone},
		{"changes side by side", sideBySide},
		{"a cancelled call decides or returns the cause", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := open(t)
			if h.Gate == nil || len(h.Pass) == 0 || len(h.Refuse) == 0 {
				t.Fatal("gatetest: a gate and changes of both kinds are required")
			}
			c.run(t, h)
		})
	}
}

func named(t *testing.T, h Harness) {
	if name := h.Gate.Name(); !oneOrTwoWords.MatchString(name) || name != h.Gate.Name() {
		t.Errorf("name is %q, want one or two lower-case words, the same each time", name)
	}
}

func fits(t *testing.T, h Harness) {
	if h.Pipeline == nil {
		h.Pipeline = promote.DefaultPipeline()
	}
	if v, ok := h.Gate.(interface{ Validate(promote.Pipeline) error }); ok {
		if err := v.Validate(h.Pipeline); err != nil {
			t.Errorf("validate: %v", err)
		}
	}
}

func passes(t *testing.T, h Harness) {
	for name, c := range h.Pass {
		if err := h.Gate.Check(t.Context(), c); err != nil {
			t.Errorf("%s: got %v, want nil", name, err)
		}
	}
}

func refuses(t *testing.T, h Harness) {
	for name, c := range h.Refuse {
		err := h.Gate.Check(t.Context(), c)
		var refusal *promote.Refusal
		if !errors.As(err, &refusal) {
			t.Errorf("%s: got %v, want a *Refusal", name, err)
			continue
		}
		if len(refusal.Reasons) == 0 {
			t.Errorf("%s: the refusal has no reason", name)
		}
		for _, reason := range refusal.Reasons {
			if strings.TrimSpace(reason) == "" {
				t.Errorf("%s: the refusal has an empty reason", name)
			}
		}
		if !refusal.Until.IsZero() && !refusal.Until.After(c.Time) {
			t.Errorf("%s: refused until %s, asked at %s", name, refusal.Until, c.Time)
		}
	}
}

func judges(t *testing.T, h Harness) {
	gate, ok := h.Gate.(promote.PureGate)
	if !ok {
		return
	}
	for name, c := range h.all() {
		var want *promote.Refusal
		errors.As(gate.Check(t.Context(), c), &want)
		if got := gate.Judge(c); !reflect.DeepEqual(want, got) {
			t.Errorf("%s: judges %+v, checks %+v", name, got, want)
		}
	}
}

func leavesAlone(t *testing.T, h Harness) {
	for name, c := range h.all() {
		before := deep(c)
		_ = h.Gate.Check(t.Context(), c)
		if !reflect.DeepEqual(before, c) {
			t.Errorf("%s: the gate made %+v of the change %+v", name, c, before)
		}
	}
}

// deep returns a copy of c that shares no slice with it.
func deep(c promote.Change) promote.Change {
	c.Runs = append([]promote.Run(nil), c.Runs...)
	c.Reviews = append([]promote.Review(nil), c.Reviews...)
	return c
}

func sideBySide(t *testing.T, h Harness) {
	var wg sync.WaitGroup
	for name, c := range h.all() {
		_, pass := h.Pass[name]
		for range 4 {
			wg.Go(func() {
				if err := h.Gate.Check(t.Context(), c); (err == nil) != pass {
					t.Errorf("%s: got %v beside other calls", name, err)
				}
			})
		}
	}
	wg.Wait()
}

func cancelled(t *testing.T, h Harness) {
	cause := errors.New("the caller's reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for name, c := range h.all() {
		err := h.Gate.Check(ctx, c)
		var refusal *promote.Refusal
		_, pass := h.Pass[name]
		if decided := pass && err == nil || !pass && errors.As(err, &refusal); !decided &&
			!errors.Is(err, cause) {
			t.Errorf("%s: got %v, want the decision or the context's cause", name, err)
		}
	}
}

func (h Harness) all() map[string]promote.Change {
	all := map[string]promote.Change{}
	for name, c := range h.Pass {
		all[name] = c
	}
	for name, c := range h.Refuse {
		all[name] = c
	}
	return all
}
