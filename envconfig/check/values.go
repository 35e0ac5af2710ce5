package check

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// checkValues looks for placeholders in environments that users see, and for secrets in all.
func (s *Set) checkValues() []Finding {
	var out []Finding
	for _, name := range s.manifest.Names() {
		live := s.manifest.Spec.IsLive(name)
		for _, p := range slices.Sorted(maps.Keys(s.files[name])) {
			f := s.files[name][p]
			words := isTranslation(p)
			for i := range f.Settings {
				setting := &f.Settings[i]
				report := func(rule, message string) {
					out = append(out, Finding{Rule: rule, Environment: name, Path: p,
						Source: f.Source,
						Line:   setting.Line, Key: setting.Key, Message: message})
				}
				switch {
				case setting.secret:
					report(RuleSecret, "a secret stands there in plain text: use "+
						"${file:/run/secrets/…} with the action render")
				case !live || words || setting.Key == "" || setting.Kind != String ||
					isText(setting.Key):
				case f.format == "conf" && isParameter(setting.value): // of the file's own language
				case isUnfilled(setting.value):
					report(RulePlaceholder, "the value is a placeholder that was never filled in")
				case f.format != "code" && namesItself(setting):
					report(RulePlaceholder, "the value names the container itself as the host")
				}
			}
		}
	}
	return out
}

var parameterName = regexp.MustCompile(`^<[a-z]+>$`)

// isParameter reports whether a value is one word in angle brackets that a program fills in itself,
// as fail2ban does.
func isParameter(value string) bool {
	return parameterName.MatchString(value) &&
		!slices.Contains([]string{"<password>", "<secret>", "<token>", "<key>", "<apikey>",
			"<hostname>",
			"<username>", "<user>", "<email>", "<domain>", "<url>", "<value>", "<placeholder>"},
			value)
}

// isText reports whether a key is that of a text for people.
func isText(key string) bool {
	switch strings.ToLower(key[strings.LastIndexAny(key, ".@]")+1:]) {
	case "description", "title", "summary", "help", "comment", "doc", "label", "message", "text",
		"tooltip", "hint", "placeholder":
		return true
	}
	return false
}

// loopback are hosts that are the container itself.
var loopback = []string{"localhost", "127.0.0.1", "[::1]", "::1", "localhost.localdomain"}

// Words of keys for which the container itself is the right host, since the service listens there
// or asks a neighbour in its own pod, and ports and paths of such neighbours.
var (
	ownWords = []string{"bind", "binds", "bound", "listen", "listener", "listeners", "listening",
		"interface", "iface", "jmx",
		"rmi", "management", "health", "healthcheck", "healthz", "liveness", "readiness", "probe",
		"probes", "actuator", "metrics", "status",
		"sidecar", "agent", "envoy", "istio", "linkerd", "dapr", "statsd", "dogstatsd", "datadog",
		"otel", "otlp", "loopback",
		"local", "self", "allow", "allowed", "trusted", "whitelist", "allowlist", "acl", "origin",
		"origins", "cors",
		"noproxy", "nonproxyhosts", "no", "admin", "debug", "debugger", "pprof", "exporter",
		"prometheus", "test", "defaulthost",
		"scrape", "alias", "aliases", "ping", "heartbeat", "stub", "internalip", "realip", "deny",
		"denied", "ignore", "exclude", "pgbouncer", "twemproxy", "mcrouter",
		"excluded", "advertised", "mynetworks", "permit", "resolver", "bypass"}
	ownKeys = []string{"consul.host", "consulhost", "consulhttpaddr", "httpaddr", "httpsaddr", "grpcaddr", "cloudsqlproxy", "server.address", "server.host", "servername", "hostname", "defaulthost",
		"setrealipfrom", "nonproxyhosts", "noproxy", "mynetworks", "proxysetheader", "httpcheck",
		"fastcgipass", "uwsgipass", "scgipass", "upstream.server"}
	ownPorts = []string{"15000", "15001", "15004", "15006", "15020", "15021", "15090", "8125",
		"8126", "4317", "4318", "3500", "50001", "8500",
		"6831", "6832", "9901", "19000", "4140", "4191", "2021", "24224", "24225"}
	ownPaths = []string{"/health", "/healthz", "/healthcheck", "/livez", "/readyz", "/ready",
		"/live", "/liveness", "/readiness", "/ping", "/status",
		"/actuator", "/metrics", "/stub_status", "/nginx_status", "/server-status", "/fpm-ping",
		"/fpm-status", "/manager/health", "/-/healthy", "/-/ready"}
)

