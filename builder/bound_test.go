package builder_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/builder"
)

func TestBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		declared string // besides name, required, description and example
		example  string
		good     []string
		bad      map[string]string // values and a part of what is said of them
	}{
		{`"type": "int", "min": "10", "max": "95"`, "70", []string{"10", "95"}, map[string]string{
			"9": "at least 10", "96": "at most 95", "070": "a whole number", "-1": "a whole number",
			"1e1": "a whole number", "99999999999999999999": "a whole number"}},
		{`"type": "int"`, "0", []string{"0", "9007199254740991"}, map[string]string{
			"9007199254740992": "a whole number", "1.0": "a whole number", "+1": "a whole number"}},
		{`"type": "size", "min": "64m", "max": "2g"`, "512m", []string{"64M", "65536k", "2048m",
			"67108864"}, map[string]string{"63m": "at least 64m", "2049m": "at most 2g",
			"512mb": "a size such as 512m", "0m": "a size", "1.5g": "a size", "m": "a size",
			"9999999999999999g": "a size"}},
		{`"type": "port", "min": "1024"`, "8080", []string{"1024", "65535"}, map[string]string{
			"80": "at least 1024", "65536": "a port from 1 to 65535"}},
		{`"type": "bool"`, "true", []string{"false"}, map[string]string{"yes": "true or false",
			"True": "true or false", "1": "true or false"}},
		{`"type": "word", "pattern": "a|ab"`, "a", []string{"ab"}, map[string]string{
			"abc": "a match"}},
		{`"type": "word", "pattern": "\\Qa.b"`, "a.b", nil, map[string]string{"axb": "a match"}},
		{`"type": "word", "pattern": "v[0-9]+|main"`, "v1", []string{"v22", "main"},
			map[string]string{"xv1": "a match of", "v1x": "a match of", "mainv1": "a match of",
				"v$1": "a variable sign"}},
	} {
		t.Run(c.declared, func(t *testing.T) {
			t.Parallel()
			loaded, err := builder.Load(catalogue("FROM scratch\nCOPY {{A}} /x\n", fmt.Sprintf(
				`{"description": "d", "params": [{"name": "A", "description": "a", "required": true,
				"example": %q, %s}]}`, c.example, c.declared)))
			if err != nil {
				t.Fatal(err)
			}
			tmpl, err := loaded.Template("t")
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range append(c.good, c.example) {
				if _, err := tmpl.Render(map[string]string{"A": v}); err != nil {
					t.Error(err)
				}
			}
			for v, says := range c.bad {
				_, err := tmpl.Render(map[string]string{"A": v})
				if !errors.Is(err, builder.ErrInvalid) || !strings.Contains(err.Error(), says) {
					t.Errorf("value %s: %v, want %q", v, err, says)
				}
			}
		})
	}
}

func TestLoadRefusesBounds(t *testing.T) {
	t.Parallel()
	for declared, says := range map[string]string{
		`"type": "word", "default": "a", "min": "1"`:                           "only the types int, size and port",
		`"type": "int", "default": "1", "max": "x"`:                            `max "x" is not a whole number`,
		`"type": "size", "default": "1g", "min": "1z"`:                         `min "1z" is not a size`,
		`"type": "int", "default": "1", "min": "3", "max": "2"`:                "min is above max",
		`"type": "int", "default": "1", "min": "3"`:                            `value "1" is not at least 3`,
		`"type": "word", "default": "a", "pattern": "("`:                       "pattern: error parsing regexp",
		`"type": "word", "default": "a", "pattern": "b"`:                       `value "a" is not a match of b`,
		`"type": "enum", "default": "a", "values": ["a", "b"], "pattern": "a"`: `choice: value "b"`,
		`"type": "bool", "default": "on"`:                                      `value "on" is not true or false`,
		`"type": "size", "default": "1g", "max": "9007199254740992"`:           "is not a size",
	} {
		_, err := builder.Load(catalogue("FROM scratch\nCOPY {{A}} /x\n",
			`{"description": "d", "params": [{"name": "A", "description": "a", `+declared+`}]}`))
		if !errors.Is(err, builder.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", declared, err, says)
		}
	}
}
