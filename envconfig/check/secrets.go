package check

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// secretNames are common names of keys of secrets, written without separators.
var secretNames = []string{"password", "passwd", "secret", "pwd", "storepass",
	"keypass", "apikey", "privatekey", "accesskey", "secretkey", "token", "credential",
	"credentials", "passphrase",
	"accountkey", "signingkey", "encryptionkey", "masterkey", "authkey", "sharedkey",
	"secretkeybase", "requirepass",
	"masterauth", "erlangcookie", "connectionpass", "bindpw", "rootpw", "psk", "presharedkey"}

// separators are left out of a key's name before it is compared.
var separators = strings.NewReplacer("_", "", "-", "")

// otherNames end like names of secrets and belong to values that are not secret: the name of a
// Secret of Kubernetes, which the value is in charts, or a value that every client receives.
var otherNames = []string{"pullsecret", "fromsecret", "externalsecret", "publictoken", "csrftoken",
	"xsrftoken",
	"sitekey", "loadcredential", "conditioncredential", "importcredential"}

// measures are words that make of a token something to be counted: max_token=4096.
var measures = []string{"max", "maximum", "min", "minimum", "num", "number", "per", "total",
	"count"}

// switches are the words for Bool in formats without that kind.
var switches = []string{"yes", "no", "on", "off", "none"}

// elsewhere holds the prefixes of values that are the location of a secret, or hold it encrypted.
var elsewhere = []string{"/", "~/", "./", "../", "arn:", "file:", "classpath:", "vault:", "ENC(",
	"ENC[", "$__", "{cipher}", "$ANSIBLE_VAULT"}

// template is a value that something else is put in the place of, or a mark such as </s> or [CLS].
var template = regexp.MustCompile(
	`^(?:<[^<>]+>|\[[^\[\]]+\]|\{\{.*\}\}|@[\w.-]+@|%[A-Z0-9_]+%|\$\(.*\)|\(\)|\$(?:[A-Z_][A-Z0-9_]*|[0-9@*]))$`)

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' ||
		c == '-'
}

// element splits a key into the name of its last part and the text before it. The text of an XML
// element that has a name has none.
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

// names returns the names that settings get from a neighbouring setting: <Parameter
// name="db.password" value="…"/>, name and value in a list, param-name and param-value in a
// web.xml.
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

// secretObjects returns the prefixes of the keys in Secrets of Kubernetes
// (https://kubernetes.io/docs/concepts/configuration/secret/).
func (f *File) secretObjects() (begins []string) {
	if f.format != "yaml" && f.format != "json" {
		return nil
	}
	for i := range f.Settings {
		if s := &f.Settings[i]; s.value == "Secret" &&
			(s.Key == "kind" || strings.HasSuffix(s.Key, ".kind")) && len(begins) < maxProblems {
			object := strings.TrimSuffix(s.Key, "kind")
			begins = append(begins, object+"data.", object+"stringData.")
		}
	}
	return begins
}

// isHeld reports whether a setting is one of a Secret of Kubernetes, or of the credentials that
// docker login writes.
func isHeld(s *Setting, objects []string) bool {
	in := strings.HasPrefix(s.Key, "auths.") && strings.HasSuffix(s.Key, ".auth") ||
		slices.ContainsFunc(objects, func(begins string) bool {
			return strings.HasPrefix(s.Key, begins)
		})
	return in && (s.Kind == String || s.Kind == Number) && isPlain(s.value) &&
		!isUnfilled(s.value) && !isPublicEntry(s)
}

// judge marks the settings that are secrets.
func (f *File) judge() {
	names := f.names()
	words := isTranslation(f.Path)
	objects := f.secretObjects()
	var list argumentList
	for i := range f.Settings {
		s := &f.Settings[i]
		s.secret = isSecret(s, f.format, names, words) || isHeld(s, objects) ||
			f.format == "conf" && tellsByDirective(s)
		if !s.secret && i > 0 && inList(s.Key) {
			s.secret = isArgument(f.Settings[i-1].value, s)
		}
		if list.tells(s) {
			s.secret = true
		}
		if s.secret {
			if f.lines == nil {
				f.lines = map[int]bool{}
			}
			f.lines[s.Line] = true
		}
	}
}

