package check

import (
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
)

// checkLeaks looks for values of one environment in another: values declared to be owned, names
// that carry the name of another environment, databases and addresses that an environment has in
// common with one that users see, and hosts that it shares with such a one while others have their
// own.
func (s *Set) checkLeaks(owned map[string][]string) []Finding {
	var out []Finding
	names := s.manifest.Names()
	for _, p := range s.paths() {
		report := func(name string, setting *Setting, reason string) {
			if reason != "" {
				out = append(out, Finding{Rule: RuleLeak, Environment: name, Path: p,
					Source: s.files[name][p].Source,
					Line:   setting.Line, Key: setting.Key, Message: reason})
			}
		}
		common := len(names) > 1 && s.shared(p)
		if isTranslation(p) {
			continue
		}
		blamed := map[blame]bool{}
		for _, name := range names {
			if f := s.files[name][p]; f != nil && f.format != "code" {
				for i := range f.Settings {
					setting := &f.Settings[i]
					if reason := s.leak(name, setting, owned); reason != "" {
						report(name, setting, reason)
						blamed[blame{name, setting}] = true
					}
				}
			}
		}
		byKey := s.inCommon(p)
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			at := byKey[key]
			for _, name := range names {
				setting := at[name]
				if setting == nil || blamed[blame{name, setting}] {
					continue
				}
				reason := ""
				if !common {
					reason = s.borrowed(name, at)
				}
				if reason == "" {
					reason = s.sameDatabase(name, at, common)
				}
				report(name, setting, reason)
			}
		}
	}
	return out
}

// blame is a setting of a file that environments may share, in one of them.
type blame struct {
	environment string
	setting     *Setting
}

// inCommon finds the settings that more than one environment has by the same key, also in files
// whose keys are not compared otherwise.
func (s *Set) inCommon(p string) map[string]map[string]*Setting {
	byKey := map[string]map[string]*Setting{}
	for _, name := range s.manifest.Names() {
		f := s.files[name][p]
		if f == nil || f.format == "code" {
			continue
		}
		for i := range f.Settings {
			setting := &f.Settings[i]
			if setting.Kind != String || setting.Key == "" || setting.value == "" {
				continue
			}
			if byKey[setting.Key] == nil {
				byKey[setting.Key] = map[string]*Setting{}
			}
			byKey[setting.Key][name] = setting
		}
	}
	maps.DeleteFunc(byKey, func(_ string, at map[string]*Setting) bool { return len(at) < 2 })
	return byKey
}

// leak reports the environment that owns the value of a setting, by declaration or by a name in it.
func (s *Set) leak(name string, setting *Setting, owned map[string][]string) string {
	if setting.Kind != String || setting.value == "" {
		return ""
	}
	may := s.mayName(setting.value)
	if !may && len(owned) == 0 {
		return ""
	}
	var words []string
	if (len(owned) > 0 || strings.IndexByte(setting.value, '.') >= 0) &&
		!className.MatchString(setting.value) {
		words = hosts(setting.value)
	}
	if len(owned) > 0 {
		for _, owner := range slices.Sorted(maps.Keys(owned)) {
			if owner == name {
				continue
			}
			for _, pattern := range owned[owner] {
				if matchesAny(pattern, words) && !slices.Contains(owned[name], pattern) {
					return "the value belongs to " + owner
				}
			}
		}
	}
	live := s.manifest.Spec.IsLive(name)
	for _, w := range words {
		if other := s.namedIn(w); other != "" && other != name &&
			s.manifest.Spec.IsLive(other) != live {
			return "a host's name says that it belongs to " + other
		}
	}
	if other := s.ownerOf(setting, live); other != "" && other != name {
		return "the name says that it belongs to " + other
	}
	return ""
}

// className matches the name of a class with its package.
var className = regexp.MustCompile(`^[a-z]\w*(?:\.[a-z]\w*)+\.[A-Z]\w*$`)

// aliases are words that stand for an environment of another name.
var aliases = []string{"prod", "prd", "live", "staging", "stage", "stg", "qa", "uat", "sbx", "tst"}

// mayName reports whether a value has the name of an environment in it, as almost none has.
func (s *Set) mayName(value string) bool {
	lower := strings.ToLower(value)
	has := func(word string) bool { return strings.Contains(lower, word) }
	for name := range s.files {
		if has(name) {
			return true
		}
	}
	return slices.ContainsFunc(aliases, has)
}

