package promote

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
)

// SameActor reports whether two names are of one person: spaces around them, the case of their
// letters, characters that show nothing, and whether an accent is a character of its own (Unicode's
// forms NFC and NFD) do not count. Everything in this package that compares actors does so by it.
func SameActor(a, b string) bool {
	return a == b || strings.EqualFold(names.Person(a), names.Person(b))
}

// among reports whether actor is one of list.
func among(list []string, actor string) bool {
	return slices.ContainsFunc(list, func(a string) bool { return SameActor(a, actor) })
}

// people returns list with each person once.
func people(list []string) []string {
	var once []string
	for _, actor := range list {
		if !among(once, actor) {
			once = append(once, actor)
		}
	}
	return once
}

// policy names the rules in force at a target: it changes with the pipeline, with the names
// of the gates, and with the settings of those that have a method Policy.
func (p *Promoter) policy(t Target) string {
	back := p.rollback
	if back.Versions == 1 { // written out, it is the same rule
		back.Versions = 0
	}
	rules := []any{p.pipeline, back}
	for _, gate := range p.gates {
		rules = append(rules, gate.Name())
		if g, ok := gate.(interface{ Policy(Target) any }); ok {
			rules = append(rules, g.Policy(t))
		}
	}
	text, err := json.Marshal(rules)
	if err != nil { // a Policy that is no JSON counts as its text in Go
		text = fmt.Appendf(nil, "%v", rules)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// override turns the refusal of a request by gates into the note for its Started entry, where the
// request says so and its actor may. No override lets a digest out of quarantine.
func (p *Promoter) override(q asking, answer error) (note string, err error) {
	var refused *RefusedError
	if q.Override == "" || !errors.As(answer, &refused) {
		return "", answer
	}
	if !among(p.breakers, q.Actor) {
		refused.Gates = append(refused.Gates, GateRefusal{Gate: "override", Refusal: Refusal{
			Reasons: []string{q.Actor + " may not override gates: ask one who may"},
			Who:     slices.Clone(p.breakers)}})
		return "", refused
	}
	var unmet []string
	for _, g := range refused.Gates {
		if g.Gate == "quarantine" && g.Err == nil && refused.Change.Quarantine != (Hold{}) {
			return "", refused
		}
		unmet = append(unmet, g.Gate+" gate: "+g.Refusal.Error())
	}
	return clip(fmt.Sprintf(overrides+"%s; not met: %s", q.Override, strings.Join(unmet, "; ")),
		maxText), nil
}