// secretAt reports whether that line holds a secret setting.
func (f *File) secretAt(line int) bool { return f.lines[line] }

func inList(key string) bool { return strings.HasSuffix(key, "]") }

// isArgument reports whether the setting follows --password or the like in a list of arguments.
func isArgument(flag string, s *Setting) bool {
	name := strings.TrimLeft(flag, "-")
	return name != flag && !strings.ContainsAny(name, " =$") && isSecretName(name, s.Kind) &&
		isPlain(s.value)
}

// argumentList is the command that a list has so far, one argument in each setting.
type argumentList struct{ key, command string }

// tells adds a setting of a list and reports whether it makes a command out of the list that has a
// secret in it, as ["mysqladmin", "-u", "root", "-pFoo9bar"] does.
func (l *argumentList) tells(s *Setting) bool {
	i := strings.LastIndexByte(s.Key, '[')
	if !inList(s.Key) || i < 0 || len(s.value) > maxArgument {
		*l = argumentList{}
		return false
	}
	if key := s.Key[:i]; key != l.key || len(l.command) > maxLine {
		*l = argumentList{key: key}
	}
	before := l.command
	l.command = strings.TrimSpace(before + " " + s.value)
	option := strings.HasPrefix(s.value, "-") || strings.HasPrefix(
		before[strings.LastIndexByte(before, ' ')+1:], "-")
	return before != "" && option && !strings.Contains(s.value, " ") && tellsSecret(l.command) &&
		!tellsSecret(before)
}

// maxArgument is far longer in bytes than the arguments of the commands that have secrets.
const maxArgument = 512

// isSecret reports whether a setting is a secret, by the key's name or by the value itself, such as
// a password in a URL. A switch, a limit and the location of a secret are none. words marks a
// translation, in which names of keys prove nothing.
func isSecret(s *Setting, format string, names map[[2]string]string, words bool) bool {
	return mayBeSecret(s, format, names, words) && !isUnfilled(s.value)
}

// mayBeSecret is isSecret without a look at placeholders, which takes the longest and is needed for
// few settings.
func mayBeSecret(s *Setting, format string, names map[[2]string]string, words bool) bool {
	value := s.value
	if s.Kind == Bool || s.Kind == Null || s.Kind == List {
		return false
	}
	if tellsSecret(value) {
		return !isPlaces(nameOf(s, format, names), value)
	}
	if format == "conf" && expression.MatchString(value) ||
		strings.Contains(s.Key, "encryptedData.") {
		return false
	}
	if words || s.Key == "" || strings.Contains(value, "://") {
		return false
	}
	name := nameOf(s, format, names)
	byName := isSecretName(name, s.Kind) || isSecretPair(s, name)
	// a key in a Secret, as External Secrets names it
	if name == "secretKey" && isSecretName(value, String) {
		return false
	}
	if endpoint.MatchString(value) { // fastcgi_pass 127.0.0.1:9000
		return false
	}
	if !byName && (len(value) < 16 || strings.IndexByte(value, ' ') >= 0 || !isKeyName(name) ||
		!isRandom(value)) {
		return false
	}
	return isPlain(value) && !isProse(value) && !isVersion(value) && !isOther(name, value, format) &&
		!strings.Contains(s.Key, "ependencies.") &&
		!slices.Contains(types, strings.ToLower(value)) &&
		(format != "code" || isLiteral(name, value))
}

// endpoint is a host and a port, or a path of a socket.
var endpoint = regexp.MustCompile(
	`^(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\]|[a-z][a-z-]*):\d{2,5}$|^unix:/`)

