package web_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// document is the OpenAPI document, to hold real answers against.
type document map[string]any

func readDocument(t *testing.T) document {
	t.Helper()
	data, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	var d document
	require.NoError(t, json.Unmarshal(data, &d))
	return d
}

// at goes down by names; nil when there is nothing.
func at(value any, path ...string) any {
	for _, name := range path {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	return value
}

// check holds an answer to the operation against its schema: each field must be documented, and of
// the documented type.
func (d document) check(t *testing.T, method, path string, response *http.Response, body []byte) {
	t.Helper()
	responses := at(map[string]any(d), "paths", path, strings.ToLower(method), "responses")
	require.NotNil(t, responses, "%s %s is not in the document", method, path)
	documented := at(responses, fmt.Sprint(response.StatusCode), "content")
	if documented == nil {
		documented = at(responses, "default", "content")
	}
	contentType, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	schema := at(documented, contentType, "schema")
	require.NotNil(t, schema, "%s %s: %d with %s is not documented", method, path,
		response.StatusCode, contentType)
	if !strings.HasSuffix(contentType, "json") {
		return
	}
	var value any
	require.NoError(t, json.Unmarshal(body, &value))
	require.Empty(t, d.wrong(method+" "+path, schema, value))
}

// wrong lists the places where value does not match the schema.
func (d document) wrong(where string, schema, value any) (errs []string) {
	s := d.resolve(schema)
	switch s["type"] {
	case "object":
		object, ok := value.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s: %v is not an object", where, value)}
		}
		properties, _ := s["properties"].(map[string]any)
		required, _ := s["required"].([]any)
		for _, name := range required {
			if _, found := object[name.(string)]; !found {
				errs = append(errs, fmt.Sprintf("%s: %s is missing", where, name))
			}
		}
		for name, v := range object {
			switch {
			case properties[name] != nil:
				errs = append(errs, d.wrong(where+"."+name, properties[name], v)...)
			case s["additionalProperties"] != nil:
				errs = append(errs, d.wrong(where+"."+name, s["additionalProperties"], v)...)
			case properties != nil:
				errs = append(errs, fmt.Sprintf("%s: %s is not documented", where, name))
			}
		}
	case "array":
		array, ok := value.([]any)
		if !ok {
			return []string{fmt.Sprintf("%s: %v is not an array", where, value)}
		}
		for n, v := range array {
			errs = append(errs, d.wrong(fmt.Sprintf("%s[%d]", where, n), s["items"], v)...)
		}
	case "string":
		text, ok := value.(string)
		if allowed, _ := s["enum"].([]any); !ok || allowed != nil &&
			!slices.Contains(allowed, any(text)) {
			return []string{fmt.Sprintf("%s: %v is not such a string", where, value)}
		}
	case "integer":
		if n, ok := value.(float64); !ok || n != float64(int64(n)) {
			return []string{fmt.Sprintf("%s: %v is not an integer", where, value)}
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			return []string{fmt.Sprintf("%s: %v is not a boolean", where, value)}
		}
	default:
		return []string{fmt.Sprintf("%s: schema of the type %v", where, s["type"])}
	}
	return errs
}

// resolve follows $ref and puts the parts of allOf together.
func (d document) resolve(schema any) map[string]any {
	s, _ := schema.(map[string]any)
	if ref, ok := s["$ref"].(string); ok {
		return d.resolve(at(map[string]any(d), strings.Split(strings.TrimPrefix(ref, "#/"),
			"/")...))
	}
	parts, ok := s["allOf"].([]any)
	if !ok {
		return s
	}
	properties := map[string]any{}
	for _, part := range parts {
		maps.Copy(properties, d.resolve(part)["properties"].(map[string]any))
	}
	return map[string]any{"type": "object", "properties": properties}
}
