package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// index finds the settings of one target in every environment that has it.
func (s *Set) index(path string) (environments []string, byKey map[string]map[string]*Setting) {
	byKey = map[string]map[string]*Setting{}
	for _, name := range s.manifest.Names() {
		f := s.files[name][path]
		if f == nil || f.format == "" || f.syntax != nil {
			continue
		}
		environments = append(environments, name)
		for i := range f.Settings {
			setting := &f.Settings[i]
			if byKey[setting.Key] == nil {
				byKey[setting.Key] = map[string]*Setting{}
			}
			byKey[setting.Key][name] = setting
		}
	}
	return environments, byKey
}

// checkKeys holds the environments' keys and types against each other. How long a list is may differ, so what stands in
// one is not compared.
func (s *Set) checkKeys() []Finding {
	var out []Finding
	for _, p := range s.paths() {
		environments, byKey := s.index(p)
		if s.shared(p) {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			at := byKey[key]
			if strings.Contains(key, "[") && Format(p) != "xml" {
				continue
			}
			kinds := map[Kind][]string{}
			for _, name := range environments {
				setting := at[name]
				if setting == nil {
					out = append(out, Finding{Rule: RuleKey, Environment: name, Path: p, Source: s.files[name][p].Source, Key: key,
						Message: "the key is missing; it is in " + strings.Join(slices.Sorted(maps.Keys(at)), ", ")})
					continue
				}
				if setting.Kind != Null && (setting.value != "" || setting.Kind != String) && !IsReference(setting.value) {
					kinds[setting.Kind] = append(kinds[setting.Kind], name)
				}
			}
			if len(kinds) > 1 {
				out = append(out, Finding{Rule: RuleType, Path: p, Key: key, Message: "types differ: " + describeKinds(kinds)})
			}
		}
	}
	return out
}

// shared reports whether all environments have the very same file, which then cannot differ.
func (s *Set) shared(path string) bool {
	var first *File
	for _, files := range s.files {
		f := files[path]
		if f == nil || first != nil && f != first {
			return false
		}
		first = f
	}
	return true
}

func describeKinds(kinds map[Kind][]string) string {
	var parts []string
	for kind, names := range kinds {
		parts = append(parts, fmt.Sprintf("%s in %s", kind, strings.Join(names, ", ")))
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// IsReference reports whether the value is a placeholder that is filled in at start.
func IsReference(value string) bool {
	return strings.HasPrefix(value, "${") && strings.HasSuffix(value, "}")
}

// checkSchema holds keys to what was declared.
func (s *Set) checkSchema(rules []KeyRule) []Finding {
	var out []Finding
	for i := range rules {
		rule := &rules[i]
		found := false
		for _, name := range s.manifest.Names() {
			if !about(rule.Environments, name) {
				continue
			}
			for _, p := range s.paths() {
				f := s.files[name][p]
				if f == nil || !matches(rule.Path, p) || f.syntax != nil {
					continue
				}
				found = true
				if problem, line := rule.judge(f); problem != "" {
					out = append(out, Finding{Rule: RuleSchema, Environment: name, Path: p, Source: f.Source, Line: line, Key: rule.Key, Message: problem})
				}
			}
		}
		if !found {
			out = append(out, Finding{Rule: RuleSchema, Source: ConfigName, Key: rule.Key, Message: fmt.Sprintf("keys[%d]: no file matches %q", i, rule.Path)})
		}
	}
	return out
}

func (k *KeyRule) judge(f *File) (problem string, line int) {
	i := slices.IndexFunc(f.Settings, func(s Setting) bool { return s.Key == k.Key })
	if i < 0 {
		if k.Required {
			return "the required key is missing", 0
		}
		return "", 0
	}
	s := &f.Settings[i]
	switch {
	case IsReference(s.value):
		return "", 0
	case k.Type != "" && s.Kind != k.Type && (k.Type != String || f.typed()):
		return fmt.Sprintf("is a %s and must be a %s", s.Kind, k.Type), s.Line
	case len(k.Enum) > 0 && !slices.Contains(k.Enum, s.value):
		return "is none of the allowed values", s.Line
	case !k.admits(s.value):
		return "does not match the declared pattern", s.Line
	}
	return "", 0
}

// typed reports whether the format tells strings from numbers.
func (f *File) typed() bool { return slices.Contains([]string{"yaml", "json", "toml"}, f.format) }
