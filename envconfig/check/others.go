package check

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
)

// questions are first words of names that a yes or no answers: canUseCredentials=0.
var questions = []string{"can", "use", "uses", "is", "has", "have", "should", "allow", "enable",
	"enabled", "disable", "need", "needs", "require", "requires", "skip", "show", "with", "without"}

// answers are yes and no in formats without that kind.
var answers = []string{"0", "1", "true", "false", "yes", "no"}

// keystores names Confluent's settings whose value is the name of a file that holds the password
// (https://docs.confluent.io/platform/current/installation/docker/config-reference.html).
var keystores = regexp.MustCompile(`(?i)ssl[_.](?:keystore|truststore|key)[_.]credentials$`)

// objectName is the name of a Secret of Kubernetes, which charts have under a key that ends in
// "secret".
var objectName = regexp.MustCompile(
	`^[a-z][a-z0-9]*(?:-[a-z0-9]+)*-(?:tls|secrets?|creds|credentials|certs?|token)$`)

// queryName is the name that Grafana gives a query of a panel.
var queryName = regexp.MustCompile(`^Q-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-\d+$`)

// isOther reports whether a value under the name of a secret is something else: an answer, a key
// that every client receives, or the name of an object, a file or an entry that holds the secret.
func isOther(name, value, format string) bool {
	words := nameParts(name)
	if len(words) == 0 {
		return false
	}
	last := words[len(words)-1]
	switch {
	case slices.Contains(questions, words[0]) && slices.Contains(answers, strings.ToLower(value)):
		return true
	case (last == "key" || last == "token") && (slices.Contains(words, "public") ||
		slices.Contains(words, "publishable")):
		return true
	case strings.EqualFold(name, value+"key") || strings.EqualFold(name, value+"_key"):
		return true // authKey: auth, of an existing Secret
	case format == "yaml" && last == "secret" && objectName.MatchString(value):
		return true
	}
	return keystores.MatchString(name) || queryName.MatchString(value) || isOneDigit(value)
}

// isOneDigit reports whether a value is a UUID of one digit, as in 11111111-1111-1111-….
func isOneDigit(value string) bool {
	return uuid.MatchString(value) && strings.Trim(value, value[:1]+"-") == ""
}

// place is a line of a list of places that hold secrets: the variable for it, the place and the
// entry, or the version, there.
var place = regexp.MustCompile(`^\w+=([A-Za-z][\w./-]*):([\w-]+)$`)

// fromVariable is a line of docker/build-push-action's secret-envs: the name of the secret and of
// the variable that holds it.
var fromVariable = regexp.MustCompile(`^\w+=[A-Z_][A-Z0-9_]*$`)

var versionInPlace = regexp.MustCompile(`^(?:latest|\d{1,3})$`)

// isPlaces reports whether the lines of a value say where secrets are, as actions of continuous
// integration take it: common_secrets with DB_PASSWORD=shop/db:password for Vault, secrets with
// DB_PASSWORD=db-password:latest for Google's Secret Manager.
func isPlaces(name, value string) bool {
	plain := separators.Replace(strings.ToLower(name))
	variables := strings.HasSuffix(plain, "secretenvs")
	if !variables && !strings.HasSuffix(plain, "secrets") {
		return false
	}
	for line := range strings.Lines(value) {
		line = strings.TrimSpace(line)
		if line == "" || variables && fromVariable.MatchString(line) {
			continue
		}
		m := place.FindStringSubmatch(line)
		if variables || m == nil || !isSecretName(m[2], String) &&
			!(versionInPlace.MatchString(m[2]) && isSecretName(m[1], String)) {
			return false
		}
	}
	return true
}

// openWords end names of entries of a Secret that say where and as whom a program connects.
var openWords = []string{"type", "url", "uri", "user", "username", "host", "hostname", "port", "id",
	"email", "region", "endpoint", "server", "domain", "insecure"}

// sampleKey is a private key whose text is left out.
var sampleKey = regexp.MustCompile(
	`^-----BEGIN [A-Z ]+-----\s*(?:\.{3}|…|<[^<>]*>)\s*-----END [A-Z ]+-----\s*$`)

// isPublicEntry reports whether an entry of a Secret is no secret. Entries in data are in base64
// and are judged by what they say.
func isPublicEntry(s *Setting) bool {
	value := s.value
	if !strings.Contains(s.Key, "stringData.") {
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value)); err == nil {
			value = string(raw)
		}
	}
	if tellsSecret(value) {
		return false
	}
	words := nameParts(s.Key[strings.LastIndexAny(s.Key, ".]")+1:])
	named := len(words) > 0 && slices.Contains(openWords, words[len(words)-1])
	return named || slices.Contains(answers[2:], strings.ToLower(value)) ||
		sampleKey.MatchString(value)
}