// meaning is the environment that a part of a name stands for, or empty.
func (s *Set) meaning(part string) string {
	switch part {
	case "prod", "prd", "live":
		part = "production"
	case "staging", "stage", "stg", "qa", "uat", "sbx":
		part = "sandbox"
	case "tst":
		part = "test"
	}
	if s.files[part] == nil {
		return ""
	}
	return part
}

func isSeparator(r rune) bool { return r == '.' || r == '-' || r == '_' }

// namedIn is the environment that a host's name carries as a part of its own, such as
// "db-prod.example.com".
func (s *Set) namedIn(host string) string {
	if !strings.ContainsRune(host, '.') || strings.HasPrefix(host, ".") || isFile(host) {
		return ""
	}
	before := ""
	for part := range strings.FieldsFuncSeq(host, isSeparator) {
		if other := s.meaning(part); other != "" && !slices.Contains(negations, before) {
			return other
		}
		before = part
	}
	return ""
}

// negations make of the environment behind them another one.
var negations = []string{"pre", "non", "not", "no", "like", "to", "from", "post"}

var (
	identifier = regexp.MustCompile(`^[A-Za-z0-9]+(?:[-_.:][A-Za-z0-9]+)+$`)
	authority  = regexp.MustCompile(`://(?:[^/@\s]*@)?([\w.-]+)(?::\d+)?(?:/([\w-]+))?`)
)

// files are endings of names of files, which are named after environments that use them by choice.
var files = []string{".js", ".json", ".yml", ".yaml", ".xml", ".properties", ".conf", ".cfg",
	".ini", ".toml", ".env", ".log", ".html", ".css", ".md", ".sh",
	".py", ".jar", ".war", ".txt", ".sql", ".pem", ".crt", ".key", ".ts", ".php", ".rb", ".groovy"}

func isFile(name string) bool {
	return slices.Contains(files, strings.ToLower(path.Ext(name)))
}

// resources are the words of keys whose values name an environment's own resources.
var resources = []string{"host", "hosts", "hostname", "server", "servers", "url", "uri", "urls",
	"endpoint", "endpoints", "address", "addresses", "addr", "database", "db",
	"dbname", "schema", "topic", "topics", "queue", "queues", "bucket", "stream", "exchange",
	"index", "broker", "brokers", "namespace", "cluster", "keyspace",
	"collection", "container", "datasource", "upstream", "service", "target", "vhost",
	"subscription", "group", "prefix"}

// ownerOf is the environment that a short host in a URL, or a name such as "orders-production",
// belongs to. It is looked for at either end of the name; those of environments that users do not
// see count where the key says that the value is a host, a topic or the like, as "test" is in many
// a name.
func (s *Set) ownerOf(setting *Setting, live bool) string {
	if !strings.ContainsAny(setting.value, "-_.:/") || !s.mayName(setting.value) {
		return ""
	}
	var candidates []string
	for _, m := range authority.FindAllStringSubmatch(setting.value, -1) {
		candidates = append(candidates, m[1], m[2])
	}
	resource := len(candidates) > 0
	words := nameParts(setting.Key)
	if end := path.Base(setting.value); resource && identifier.MatchString(end) &&
		slices.ContainsFunc(words, func(w string) bool { return slices.Contains(inPaths, w) }) {
		candidates = append(candidates, end) // https://sqs.example.com/1234/orders-production
	}
	if host, _, _ := strings.Cut(setting.value, ":"); identifier.MatchString(host) {
		candidates = append(candidates, host)
	}
	if strings.HasPrefix(setting.value, "arn:") {
		name := setting.value[strings.LastIndexAny(setting.value, ":/")+1:]
		candidates, resource = []string{name}, true
	}
	if len(candidates) == 0 {
		for _, w := range strings.FieldsFunc(setting.value, func(r rune) bool {
			return r == ',' || r == ' ' || r == ';'
		}) {
			if host, _, _ := strings.Cut(w, ":"); w != setting.value &&
				!strings.ContainsAny(setting.value, "/=") && identifier.MatchString(host) {
				candidates = append(candidates, host)
			}
		}
	}
	if len(candidates) == 0 {
		return ""
	}
	resource = resource || slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains(resources, w)
	})
	if live && !resource || slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains([]string{"profile", "profiles", "image", "version", "class", "file",
			"path"}, w)
	}) {
		return ""
	}
	for _, c := range candidates {
		if isFile(c) {
			continue
		}
		parts := strings.FieldsFunc(strings.ToLower(c), isSeparator)
		if len(parts) < 2 {
			continue
		}
		for i := range parts {
			// in the middle of a name only a word that has no other meaning counts
			if i > 0 && i < len(parts)-1 && !(resource && slices.Contains(plainly, parts[i])) {
				continue
			}
			if i == 0 && parts[0] == "test" && slices.Contains(tested, parts[1]) {
				continue
			}
			if parts[i] == "live" || parts[i] == "stable" || parts[i] == "stage" && !resource {
				continue
			}
			if other := s.meaning(parts[i]); other != "" &&
				(i == 0 || !slices.Contains(negations, parts[i-1])) &&
				s.manifest.Spec.IsLive(other) != live {
				return other
			}
		}
	}
	return ""
}

