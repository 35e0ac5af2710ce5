package check

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// tellsSecret reports whether a value contains a recognizable secret: a password in a URL, a
// parameter of a connection string (password=…;), an argument of a command (--password …, curl -u
// user:…), a header with credentials.
func tellsSecret(value string) bool {
	if len(value) > maxLine*4 {
		return false
	}
	for rest := value; ; {
		_, after, ok := strings.Cut(rest, "://")
		if !ok {
			break
		}
		if hasPassword(after) {
			return true
		}
		rest = after
	}
	equals, blank := strings.IndexByte(value, '=') >= 0, strings.IndexByte(value, ' ') >= 0
	connects := strings.HasPrefix(value, "jdbc:")
	if !equals && !blank && !connects {
		return false
	}
	lower := strings.ToLower(value)
	if slices.ContainsFunc(stems, func(stem string) bool { return strings.Contains(lower, stem) }) {
		if equals && tellsByName(parameter.FindAllStringSubmatch(value, -1)) {
			return true
		}
		if blank && strings.IndexByte(value, '-') >= 0 &&
			tellsByName(option.FindAllStringSubmatch(value, -1)) {
			return true
		}
	}
	for _, command := range commands {
		if !blank && !connects || !strings.Contains(lower, command.needle) {
			continue
		}
		if m := command.form.FindStringSubmatch(value); m != nil && isArgumentValue(m[1]) &&
			!slices.Contains(knownToAll, m[1]) {
			return true
		}
	}
	return false
}

