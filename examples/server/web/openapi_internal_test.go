package web

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/examples/server/platform"
)

type document struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct{ Schemas map[string]schema }
}

type schema struct {
	Ref        string `json:"$ref"`
	AllOf      []schema
	Properties map[string]schema
	Items      *schema
}

func parseDocument(t *testing.T) document {
	t.Helper()
	var d document
	require.NoError(t, json.Unmarshal(openapi, &d))
	return d
}

func TestOpenAPIListsTheRoutesAndNoOthers(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, route := range (&web{}).routes() {
		want = append(want, route.method+" "+route.path)
	}
	for path, operations := range parseDocument(t).Paths {
		for method := range operations {
			got = append(got, strings.ToUpper(method)+" "+path)
		}
	}
	require.ElementsMatch(t, want, got)
}

func TestOpenAPISchemasHaveTheFieldsOfTheirTypes(t *testing.T) {
	t.Parallel()
	d := parseDocument(t)
	types := map[string]reflect.Type{
		"Problem": reflect.TypeFor[Problem](), "Health": reflect.TypeFor[Health](),
		"Template":         reflect.TypeFor[builder.Template](),
		"BuildRequest":     reflect.TypeFor[platform.BuildRequest](),
		"Build":            reflect.TypeFor[platform.Build](),
		"BuildSource":      reflect.TypeFor[source.Source](),
		"BuildIdentity":    reflect.TypeFor[source.Identity](),
		"BuildFailure":     reflect.TypeFor[builder.Failure](),
		"BuildLog":         reflect.TypeFor[builds.LogState](),
		"BuildEvent":       reflect.TypeFor[platform.BuildEvent](),
		"Version":          reflect.TypeFor[platform.Version](),
		"VersionRequest":   reflect.TypeFor[platform.VersionRequest](),
		"Deployment":       reflect.TypeFor[platform.Deployment](),
		"Overview":         reflect.TypeFor[platform.Overview](),
		"PromotionRequest": reflect.TypeFor[platform.PromotionRequest](),
		"RollbackRequest":  reflect.TypeFor[platform.RollbackRequest](),
		"AdoptionRequest":  reflect.TypeFor[platform.AdoptionRequest](),
		"Overridden":       reflect.TypeFor[platform.Overridden](),
		"Use":              reflect.TypeFor[platform.Use](),
		"Change":           reflect.TypeFor[platform.Change](),
		"DigestRequest":    reflect.TypeFor[platform.DigestRequest](),
		"ReviewRequest":    reflect.TypeFor[platform.ReviewRequest](),
		"FreezeRequest":    reflect.TypeFor[platform.FreezeRequest](),
		"Freeze":           reflect.TypeFor[platform.Freeze](),
		"Explanation":      reflect.TypeFor[platform.Explanation](),
		"Entry":            reflect.TypeFor[platform.Entry](),
		"TaskRequest":      reflect.TypeFor[platform.TaskRequest](),
		"Task":             reflect.TypeFor[platform.Task](),
		"Reach":            reflect.TypeFor[Reach](),
		"Pool":             reflect.TypeFor[platform.Pool](),
		"Instance":         reflect.TypeFor[Instance](),
		"Nginx":            reflect.TypeFor[platform.NginxStatus](),
	}
	for name, s := range d.Components.Schemas {
		require.Contains(t, types, name)
		compareFields(t, d, name, s, types[name])
	}
	require.Len(t, d.Components.Schemas, len(types))
}

// compareFields goes down into arrays of objects that the document writes out in place.
func compareFields(t *testing.T, d document, at string, s schema, typ reflect.Type) {
	t.Helper()
	properties := d.properties(s)
	fields := jsonFields(typ)
	var documented, real []string
	for name := range properties {
		documented = append(documented, name)
	}
	for name := range fields {
		real = append(real, name)
	}
	slices.Sort(documented)
	slices.Sort(real)
	require.Equal(t, real, documented, at)
	for name, p := range properties {
		if p.Items == nil || p.Items.Properties == nil {
			continue
		}
		compareFields(t, d, at+"."+name, *p.Items, fields[name].Elem())
	}
}

func (d document) properties(s schema) map[string]schema {
	if s.Ref != "" {
		return d.properties(d.Components.Schemas[strings.TrimPrefix(s.Ref,
			"#/components/schemas/")])
	}
	all := map[string]schema{}
	for _, part := range append(s.AllOf, schema{Properties: s.Properties}) {
		for name, p := range part.Properties {
			all[name] = p
		}
		if part.Ref != "" {
			for name, p := range d.properties(part) {
				all[name] = p
			}
		}
	}
	return all
}

// jsonFields are the names that encoding/json gives to the fields of a struct, and their types.
func jsonFields(typ reflect.Type) map[string]reflect.Type {
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(typ) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch name {
		case "-":
		case "":
			fields[f.Name] = f.Type
		default:
			fields[name] = f.Type
		}
	}
	return fields
}