// inPaths are resources whose name may be the last element of a URL.
var inPaths = []string{"queue", "topic", "bucket", "stream", "exchange", "index", "collection",
	"subscription", "repository"}

// plainly are words that mean production wherever they stand in a name; tested are words for parts
// of a test, of any environment.
var (
	plainly = []string{"prod", "prd", "production"}
	tested  = []string{"result", "results", "case", "cases", "run", "runs", "suite", "suites",
		"report", "reports", "score", "scores", "drive", "drives", "kit", "kits", "plan", "plans"}
)

// borrowed reports an environment that users do not see and that has production's host for a key,
// while another one that they do not see either has its own.
func (s *Set) borrowed(name string, at map[string]*Setting) string {
	setting := at[name]
	if s.manifest.Spec.IsLive(name) || !looksLikeHost(setting.value) || s.belongs(setting, false) {
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

// belongs reports whether a name in the value belongs to an environment that is live, or to one
// that is not: then the other one has borrowed it.
func (s *Set) belongs(setting *Setting, live bool) bool {
	if other := s.ownerOf(setting, !live); other != "" {
		return true
	}
	return slices.ContainsFunc(hosts(setting.value), func(w string) bool {
		other := s.namedIn(w)
		return other != "" && s.manifest.Spec.IsLive(other) == live
	})
}

// sameDatabase reports an environment that users do not see and that has the database, or the
// address, of one that they see. A short name leads to another host in each environment and is
// none; in a file that all environments share only a database is looked for, as its other settings
// are meant for all.
func (s *Set) sameDatabase(name string, at map[string]*Setting, common bool) string {
	setting := at[name]
	if s.manifest.Spec.IsLive(name) {
		return ""
	}
	mine := database(setting)
	what := "database"
	if mine == "" && !common {
		mine, what = address(setting), "address"
	}
	if mine == "" || s.belongs(setting, false) {
		return ""
	}
	for _, other := range slices.Sorted(maps.Keys(at)) {
		if other == name || !s.manifest.Spec.IsLive(other) {
			continue
		}
		if theirs := database(at[other]); theirs == mine || what == "address" &&
			address(at[other]) == mine {
			return "the " + what + " is the same as in " + other
		}
	}
	return ""
}

var (
	storeURL = regexp.MustCompile(
		`(?i)^(?:jdbc:|r2dbc:)?(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?|amqps?|kafka|sqlserver|oracle|db2|cassandra|cql|` +
			`neo4j|bolt|couchbase|memcached|nats|pulsar|clickhouse|jtds|microsoft|cockroachdb|tds|ldaps?)\b[^?]*`)
	storeWords = []string{"db", "database", "datasource", "jdbc", "mysql", "postgres", "postgresql",
		"mariadb", "redis", "mongo", "mongodb", "kafka", "rabbit", "rabbitmq",
		"cassandra", "elastic", "elasticsearch", "opensearch", "zookeeper", "bootstrap", "sql",
		"oracle", "memcached", "couchbase", "amqp", "pg", "mssql", "clickhouse"}
	hostWords = []string{"host", "hosts", "hostname", "url", "uri", "urls", "server", "servers",
		"addr", "address", "addresses", "nodes", "endpoint", "endpoints", "brokers", "broker",
		"contact", "points", "hostport", "dsn", "service"}
	hostInURL   = regexp.MustCompile(`(?:@|//|\()([\w.-]+|\[[0-9a-fA-F:]+\])(?::\d+)?`)
	credentials = regexp.MustCompile(`//[^/@\s]*@`)
)

// database is the host and name of the database that a setting leads to, if the name is the same
// host wherever it is looked up.
func database(s *Setting) string {
	if strings.Count(s.value, ".") < 2 && strings.Count(s.value, ":") < 2 {
		return ""
	}
	if strings.Contains(s.value, "${") {
		return ""
	}
	if where := storeURL.FindString(s.value); where != "" && strings.Contains(where, ":") {
		for _, m := range hostInURL.FindAllStringSubmatch(where, -1) {
			if isGlobal(m[1]) {
				return strings.ToLower(credentials.ReplaceAllString(where, "//"))
			}
		}
		return ""
	}
	words := nameParts(s.Key)
	in := func(list []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(list, w) })
	}
	if !(in(storeWords) && in(hostWords) || slices.ContainsFunc(words, isStoreHost)) ||
		strings.ContainsAny(s.value, " \t") {
		return ""
	}
	for _, w := range hosts(s.value) {
		if isGlobal(w) {
			return strings.ToLower(s.value)
		}
	}
	return ""
}