// hasPassword reports whether rest, the text after "://", begins with user:password@.
func hasPassword(rest string) bool {
	if i := strings.IndexAny(rest, "/?# \t\"'`<>|"); i >= 0 {
		rest = rest[:i]
	}
	i := strings.LastIndexByte(rest, '@')
	if i < 0 {
		return false
	}
	user, password, _ := strings.Cut(rest[:i], ":")
	if slices.Contains(anyUser, strings.ToLower(user)) &&
		slices.Contains(anyPassword, strings.ToLower(password)) {
		return false // shows the form of such a URL
	}
	return isArgumentValue(password) && !strings.ContainsAny(password, `[]^\`)
}

// anyUser and anyPassword stand in URLs that show how such a URL is written.
var (
	anyUser     = []string{"user", "username", "login"}
	anyPassword = []string{"password", "pass", "passwd", "pwd", "secret"}
)

var (
	parameter = regexp.MustCompile(
		`(?i)(?:^|[;&?,\s"'(|]|\\n)-{0,2}D?([\w.-]*(?:password|passwd|pwd|pass|secret|token|key|auth)[\w]*) ?= ?("[^"]*"|'[^']*'|\\"[^"\\]*|\{[^{}]*\d[^{}]*\}|[^;&,\s"')]+)`)
	option = regexp.MustCompile(
		`(?i)(?:^|\s)--?([\w-]*(?:password|passwd|pwd|pass|secret|token|key|passphrase|credentials))[ =]("[^"]*"|'[^']*'|[^\s"']+)`)

	// stems are substrings of the names of secrets.
	stems = []string{"pass", "pwd", "secret", "token", "key", "auth", "credential"}

	// commands match commands with credentials. The first group is the possible secret; the needle
	// occurs in every match.
	commands = []struct {
		needle string
		form   *regexp.Regexp
	}{
		{"curl", regexp.MustCompile(
			`\bcurl\b.*\s(?:-u|--user|--proxy-user)[ =]?["']?[^\s:"']+:([^\s"']+)`)},
		{"mysql", regexp.MustCompile(`\bmysql(?:dump|admin|import|show)?\b.*\s-p["']?([^\s"']+)`)},
		{"sshpass", regexp.MustCompile(`\bsshpass\s+-p ?["']?([^\s"']+)`)},
		{"redis-cli", regexp.MustCompile(`\bredis-cli\b.*\s-a ["']?([^\s"']+)`)},
		{"mongo", regexp.MustCompile(
			`\b(?:mongo(?:sh|dump|restore)?|docker\s+login|helm\s+registry\s+login|skopeo\s+login)\b.*\s-p ["']?([^\s"']+)`)},
		{"login", regexp.MustCompile(
			`\b(?:mongo(?:sh|dump|restore)?|docker\s+login|helm\s+registry\s+login|skopeo\s+login)\b.*\s-p ["']?([^\s"']+)`)},
		{"ldap", regexp.MustCompile(
			`\bldap(?:search|modify|add|delete|passwd)\b.*\s-w ["']?([^\s"']+)`)},
		{"pass:", regexp.MustCompile(`\s-pass(?:in|out)?\s+pass:([^\s"']+)`)},
		{"oracle", regexp.MustCompile(`(?i)\bjdbc:oracle:\w+:[^/@\s]+/([^@\s]+)@`)},
		{"sqlplus", regexp.MustCompile(`\bsqlplus\b.*\s["']?\w+/([^\s@"']+)@`)},
		{"password-stdin", regexp.MustCompile(
			`\b(?:echo|printf)\s+(?:-n\s+|["']?%s["']?\s+)?["']?([^\s"'|]+)["']?\s*\|.*--password-stdin`)},
		{"from-literal", regexp.MustCompile(
			`\bcreate\s+secret\b.*--from-literal[= ]["']?[\w.-]+=([^\s"']+)`)},
		{" set ", regexp.MustCompile(
			`\bconfig(?:ure)?\s+set\s+\S*(?i:secret|password|token)\S*[ =]["']?([^\s"']+)`)},
		{"alias set", regexp.MustCompile(
			`\bmc\s+alias\s+set\s+\S+\s+https?://\S+\s+\S+\s+["']?([^\s"']+)`)},
		{"login=", regexp.MustCompile(`\blogin=[^\s:"']+:([^\s"']+)`)},
		{"az login", regexp.MustCompile(`\baz\s+login\b.*\s-p\s+["']?([^\s"']+)`)},
		{"zip", regexp.MustCompile(`\b(?:un)?zip\b.*\s-P\s*["']?([^\s"']+)`)},
		{"7z", regexp.MustCompile(`\b7z[ar]?\s+[a-z]\b.*\s-p["']?([^\s"']+)`)},
		{"openssl", regexp.MustCompile(`\bopenssl\s+\w[\w-]*\b.*\s-k\s+["']?([^\s"']+)`)},
		{"-u", regexp.MustCompile(
			`\b(?:smbclient|smbget|rpcclient|net)\b.*\s-U\s*["']?[^\s%"']+%([^\s"']+)`)},
		{"lftp", regexp.MustCompile(`\blftp\b.*\s-u\s*["']?[^\s,"']+,([^\s"']+)`)},
		{"rabbitmqctl", regexp.MustCompile(
			`\brabbitmqctl\b.*\b(?:add_user|change_password)\s+\S+\s+["']?([^\s"']+)`)},
		{"chpasswd", regexp.MustCompile(
			`\b(?:echo|printf)\s+(?:-\w\s+)?["']?[^\s:"']+:([^\s"'|\\]+)(?:\\n)?["']?\s*\|.*\bchpasswd\b`)},
		{"snmp", regexp.MustCompile(`\bsnmp(?:walk|get|getnext|bulkget|bulkwalk|set|trap|inform|table|` +
			`status|df|netstat|test)\b.*\s-[cAX]\s*["']?([^\s"']+)`)},
		{"ipmitool", regexp.MustCompile(`\bipmitool\b.*\s-P\s*["']?([^\s"']+)`)},
		{"sqlcmd", regexp.MustCompile(`\bsqlcmd\b.*\s-P\s*["']?([^\s"']+)`)},
		{"isql", regexp.MustCompile(`\b[io]?isql\b.*\s-P\s*["']?([^\s"']+)`)},
		{"mosquitto_", regexp.MustCompile(`\bmosquitto_(?:pub|sub|rr)\b.*\s-P\s+["']?([^\s"']+)`)},
		{"mosquitto_passwd", regexp.MustCompile(
			`\bmosquitto_passwd\b.*\s-\w*b\s+\S+\s+\S+\s+["']?([^\s"']+)`)},
		{"beeline", regexp.MustCompile(`\bbeeline\b.*\s-p\s+["']?([^\s"']+)`)},
		{"cqlsh", regexp.MustCompile(`\bcqlsh\b.*\s-p\s+["']?([^\s"']+)`)},
		{" -pw ", regexp.MustCompile(`\b(?:plink|pscp|psftp|putty)\b.*\s-pw\s+["']?([^\s"']+)`)},
		{"freerdp", regexp.MustCompile(`\b[wx]?freerdp3?\b.*\s/p:["']?([^\s"']+)`)},
		{"wpa_passphrase", regexp.MustCompile(`\bwpa_passphrase\s+\S+\s+["']?([^\s"']+)`)},
		{"securestring", regexp.MustCompile(
			`(?i)\bconvertto-securestring\s+(?:-string\s+)?["']([^"']+)["']`)},
		{"net user", regexp.MustCompile(`(?i)\bnet\s+user\s+\S+\s+([^\s/]\S*)\s+.*/add\b`)},
		{"|", regexp.MustCompile(
			`\b(?:echo|printf)\s+(?:-\w\s+|["']?%s["']?\s+)?["']?([^\s"'|]{4,})["']?\s*\|\s*(?:sudo\s(?:-\w+\s+)*-\w*S\b|kinit\b|passwd\s+.*--stdin|vncpasswd\b|cryptsetup\b)`)},
		{"assword:", regexp.MustCompile(
			`(?i)\bogin:\S*\s+\S+\s+["']?\S*assword:\S*\s+["']?([^\s"']+)`)},
		{"secret ", regexp.MustCompile(`\bsecret\s+"([A-Za-z0-9+/]{16,}={0,2})"\s*;`)},
		{"htpasswd", regexp.MustCompile(`\bhtpasswd\b.*\s-\w*b\w*\s+\S+\s+\S+\s+([^\s"']+)`)},
		{"insecure-password", regexp.MustCompile(`\binsecure-password\s+(\S+)`)},
		{"auth ", regexp.MustCompile(`(?:\bstats\s+|^)auth\s+[^\s:]+:(\S+)`)},
		// a user in Redis's list
		{"on ", regexp.MustCompile(`^\S+\s+on\s(?:[^<|;]*\s)?>(\S+)(?:\s+[~%&+-]\S*)+$`)},
		{"login ", regexp.MustCompile(`\blogin\s+\S+\s+password\s+(\S+)`)},
		{"identified", regexp.MustCompile(`(?i)\b(?:identified\s+by|password)\s+'([^']+)'`)},
		{"password", regexp.MustCompile(`(?i)\b(?:identified\s+by|password)\s+'([^']+)'`)},
		{"authorization", regexp.MustCompile(
			`(?i)\bauthorization["']?\s*[:= ]\s*["']?(?:bearer|basic|token)\s+([\w.~+/=-]{8,})`)},
		{"bearer", regexp.MustCompile(`(?i)^(?:bearer|basic)\s+([\w.~+/=-]{16,})$`)},
		{"basic", regexp.MustCompile(`(?i)^(?:bearer|basic)\s+([\w.~+/=-]{16,})$`)},
		{"x-a", regexp.MustCompile(
			`(?i)\bx-(?:api|auth)-(?:key|token)["']?\s*:\s*["']?([\w.~+/=-]{8,})`)},
	}
)