var (
	// ownValue is a range of addresses that has the container in it, as access lists do.
	ownValue = regexp.MustCompile(`(?:^|\s)(?:127\.\d+\.\d+\.\d+|\[?::1\]?)/\d`)
	// portKey is the end of a key whose address is the one to listen at.
	portKey   = regexp.MustCompile(`(?:^|[._@])ports?(?:\[\d+\])?$`)
	reference = regexp.MustCompile(`\$\{[^{}]*\}`)
)

// isDefault reports whether the container itself stands only in defaults of references, such as
// ${DB_HOST:localhost}.
func isDefault(value string) bool {
	rest := reference.ReplaceAllString(value, "")
	return rest != value && !slices.ContainsFunc(loopback, func(h string) bool {
		return strings.Contains(rest, h)
	})
}

// namesItself reports whether the value leads to the container itself where another host is meant.
func namesItself(s *Setting) bool {
	lower := strings.ToLower(s.value)
	if !strings.Contains(lower, "localhost") && !strings.Contains(lower, "127.0.0.1") &&
		!strings.Contains(lower, "::1") {
		return false
	}
	if !slices.ContainsFunc(hosts(s.value), func(h string) bool {
		return slices.Contains(loopback, h)
	}) && lower != "::1" &&
		!strings.Contains(lower, "[::1]") {
		return false
	}
	if strings.Count(lower, " ") > 3 && !strings.Contains(lower, "://") { // prose
		return false
	}
	if strings.Contains(s.Key, "Host[localhost]@") || strings.Contains(s.Key, "Alias") {
		return false
	}
	if ownValue.MatchString(lower) || isDefault(lower) {
		return false
	}
	plain := strings.ToLower(separators.Replace(s.Key))
	if portKey.MatchString(plain) {
		return false
	}
	if slices.ContainsFunc(ownKeys, func(k string) bool {
		return plain == k || strings.HasSuffix(plain, "."+k) || strings.HasSuffix(plain, "@"+k)
	}) {
		return false
	}
	if slices.ContainsFunc(nameParts(s.Key), func(w string) bool {
		return slices.Contains(ownWords, w)
	}) {
		return false
	}
	_, after, _ := strings.Cut(lower, "://")
	if i := strings.IndexByte(after, '/'); i >= 0 {
		if at, _, _ := strings.Cut(after[i:], "?"); slices.ContainsFunc(ownPaths,
			func(p string) bool {
				return at == p || strings.HasPrefix(at, p+"/") || strings.HasSuffix(at, p)
			}) {
			return false
		}
	}
	for _, port := range ownPorts {
		if strings.Contains(lower, ":"+port) && !digitAt(lower, strings.Index(lower, ":"+port)+1+
			len(port)) {
			return false
		}
	}
	return true
}

func digitAt(s string, i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }

// hosts are the words of a value that can be host names or addresses.
func hosts(value string) []string {
	return strings.FieldsFunc(strings.ToLower(value), func(r rune) bool {
		return strings.ContainsRune(" \t\n,;|/@?&='\"(){}", r) || r == ':'
	})
}

// matchesAny reports whether one of the words matches the pattern.
func matchesAny(pattern string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		ok, _ := path.Match(strings.ToLower(pattern), w)
		return ok
	})
}
