package check

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// index finds the settings of one target in every environment that has it.
func (s *Set) index(path string) (environments []string, byKey map[string]map[string]*Setting) {
	byKey = map[string]map[string]*Setting{}
	for _, name := range s.manifest.Names() {
		f := s.files[name][path]
		if f == nil || !tree(f.format) || f.partial {
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

// checkKeys compares the environments' keys and types. The length of a list may differ, so its
// elements are not compared.
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
			var present []string
			for _, name := range environments {
				if at[name] == nil {
					out = append(out, Finding{Rule: RuleKey, Environment: name, Path: p,
						Source: s.files[name][p].Source, Key: key,
						Message: "the key is missing; it is in " +
							strings.Join(slices.Sorted(maps.Keys(at)), ", ")})
				} else {
					present = append(present, name)
				}
			}
			if message := drift(key, present, at, typed(Format(p))); message != "" {
				out = append(out, Finding{Rule: RuleType, Path: p, Key: key, Message: message})
			}
		}
	}
	return out
}

// drift describes the types of a key's values if the difference between them is a mistake.
func drift(key string, environments []string, at map[string]*Setting, typed bool) string {
	if len(environments) < 2 || sameKind(environments, at) {
		return ""
	}
	kinds := map[Kind][]string{}
	for _, name := range environments {
		setting := at[name]
		if setting.Kind == Null || setting.value == "" && setting.Kind == String || setting.secret {
			continue
		}
		if setting.Kind == String && isOpen(setting.value) {
			continue
		}
		kinds[setting.Kind] = append(kinds[setting.Kind], name)
	}
	if len(kinds) < 2 {
		return ""
	}
	parts := nameParts(key[strings.LastIndexByte(key, '.')+1:])
	if isSecretName(key[strings.LastIndexAny(key, ".@]")+1:], String) || isFree(parts) {
		return ""
	}
	for _, name := range kinds[String] {
		if value := at[name].value; isQuantity(value) ||
			slices.Contains(switches, strings.ToLower(value)) || strings.EqualFold(value, "auto") {
			return ""
		}
	}
	if !typed && !isMistyped(parts, kinds, at) {
		return ""
	}
	return "types differ: " + describeKinds(kinds)
}

func sameKind(environments []string, at map[string]*Setting) bool {
	for _, name := range environments[1:] {
		if at[name].Kind != at[environments[0]].Kind {
			return false
		}
	}
	return true
}

// isOpen reports whether the final value is not known here: it holds a reference, a template or a
// placeholder.
func isOpen(value string) bool {
	return strings.Contains(value, "${") || strings.Contains(value, "{{") ||
		template.MatchString(value) || isUnfilled(value)
}

// freeWords are of keys whose values may look like a number in one environment and not in another.
var freeWords = []string{"version", "tag", "id", "ids", "name", "user", "username", "login",
	"account", "sha", "revision", "commit", "build", "release", "code", "phone", "zip",
	"label", "title", "value", "default", "example", "text", "password", "key", "token", "secret",
	"hash", "uid", "gid", "owner", "group", "profile", "args", "command", "date", "cpu", "memory"}

func isFree(parts []string) bool {
	return len(parts) > 0 && slices.Contains(freeWords, parts[len(parts)-1])
}

var quantity = regexp.MustCompile(
	`^[-+]?\d[\d._]*(?:\s?[A-Za-zµ%]{1,12}\d*)+$|^\d+(?:[-:/,x]\s?\d+)+$|^\d+(?:\.\d+){2,}$|^0x[0-9a-fA-F]+$`)

// isQuantity reports whether a text is a number with a unit, or several numbers: 30s, 512Mi, 1h30m,
// 8080-8090.
func isQuantity(value string) bool { return quantity.MatchString(value) }

var (
	numberWords = []string{"port", "ports", "timeout", "size", "count", "max", "min", "limit",
		"pool", "threads", "interval", "ttl", "retries", "attempts",
		"capacity", "connections", "workers", "replicas", "backlog", "length", "width", "height",
		"seconds", "millis", "ms", "minutes", "hours", "days", "bytes", "depth", "rate", "weight",
		"priority", "age"}
	boolWords = []string{"enabled", "enable", "disabled", "disable", "debug", "active", "flag",
		"use", "allow", "verbose", "required"}
)

// isMistyped reports whether a key implies the kind of its value, or a value is nearly "true" or
// "false". It is for formats without types, in which the text of a value determines its kind.
func isMistyped(parts []string, kinds map[Kind][]string, at map[string]*Setting) bool {
	has := func(words []string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return slices.Contains(words, p) })
	}
	if len(kinds[Number]) > 0 && len(kinds[String]) > 0 {
		return has(numberWords)
	}
	if len(kinds[Bool]) > 0 && len(kinds[String]) > 0 {
		return has(boolWords) || slices.ContainsFunc(kinds[String], func(name string) bool {
			value := strings.ToLower(at[name].value)
			return len(value) < 7 && (strings.HasPrefix(value, "tru") ||
				strings.HasPrefix(value, "fal") || strings.HasSuffix(value, "alse") ||
				strings.HasSuffix(value, "rue"))
		})
	}
	return false
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

// checkSchema checks keys against the declared rules.
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
				if f == nil || !matches(rule.Path, p) || f.partial {
					continue
				}
				found = true
				if problem, line := rule.judge(f); problem != "" {
					out = append(out, Finding{Rule: RuleSchema, Environment: name, Path: p,
						Source: f.Source, Line: line, Key: rule.Key, Message: problem})
				}
			}
		}
		if !found {
			out = append(out, Finding{Rule: RuleSchema, Source: ConfigName, Key: rule.Key,
				Message: fmt.Sprintf("keys[%d]: no file matches %q", i, rule.Path)})
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
	case k.Type != "" && s.Kind != k.Type && (k.Type != String || typed(f.format)):
		return fmt.Sprintf("is a %s and must be a %s", s.Kind, k.Type), s.Line
	case len(k.Enum) > 0 && !slices.Contains(k.Enum, s.value):
		return "is none of the allowed values", s.Line
	case !k.admits(s.value):
		return "does not match the declared pattern", s.Line
	}
	return "", 0
}

// typed reports whether the format distinguishes strings from numbers.
func typed(format string) bool { return slices.Contains([]string{"yaml", "json", "toml"}, format) }