// braced is a value in braces that is no name of something that is filled in.
var braced = regexp.MustCompile(`^\{[^{}]*[A-Za-z][^{}]*\d[^{}]*\}$|^\{[^{}]*\d[^{}]*[A-Za-z][^{}]*\}$`)

// tellsByName reports whether one of the pairs of a name and a value is a secret.
func tellsByName(pairs [][]string) bool {
	for _, m := range pairs {
		name := m[1]
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			name = name[i+1:]
		}
		value := unquote(strings.TrimPrefix(m[2], `\"`))
		if strings.IndexByte(value, ' ') < 0 && braced.MatchString(value) { // as ODBC has it
			value = value[1 : len(value)-1]
		}
		if isSecretName(name, kindOf(value)) && isArgumentValue(value) {
			return true
		}
	}
	return false
}

// isArgumentValue reports whether an argument stands for itself. A shell fills in more than other
// formats do.
func isArgumentValue(value string) bool {
	return isPlain(value) && !isUnfilled(value) && !strings.ContainsAny(value, "$`{}<>*") &&
		!strings.HasPrefix(value, "%") &&
		!strings.HasPrefix(value, "-") && strings.ToLower(value) != "true" &&
		strings.ToLower(value) != "false" &&
		!strings.Contains(value, "://")
}

var (
	languageName = regexp.MustCompile(
		`(?i)(?:^|[._-])[a-z]{2}(?:[-_][a-z]{2,4})?\.(?:json|ya?ml|properties|ini|toml|js|ts|php|xml)$`)
	messageName = regexp.MustCompile(
		`(?i)^(?:messages|validationmessages|localstrings|strings|labels|i18n|.*resources?)(?:[._-].*)?\.(?:properties|json|ya?ml|xml|[jt]s)$`)
)

// isTranslation reports whether a file has texts for people, told by its name:
// messages_de.properties, locales/fr.json.
func isTranslation(name string) bool {
	for dir := range strings.SplitSeq(strings.ToLower(path.Dir(name)), "/") {
		switch dir {
		case "locale", "locales", "i18n", "lang", "langs", "language", "languages", "translations",
			"l10n", "nls", "_locales", "messages":
			return true
		}
	}
	base := path.Base(name)
	return messageName.MatchString(base) || languageName.MatchString(base) &&
		strings.Contains(base, "_") || path.Ext(base) == ".arb"
}
