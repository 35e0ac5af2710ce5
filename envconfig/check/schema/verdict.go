package schema

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/sluice-deploy/sluice/envconfig/check"
)

// verdict turns the validator's tree of errors, whose texts quote values, into problems that do
// not.
type verdict struct {
	document any
	prefix   string
	problems []problem
}

type problem struct{ key, message string }

func (v *verdict) take(err error) {
	var invalid *jsonschema.ValidationError
	if errors.As(err, &invalid) {
		v.walk(invalid)
	}
}

func (v *verdict) walk(e *jsonschema.ValidationError) {
	key, value := v.locate(e.InstanceLocation)
	if text, ok := value.(string); ok && check.IsReference(text) {
		return // its value is not known before the start
	}
	add := func(key, format string, args ...any) {
		v.problems = append(v.problems, problem{key, fmt.Sprintf(format, args...)})
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			add(check.Join(key, name), "the required key is missing")
		}
	case *kind.DependentRequired:
		for _, name := range k.Missing {
			add(check.Join(key, name), "the key is missing, which is required where there is %s",
				k.Prop)
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			add(check.Join(key, name), "the schema has no such key")
		}
	case *kind.PropertyNames:
		add(check.Join(key, k.Property), "the key has a name that the schema forbids")
	case *kind.Type:
		add(key, "has the type %s and must have %s", k.Got, strings.Join(k.Want, " or "))
	case *kind.Enum, *kind.Const:
		add(key, "is none of the allowed values")
	case *kind.Pattern:
		add(key, "does not match the declared pattern")
	case *kind.Not, *kind.FalseSchema:
		add(key, "is what the schema forbids")
	case *kind.AnyOf, *kind.OneOf, *kind.Contains, *kind.MinContains:
		// the causes are about alternatives, of which none is the one that was meant
		add(key, "does not satisfy %s", keyword(k))
	default:
		for _, cause := range e.Causes {
			v.walk(cause)
		}
		if len(e.Causes) == 0 {
			add(key, "does not satisfy %s", keyword(k))
		}
	}
}

func keyword(k jsonschema.ErrorKind) string {
	if words := k.KeywordPath(); len(words) > 0 {
		return strconv.Quote(words[0])
	}
	return "the schema"
}

// locate returns the key of the place, as package check writes it, and the value there.
func (v *verdict) locate(tokens []string) (key string, value any) {
	key, value = v.prefix, v.document
	for _, token := range tokens {
		switch at := value.(type) {
		case []any:
			key += "[" + token + "]"
			value = nil
			if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(at) {
				value = at[i]
			}
		case map[string]any:
			key, value = check.Join(key, token), at[token]
		default:
			key, value = check.Join(key, token), nil
		}
	}
	return key, value
}
