package web

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// confirmation is the page that names the change that a form is about to make, and asks for a name.
type confirmation struct {
	Title    string
	Facts    []fact
	Required bool // also when the name is known

	Form          string // that it is about
	Fields        []fact // as the form has sent them, without the fields of this page
	Actor, Reason string
}

// fact is a word and its value. Digest is shown as one.
type fact struct{ Name, Value, Digest string }

// titled is a confirmation that only a missing name asks for.
func titled(title func(f form) string) func(context.Context, form) (confirmation, error) {
	return func(_ context.Context, f form) (confirmation, error) {
		return confirmation{Title: title(f)}, nil
	}
}

// aboutPromotion asks for a confirmation where people outside of testing see the change.
func (w *web) aboutPromotion(ctx context.Context, f form) (confirmation, error) {
	request := f.promotion()
	c := confirmation{
		Title: "Deploy " + request.Cluster + " " + request.Version + " to " +
			request.Environment,
		Required: w.Platform.Guarded(request.Environment),
	}
	if !c.Required || f.value("confirmed") != "" {
		return c, nil
	}
	request.Actor = cmp.Or(request.Actor, "a name that is asked for next")
	planned, err := w.Platform.PlanPromotion(ctx, request)
	if err != nil {
		return c, err
	}
	c.Facts = w.facts("Deploys", planned)
	return c, nil
}

func (w *web) aboutRollback(ctx context.Context, f form) (confirmation, error) {
	request := f.rollback()
	c := confirmation{Title: "Roll " + request.Cluster + " back in " + request.Environment,
		Required: true}
	if f.value("confirmed") != "" {
		return c, nil
	}
	planned, err := w.Platform.PlanRollback(ctx, request)
	if err != nil {
		return c, err
	}
	c.Facts = w.facts("Puts back", planned)
	return c, nil
}

func (w *web) facts(verb string, planned platform.Plan) []fact {
	facts := []fact{
		{"Cluster", planned.Next.Cluster, ""}, {"Environment", planned.Next.Environment, ""},
		{verb, cmp.Or(planned.Next.Version, "a digest without a version"), planned.Next.Digest},
	}
	if now := planned.Current; now.Digest == "" {
		facts = append(facts, fact{"Replaces", "nothing", ""})
	} else {
		facts = append(facts, fact{"Replaces", now.Version + ", deployed by " + now.Actor + " at " +
			clock(now.Since), now.Digest})
	}
	if w.Platform.Baseline() == planned.Next.Environment {
		facts = append(facts, fact{"Who sees it", "the plain address, and every VIP whose task " +
			"names another cluster: this is the baseline", ""})
	}
	return facts
}

// asked are the fields that the page itself has.
var asked = []string{"actor", "reason", "confirmed"}

// of completes the confirmation with the fields that the form has sent.
func (c confirmation) of(name string, f form) confirmation {
	c.Form, c.Actor, c.Reason = name, f.actor(), f.value("reason")
	c.Fields = hidden(f.r.PostForm, func(field string) bool {
		return !slices.Contains(asked, field) && !strings.HasPrefix(field, "seen.")
	})
	if name == "promotions" { // also the digest that another page showed as current
		c.Fields = slices.DeleteFunc(c.Fields, func(f fact) bool { return f.Name == "expect" })
		if expect := cmp.Or(f.promotion().Expect, c.replaced()); expect != "" {
			c.Fields = append(c.Fields, fact{Name: "expect", Value: expect})
		}
	}
	return c
}

// replaced is the digest that the page shows as current, or "none"; empty when it shows none.
func (c confirmation) replaced() string {
	for _, fact := range c.Facts {
		if fact.Name == "Replaces" {
			return cmp.Or(fact.Digest, "none")
		}
	}
	return ""
}

// hidden are the fields of a form that keep lets through, in the order of their names.
func hidden(sent url.Values, keep func(name string) bool) (fields []fact) {
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		if !keep(name) {
			continue
		}
		for _, value := range sent[name] {
			fields = append(fields, fact{Name: name, Value: value})
		}
	}
	return fields
}
