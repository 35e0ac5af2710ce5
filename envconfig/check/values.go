package check

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// unfilled are words that stand where nobody has filled in a value.
var unfilled = []string{"changeme", "change-me", "change_me", "todo", "fixme", "replaceme", "replace-me", "xxx", "dummy", "your-password", "<password>", "<secret>"}

// loopback are hosts that are the container itself.
var loopback = []string{"localhost", "127.0.0.1", "[::1]", "::1"}

// checkValues looks for values that nobody has filled in, in environments that users see, and for secrets in all.
func (s *Set) checkValues() []Finding {
	var out []Finding
	for _, name := range s.manifest.Names() {
		live := s.manifest.Spec.IsLive(name)
		for _, p := range slices.Sorted(maps.Keys(s.files[name])) {
			f := s.files[name][p]
			names := f.names()
			for i := range f.Settings {
				setting := &f.Settings[i]
				report := func(rule, message string) {
					out = append(out, Finding{Rule: rule, Environment: name, Path: p, Source: f.Source, Line: setting.Line, Key: setting.Key, Message: message})
				}
				switch {
				case live && isUnfilled(setting.value):
					report(RulePlaceholder, "the value is a placeholder that was never filled in")
				case live && slices.ContainsFunc(hosts(setting.value), func(h string) bool { return slices.Contains(loopback, h) }):
					report(RulePlaceholder, "the value names the container itself as the host")
				case isSecret(setting, f.format, names):
					report(RuleSecret, "a secret stands there in plain text: use ${file:/run/secrets/…} with the action render")
				}
			}
		}
	}
	return out
}

func isUnfilled(value string) bool {
	value = strings.ToLower(strings.TrimSpace(value))
	return slices.Contains(unfilled, value) || strings.Contains(value, "changeme")
}

// hosts are the words of a value that can be host names or addresses.
func hosts(value string) []string {
	return strings.FieldsFunc(strings.ToLower(value), func(r rune) bool { return strings.ContainsRune(" \t\n,;|/@?&='\"(){}", r) || r == ':' })
}

// checkLeaks looks for values of one environment in another: values declared to be owned, host names that carry the name
// of another environment, and hosts that an environment shares with production while others have their own.
func (s *Set) checkLeaks(owned map[string][]string) []Finding {
	var out []Finding
	names := s.manifest.Names()
	for _, p := range s.paths() {
		if len(names) > 1 && s.shared(p) {
			out = append(out, s.sharedLeaks(p, owned)...)
			continue
		}
		_, byKey := s.index(p)
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			at := byKey[key]
			for _, name := range names {
				setting := at[name]
				if setting == nil {
					continue
				}
				reason := s.leak(name, setting, owned)
				if reason == "" {
					reason = s.borrowed(name, at)
				}
				if reason != "" {
					out = append(out, Finding{Rule: RuleLeak, Environment: name, Path: p, Source: s.files[name][p].Source, Line: setting.Line, Key: key, Message: reason})
				}
			}
		}
	}
	return out
}

// sharedLeaks looks at a file of _base, which is right for all environments only if it names none of them.
func (s *Set) sharedLeaks(p string, owned map[string][]string) []Finding {
	var out []Finding
	for _, name := range s.manifest.Names() {
		f := s.files[name][p]
		for i := range f.Settings {
			if reason := s.leak(name, &f.Settings[i], owned); reason != "" {
				out = append(out, Finding{Rule: RuleLeak, Environment: name, Path: p, Source: f.Source, Line: f.Settings[i].Line, Key: f.Settings[i].Key, Message: reason})
			}
		}
	}
	return out
}

// leak says whose value a setting of the environment is, by declaration or by the host's name.
func (s *Set) leak(name string, setting *Setting, owned map[string][]string) string {
	if setting.Kind != String {
		return ""
	}
	words := hosts(setting.value)
	for _, owner := range slices.Sorted(maps.Keys(owned)) {
		if owner == name {
			continue
		}
		for _, pattern := range owned[owner] {
			if slices.ContainsFunc(words, func(w string) bool { ok, _ := path.Match(strings.ToLower(pattern), w); return ok }) &&
				!slices.ContainsFunc(owned[name], func(own string) bool { return own == pattern }) {
				return "the value belongs to " + owner
			}
		}
	}
	for _, w := range words {
		if other := s.namedIn(w); other != "" && other != name && s.manifest.Spec.IsLive(other) != s.manifest.Spec.IsLive(name) {
			return "a host's name says that it belongs to " + other
		}
	}
	return ""
}

// namedIn is the environment that a host's name carries as a part of its own, such as "db-prod.example.com".
func (s *Set) namedIn(host string) string {
	if !strings.ContainsAny(host, ".-") || strings.HasPrefix(host, ".") {
		return ""
	}
	for part := range strings.FieldsFuncSeq(host, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		switch part {
		case "prod", "prd", "live":
			part = "production"
		case "staging", "qa", "uat":
			part = "sandbox"
		}
		if s.files[part] != nil && strings.Contains(host, ".") {
			return part
		}
	}
	return ""
}

// borrowed reports an environment that users do not see and that has production's host for a key, while another one that
// they do not see either has its own.
func (s *Set) borrowed(name string, at map[string]*Setting) string {
	setting := at[name]
	if s.manifest.Spec.IsLive(name) || setting.Kind != String || !looksLikeHost(setting.value) {
		return ""
	}
	lender, own := "", false
	for _, other := range slices.Sorted(maps.Keys(at)) {
		switch same := at[other].value == setting.value; {
		case other == name:
		case s.manifest.Spec.IsLive(other) && same:
			lender = other
		case !s.manifest.Spec.IsLive(other) && !same:
			own = true
		}
	}
	if lender == "" || !own {
		return ""
	}
	return "the host is the same as in " + lender + ", while other environments have their own"
}

// looksLikeHost reports whether the value is a URL, or a name or an address with a dot in it and no blank.
func looksLikeHost(value string) bool {
	if strings.Contains(value, "://") {
		return true
	}
	host, _, _ := strings.Cut(value, ":")
	return strings.Count(host, ".") >= 2 && !strings.ContainsAny(host, " /\\,") && kindOf(value) == String
}