// isSecretPair reports whether the last two parts of a key name a secret together, as in
// play.http.secret.key or jwt.signing.key. Where the last one names the entry of a Secret, the
// value is a word.
func isSecretPair(s *Setting, name string) bool {
	before, ok := strings.CutSuffix(s.Key, "."+name)
	if !ok || !strings.EqualFold(name, "key") || len(s.value) < 8 ||
		wordsOnly.MatchString(s.value) {
		return false
	}
	return isSecretName(before[strings.LastIndexAny(before, ".]")+1:]+"Key", s.Kind)
}

// expression is an expression that Terraform evaluates: a variable, or an attribute of another
// resource.
var expression = regexp.MustCompile(
	`^(?:(?:var|local|data|module|each|self|path)\.[a-z_]|[a-z][a-z0-9]*(?:_[a-z0-9]+)+\.[\w-]+[.\[])`)

// nameOf returns the name of a setting, from its own key or from a neighbouring setting.
func nameOf(s *Setting, format string, names map[[2]string]string) string {
	before, last := element(s.Key, format)
	name := cmp.Or(last, before[strings.LastIndexAny(before, ".]")+1:])
	if of, ok := strings.CutSuffix(strings.ToLower(last), "value"); ok || last == "" {
		name = cmp.Or(names[[2]string{before, of}], name)
	}
	// of Terraform's variable
	if i := strings.LastIndexByte(before, '.'); format == "conf" && last == "default" {
		name = before[i+1:]
	}
	if i := strings.LastIndexByte(name, '#'); i > 0 && (format == "ini" || !tree(format)) {
		name = name[:i]
	}
	return name
}

// types are words of a schema in the place of a secret.
var types = []string{"string", "str", "object", "integer", "number", "boolean", "required",
	"optional", "bearer", "null", "undefined",
	"write", "read"}

// isPlain reports whether a value stands for itself: it is no reference, no template and no place
// where the secret is.
func isPlain(value string) bool {
	return value != "" && !(strings.ContainsAny(value, "${<(/") && filled.MatchString(value)) &&
		!slices.Contains(switches, strings.ToLower(value)) &&
		!template.MatchString(value) &&
		!slices.ContainsFunc(elsewhere, func(begins string) bool {
			return strings.HasPrefix(value, begins)
		})
}

// filled matches values that another program fills in or computes, and paths.
var filled = regexp.MustCompile(
	`\$\{|\$\(|\{\{|\{%|<%|%\([\w.]+\)s|^[A-Za-z_][\w.]*\(.*\)$|^[a-z_.-]+(?:/[a-z_.-]+)+$`)

// isProse reports whether a value is a sentence.
func isProse(value string) bool {
	return strings.Count(value, " ") >= 2 && strings.IndexFunc(value, unicode.IsDigit) < 0
}

var version = regexp.MustCompile(`^(?:[\^~]|[<>=]{1,2} ?)v?\d+(?:\.[\dx*]+)*`)

// isVersion reports whether a value is a range of versions, as those of packages whose name ends in
// "token" are.
func isVersion(value string) bool { return version.MatchString(value) }

var constant = regexp.MustCompile(
	`^(?:[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|[a-z]+(?:[._:-][a-z]+)+|[.#/%&?*\[{(-].*|.*[\[(<{].*|.*[:.])$`)

// isLiteral reports whether a program's string can be a secret, and is not the name of a field, of
// a variable or a message.
func isLiteral(name, value string) bool {
	plain := separators.Replace(strings.ToLower(value))
	return len(value) >= 4 && !strings.ContainsAny(value, " \t$\\<>") &&
		!constant.MatchString(value) &&
		plain != separators.Replace(strings.ToLower(name)) && !isSecretName(value, String)
}

