package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/BurntSushi/toml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// errNoTree is about a file whose format knows no types.
var errNoTree = errors.New("a JSON Schema is for YAML, JSON and TOML: say in keys what this file " +
	"must have")

// read returns the documents of a file as the validator takes them. A file that cannot be read in
// its format has no documents.
func read(format string, data []byte) ([]any, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	switch format {
	case "json":
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		return []any{v}, err
	case "toml":
		var v map[string]any
		if _, err := toml.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil {
			return nil, err
		}
		return []any{plain(v)}, nil
	case "yaml":
		var all []any
		for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
			var v any
			if err := dec.Decode(&v); errors.Is(err, io.EOF) {
				return all, nil
			} else if err != nil {
				return nil, err
			}
			all = append(all, plain(v))
		}
	}
	return nil, errNoTree
}

// prefix returns the prefix of the keys of a YAML file's documents after the first, as in package
// check.
func prefix(document int) string {
	if document == 0 {
		return ""
	}
	return fmt.Sprintf("document%d", document+1)
}

// plain returns v with the types of JSON: keys and dates become strings, as do NaN and infinite
// numbers.
func plain(v any) any {
	switch v := v.(type) {
	case nil, bool, string, int, int64, uint64:
		return v
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
		return v
	case map[string]any:
		for key := range v {
			v[key] = plain(v[key])
		}
		return v
	case map[any]any:
		out := make(map[string]any, len(v))
		for key := range v {
			out[fmt.Sprint(key)] = plain(v[key])
		}
		return out
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
		return v
	case []map[string]any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plain(v[i])
		}
		return out
	}
	return fmt.Sprint(v)
}
