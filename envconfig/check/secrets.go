package check

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// secretNames are what keys of secrets are called, written without separators.
var secretNames = []string{"password", "passwd", "secret", "pwd", "storepass", "keypass", "apikey", "privatekey", "accesskey", "secretkey", "token", "credential", "credentials", "passphrase"}

// separators are left out of a key's name before it is compared.
var separators = strings.NewReplacer("_", "", "-", "")

// otherNames end like those of secrets, and are of what is none: the name of a Secret of Kubernetes, which the value is in charts,
// or something that every client is told.
var otherNames = []string{"pullsecret", "fromsecret", "externalsecret", "publictoken", "csrftoken", "xsrftoken"}

// measures are words that make of a token something to be counted: max_token=4096.
var measures = []string{"max", "maximum", "min", "minimum", "num", "number", "per", "total", "count"}

// switches are what Bool is in formats that do not know it.
var switches = []string{"yes", "no", "on", "off", "none"}

// elsewhere is how values begin that say where the secret is, or that hold it encrypted.
var elsewhere = []string{"/", "arn:", "file:", "classpath:", "vault:", "ENC(", "ENC[", "{cipher}", "$ANSIBLE_VAULT"}

// template is a value that something else is put in the place of, or a mark such as </s> or [CLS].
var template = regexp.MustCompile(`^(?:<[^<>]+>|\[[^\[\]]+\]|\{\{.*\}\}|@[\w.-]+@|%[A-Z0-9_]+%|\$\(.*\)|\$[A-Z_][A-Z0-9_]*)$`)

// signatures begin secrets of well-known kinds.
var signatures = []struct{ begins, what string }{
	{"-----BEGIN RSA PRIVATE KEY", "a private key"}, {"-----BEGIN PRIVATE KEY", "a private key"}, {"-----BEGIN EC PRIVATE KEY", "a private key"},
	{"-----BEGIN OPENSSH PRIVATE KEY", "a private key"}, {"-----BEGIN DSA PRIVATE KEY", "a private key"}, {"-----BEGIN ENCRYPTED PRIVATE KEY", "a private key"},
	{"-----BEGIN PGP PRIVATE KEY", "a private key"}, {"ghp_", "a GitHub token"}, {"github_pat_", "a GitHub token"}, {"glpat-", "a GitLab token"},
	{"xoxb-", "a Slack token"}, {"xoxp-", "a Slack token"}, {"AKIA", "an AWS access key"}, {"ASIA", "an AWS access key"}, {"AIza", "a Google API key"},
}

// secretIn says what kind of secret the bytes show, or is empty.
func secretIn(data []byte) string {
	for _, s := range signatures {
		for rest := data; ; {
			i := bytes.Index(rest, []byte(s.begins))
			if i < 0 {
				break
			}
			start := i == 0 || !isWord(rest[i-1])
			rest = rest[i+len(s.begins):]
			n := run(rest)
			if strings.HasPrefix(s.begins, "---") || start && n >= 16 && !bytes.HasSuffix(rest[:n], []byte("EXAMPLE")) {
				return s.what
			}
		}
	}
	return ""
}

// run is how many letters and digits data begins with.
func run(data []byte) int {
	n := 0
	for n < len(data) && isWord(data[n]) {
		n++
	}
	return n
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// element is what a key's last part is called, and what stands before it. The text of an XML element that has a name has none.
func element(key, format string) (before, last string) {
	i := strings.LastIndexAny(key, ".@]")
	if format == "xml" {
		i = max(strings.LastIndexByte(key, '@'), strings.LastIndexByte(key, '.'))
	}
	if i < 0 || i < strings.LastIndexByte(key, ']') {
		return key, ""
	}
	before, last = key[:i], key[i+1:]
	if format == "xml" {
		last, _, _ = strings.Cut(last, "#") // the second of that name
	}
	return before, last
}

// names are what settings are called by another one beside them: <Parameter name="db.password" value="…"/>, name and value in a
// list, param-name and param-value in a web.xml.
func (f *File) names() map[[2]string]string {
	names := map[[2]string]string{}
	for i := range f.Settings {
		s := &f.Settings[i]
		before, last := element(s.Key, f.format)
		for _, ending := range []string{"name", "key"} {
			if of, ok := strings.CutSuffix(strings.ToLower(last), ending); ok && before != "" {
				names[[2]string{before, of}] = s.value
			}
		}
	}
	return names
}

// isSecret tells by the key's name, or by a password in a URL. A switch or a limit is none, nor is what says where the secret is.
func isSecret(s *Setting, format string, names map[[2]string]string) bool {
	value := s.value
	if s.Kind == Bool || s.Kind == Null || s.Kind == List || strings.Contains(value, "${") || isUnfilled(value) {
		return false
	}
	if _, rest, ok := strings.Cut(value, "://"); ok {
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			rest = rest[:i]
		}
		user, _, ok := strings.Cut(rest, "@")
		_, password, _ := strings.Cut(user, ":")
		return ok && password != ""
	}
	if value == "" || slices.Contains(switches, strings.ToLower(value)) || template.MatchString(value) ||
		slices.ContainsFunc(elsewhere, func(begins string) bool { return strings.HasPrefix(value, begins) }) {
		return false
	}
	before, last := element(s.Key, format)
	name := cmp.Or(last, before[strings.LastIndexAny(before, ".]")+1:])
	if of, ok := strings.CutSuffix(strings.ToLower(last), "value"); ok || last == "" {
		name = cmp.Or(names[[2]string{before, of}], name)
	}
	return isSecretName(name, s.Kind)
}

func isSecretName(name string, kind Kind) bool {
	plain := separators.Replace(strings.ToLower(name))
	ends := func(with string) bool { return strings.HasSuffix(plain, with) }
	if !slices.ContainsFunc(secretNames, ends) || slices.ContainsFunc(otherNames, ends) {
		return false
	}
	parts := nameParts(name)
	measure := slices.ContainsFunc(parts, func(p string) bool { return slices.Contains(measures, p) })
	return !slices.Contains(parts, "existing") && !(kind == Number && measure)
}

// nameParts are the words of a name, the same for accessToken, ACCESS_TOKEN and access-token.
func nameParts(name string) (parts []string) {
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		start, letters := 0, []rune(word)
		for i := 1; i < len(letters); i++ {
			next := i+1 < len(letters) && unicode.IsLower(letters[i+1])
			if unicode.IsUpper(letters[i]) && (next || !unicode.IsUpper(letters[i-1])) {
				parts = append(parts, strings.ToLower(string(letters[start:i])))
				start = i
			}
		}
		parts = append(parts, strings.ToLower(string(letters[start:])))
	}
	return parts
}