// keyWords make a key the name of something that is random and secret, notKeyWords of something
// that is only random.
var (
	keyWords = []string{"key", "api", "token", "secret", "auth", "credential", "credentials",
		"jwt", "bearer", "password", "pass", "pat", "access"}
	notKeyWords = []string{"public", "site", "pub", "fingerprint", "thumbprint", "checksum",
		"digest", "hash", "sha", "sha1", "sha256", "md5", "etag", "revision",
		"commit", "version", "integrity", "cache", "sort", "primary", "foreign", "partition", "url",
		"uri", "path", "file", "alias", "issuer", "id", "name",
		"endpoint", "host", "keyid", "class", "algorithm", "type", "keyword", "keyboard", "kid"}
)

// issuers are services whose keys have no form of their own.
var issuers = map[string]bool{}

func init() {
	for issuer := range strings.FieldsSeq("adafruit adobe airtable algolia alibaba amplitude " +
		"asana beamer bitbucket bittrex meraki cloudflare codecov coinbase " +
		"confluent contentful datadog discord droneci dropbox etsy facebook fastly finicity " +
		"finnhub flickr freshbooks gitter gocardless heroku hubspot " +
		"intercom jfrog artifactory bintray xray kraken kucoin launchdarkly linear linkedin lob " +
		"looker mailchimp mailgun mapbox mattermost messagebird " +
		"netlify newrelic nytimes okta pagerduty pingdom plaid planetscale privateai rapidapi " +
		"rollbar sendbird sendgrid sentry shodan snyk sonar " +
		"sourcegraph splunk squarespace sumo sumologic travis trello twilio twitch twitter " +
		"typeform yandex zendesk zoho duffel dynatrace") {
		issuers[issuer] = true
	}
}

func isKeyName(name string) bool {
	parts := nameParts(name)
	has := func(words []string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return slices.Contains(words, p) })
	}
	return (has(keyWords) || slices.ContainsFunc(parts, func(p string) bool {
		return issuers[p]
	})) && !has(notKeyWords)
}

var (
	randomText = regexp.MustCompile(`^[A-Za-z0-9+/=_.~-]{16,256}$`)
	uuid       = regexp.MustCompile(`^(?i:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	wordsOnly  = regexp.MustCompile(`^(?:[A-Za-z]+|\d+)(?:[-_./~]+(?:[A-Za-z]+|\d+))*$`)
)

// isRandom reports whether a value looks as if it had been drawn.
func isRandom(value string) bool {
	if !randomText.MatchString(value) || wordsOnly.MatchString(value) {
		return uuid.MatchString(value)
	}
	digits := 0
	for _, c := range []byte(value) {
		if c >= '0' && c <= '9' {
			digits++
		}
	}
	return digits >= 3 && digits < len(value)-2 && entropy(value) >= 3.2
}

// entropy of the bytes of a value in bits (Shannon).
func entropy(value string) float64 {
	var count [256]int
	for _, c := range []byte(value) {
		count[c]++
	}
	sum := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(value))
			sum -= p * math.Log2(p)
		}
	}
	return sum
}

func isSecretName(name string, kind Kind) bool {
	plain := separators.Replace(strings.ToLower(name))
	ends := func(with string) bool { return strings.HasSuffix(plain, with) }
	if plain != "auth" && !strings.Contains(plain, "pass") && !slices.ContainsFunc(secretNames,
		ends) {
		return false // as most names, of which the words need not be known
	}
	parts := nameParts(name)
	short := len(parts) > 0 && (parts[len(parts)-1] == "pass" || plain == "auth" && name[0] == '_')
	if !short && !slices.ContainsFunc(secretNames, ends) || slices.ContainsFunc(otherNames, ends) {
		return false
	}
	measure := slices.ContainsFunc(parts, func(p string) bool {
		return slices.Contains(measures, p)
	})
	return !slices.Contains(parts, "existing") && !(kind == Number && measure)
}

// nameParts are the words of a name, the same for accessToken, ACCESS_TOKEN and access-token.
func nameParts(name string) (parts []string) {
	for _, word := range strings.FieldsFunc(name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
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