// isStoreHost reports whether a word is made of one for a database and one for a host, as PGHOST
// is.
func isStoreHost(word string) bool {
	return slices.ContainsFunc(storeWords, func(store string) bool {
		host, ok := strings.CutPrefix(word, store)
		return ok && slices.Contains(hostWords, host)
	})
}

// isGlobal reports whether a host is the same one in each environment: an address, or a name with
// dots in it that is not resolved within a cluster.
func isGlobal(host string) bool {
	host = strings.ToLower(strings.Trim(host, "[]"))
	if a, err := netip.ParseAddr(host); err == nil {
		return isOwned(a)
	}
	return strings.Count(host, ".") >= 2 && !strings.HasSuffix(host, ".svc") &&
		!strings.HasSuffix(host, ".cluster.local") && !strings.HasSuffix(host, ".consul") &&
		!strings.HasSuffix(host, ".localhost") && kindOf(host) == String && !isFile(host)
}

// isOwned reports whether an address can be that of one environment.
func isOwned(a netip.Addr) bool {
	return !a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		!slices.Contains(everyones, a.String()) &&
		a.String() != "255.255.255.255"
}

// everyones are resolvers that everyone may ask.
var everyones = []string{"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222",
	"208.67.220.220"}

// sharedWords are of keys whose addresses are the same for all environments by design.
var sharedWords = []string{"dns", "resolver", "resolvers", "nameserver", "nameservers", "ntp",
	"proxy", "gateway", "mask", "netmask", "cidr", "subnet", "subnets", "network", "allow",
	"allowed",
	"trusted", "whitelist", "allowlist", "acl", "deny", "version", "syslog", "time", "bind",
	"listen", "range", "from", "real", "broadcast", "oid", "release"}

var hostPort = regexp.MustCompile(
	`^(?:[a-z][a-z0-9+.-]*://)?(\d{1,3}(?:\.\d{1,3}){3})(?::\d+)?(?:/[^\d].*|/)?$`)

var hostPort6 = regexp.MustCompile(
	`^(?:[a-z][a-z0-9+.-]*://)?\[?([0-9a-f:]*:[0-9a-f:]*:[0-9a-f:.]*)\]?(?::\d+)?(?:/[^\d].*|/)?$`)

// address is the one that a setting leads to, if it can be that of one environment.
func address(s *Setting) string {
	if strings.Count(s.value, ".") < 3 && strings.Count(s.value, ":") < 2 {
		return ""
	}
	m := hostPort.FindStringSubmatch(strings.ToLower(s.value))
	if m == nil {
		m = hostPort6.FindStringSubmatch(strings.ToLower(s.value))
	}
	if m == nil || slices.ContainsFunc(nameParts(s.Key), func(w string) bool {
		return slices.Contains(sharedWords, w)
	}) {
		return ""
	}
	if a, err := netip.ParseAddr(m[1]); err != nil || !isOwned(a) {
		return ""
	}
	return m[1]
}

// looksLikeHost reports whether the value is a URL, or a name or an address with a dot in it and no
// blank.
func looksLikeHost(value string) bool {
	if strings.Contains(value, "://") {
		return true
	}
	host, _, _ := strings.Cut(value, ":")
	return strings.Count(host, ".") >= 2 && !strings.ContainsAny(host, " /\\,") &&
		kindOf(value) == String
}
