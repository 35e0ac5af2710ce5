// Package schema holds the configuration files of an image to JSON Schemas (draft 2020-12, and the
// older ones that a schema names itself). It is apart from package check so that an embedder
// without JSON Schemas does not link the validator.
//
// The embedder's work: name the schemas in [check.Config], call [Check], and hand the findings to
// [check.Set.Check], which applies the allow-list to them.
//
//	more, err := schema.Check(root.FS(), set, config.Schemas)
//	…
//	report := set.Check(config, time.Now(), more)
//
// The limits: it fetches nothing, so that a schema may refer to files of the source directory only;
// it does not assert "format", which the draft leaves to the application; and it shows no value of
// a file, only the requirements of the schema.
package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluice-deploy/sluice/envconfig/check"
)

// Check holds the files that each rule is about to its schema, which is read from fsys, the source
// directory. Files that are not well-formed are passed over: that is a finding of its own. The
// error names the schema that cannot be used.
func Check(fsys fs.FS, set *check.Set, rules []check.SchemaRule) ([]check.Finding, error) {
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(directory{fsys})
	var out []check.Finding
	var problems []error
	for i := range rules {
		compiled, err := compiler.Compile((&url.URL{Scheme: "file", Path: "/" +
			rules[i].Schema}).String())
		if err != nil {
			problems = append(problems, fmt.Errorf("schemas[%d]: %s: %w", i, rules[i].Schema, err))
			continue
		}
		r := rule{&rules[i], compiled}
		found, err := r.judge(fsys, set)
		if err != nil {
			problems = append(problems, err)
		}
		if found == nil {
			found = []check.Finding{{Rule: check.RuleSchema, Source: check.ConfigName,
				Message: fmt.Sprintf("schemas[%d]: no file matches %q", i, rules[i].Path)}}
		}
		out = append(out, found...)
	}
	return out, errors.Join(problems...)
}

// directory loads schemas from the source directory.
type directory struct{ fs.FS }

// Load takes the URLs that [Check] makes, and URLs relative to them.
func (f directory) Load(location string) (any, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "file" || u.Host != "" {
		return nil, errors.New("only schemas of the source directory are read: put it there and " +
			"refer to it by a relative path")
	}
	data, err := fs.ReadFile(f, strings.TrimPrefix(path.Clean(u.Path), "/"))
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(data))
}

type rule struct {
	*check.SchemaRule
	schema *jsonschema.Schema
}

// judge returns nil when there is no file that the rule is about.
func (r *rule) judge(fsys fs.FS, set *check.Set) ([]check.Finding, error) {
	var out []check.Finding
	for environment, f := range set.All() {
		if !r.About(environment, f.Path) {
			continue
		}
		if out == nil {
			out = []check.Finding{}
		}
		if !f.WellFormed() {
			continue
		}
		data, err := fs.ReadFile(fsys, f.Source)
		if err != nil {
			return out, err
		}
		documents, err := read(check.Format(f.Path), data)
		if errors.Is(err, errNoTree) {
			out = append(out, check.Finding{Rule: check.RuleSchema, Environment: environment,
				Path: f.Path, Source: f.Source, Message: err.Error()})
		}
		for i, document := range documents {
			v := verdict{document: document, prefix: prefix(i)}
			v.take(r.schema.Validate(document))
			for _, problem := range v.problems {
				out = append(out, check.Finding{Rule: check.RuleSchema, Environment: environment,
					Path: f.Path, Source: f.Source,
					Line: lineOf(f, problem.key), Key: problem.key, Message: problem.message})
			}
		}
	}
	return out, nil
}

func lineOf(f *check.File, key string) int {
	i := slices.IndexFunc(f.Settings, func(s check.Setting) bool { return s.Key == key })
	if i < 0 {
		return 0
	}
	return f.Settings[i].Line
}
