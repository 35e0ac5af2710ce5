package transform

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

const (
	vipVariable   = "$sluice_vip"
	tokenVariable = "$sluice_token" // the VIP and what serves there
)

// neverEmpty are keys with which a limit always counts. A limit does not count a request whose key
// is empty, and must not begin to because the token was added.
var neverEmpty = set(
	"$binary_remote_addr",
	"$connection",
	"$host",
	"$remote_addr",
	"$request_uri",
	"$server_addr",
	"$uri",
)

// keyVariables hold the key of modules that have no directive for it.
var keyVariables = set("$memc_key", "$memcached_key", "$redis_key")

// setsVariable reports whether a directive may set the variable that its first argument names.
func setsVariable(name string) bool {
	return name == "set" || strings.HasPrefix(name, "set_") || strings.HasSuffix(name, "_set")
}

// keyed adds the token to keys under which versions would share a cached page or a limit.
func (t *transform) keyed(n conf.Node) {
	switch name := n.Name(); {
	case strings.HasSuffix(name, "_cache_key"):
		key := t.productionHost(n.Arg(0))
		t.keyedByHost = t.keyedByHost || key != n.Arg(0)
		t.edit.ReplaceArg(n.Directive, 0, key+tokenVariable)
		t.keeps(n, "cache-key", "a page of one version must not be served as one of another")
	case strings.HasSuffix(name, "_store"):
		if n.Arg(0) != "off" {
			t.edit.ReplaceArgs(n.Directive, "off")
			t.changed(n.Directive, "cache-key", "%s: a page of one version must not be stored "+
				"for another", name)
		}
	case name == "redis2_query":
		if n.NumArgs() > 1 {
			t.edit.ReplaceArg(n.Directive, 1, n.Arg(1)+tokenVariable)
			t.keeps(n, "cache-key", "what one version stored must not be served as another's")
		}
	default: // limit_req_zone, limit_conn_zone
		t.limited(n)
	}
}

func (t *transform) keeps(n conf.Node, rule, reason string) {
	t.tokens = true
	t.changed(n.Directive, rule, "%s", reason)
}

// limited adds the token to the key of a limit. A variable that it adds is named after the zone, so
// that the name stays the same when production changes elsewhere: Nginx cannot change the key of a
// zone while it runs.
func (t *transform) limited(n conf.Node) {
	key := n.Arg(0)
	if key == "" {
		return // counts nothing
	}
	if neverEmpty[key] || !strings.HasPrefix(key, "$") {
		t.edit.ReplaceArg(n.Directive, 0, key+tokenVariable)
	} else {
		zone := ""
		for _, a := range n.Args() {
			if value, ok := strings.CutPrefix(a, "zone="); ok {
				zone, _, _ = strings.Cut(value, ":")
			}
		}
		variable := "$sluice_key_" + identifier(zone)
		fmt.Fprintf(&t.extra, "# %s %s: an empty key is not counted.\nmap %s %s {\n    \"\" "+
			"\"\";\n    default %s;\n}\n",
			n.Name(), zone, conf.Quote(key), variable, conf.Quote(key+tokenVariable))
		t.edit.ReplaceArg(n.Directive, 0, variable)
	}
	t.keeps(n, "limit-key", "the load on one version must not count for another")
}

// identifier is text as a part of a variable's name. It has at most 34 bytes, so that the names of
// limited fit the default variables_hash_bucket_size. Two texts never share one, in any case of
// letters: Nginx knows variables by their names in lower case.
func identifier(text string) string {
	plain := strings.Map(func(r rune) rune {
		if alphanumeric(r) || r == '_' {
			return r
		}
		return '_'
	}, text)
	if plain == strings.ToLower(text) && len(text) <= 34 && text != "" {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return plain[:min(len(plain), 24)] + "_" + hex.EncodeToString(sum[:4])
}

// setKey adds the token to a key that is a variable: $memcached_key and its kind.
func (t *transform) setKey(n conf.Node) {
	variable := n.Arg(0)
	if !keyVariables[strings.ToLower(variable)] {
		return
	}
	if n.Name() != "set" && !strings.HasPrefix(n.Name(), "set_") {
		t.refuse(n.Directive, "%s %s: nothing can add who serves to this key; let %s set another "+
			"variable, and write set %s with it", n.Name(), variable, n.Name(), variable)
		return
	}
	t.edit.InsertAfter(n.Directive, "set "+variable+" "+variable+tokenVariable+";")
	t.keeps(n, "cache-key", "what one version stored must not be served as another's")
}

// tableKey refuses a key variable that a table yields: nothing could add the token to it.
func (t *transform) tableKey(n conf.Node) {
	if variable := n.Arg(n.NumArgs() - 1); keyVariables[strings.ToLower(variable)] {
		t.refuse(n.Directive, "%s … %s: nothing can add who serves to this key; let the %s yield "+
			"another variable, and write set %s with it",
			n.Name(), variable, n.Name(), variable)
	}
}

// capturedKeys refuses a key variable that an expression captures: nothing could add the token to
// it.
func (t *transform) capturedKeys(http conf.Node) {
	for variable := range keyVariables {
		if !t.captures()[variable[1:]] {
			continue
		}
		for n := range http.All() {
			for i := range n.NumArgs() + 1 {
				text := n.Name()
				if i > 0 {
					text = n.Arg(i - 1)
				}
				for _, m := range captureName.FindAllStringSubmatch(text, -1) {
					if strings.EqualFold(m[1], variable[1:]) {
						t.refuse(n.Directive, "%s: an expression captures %s, and nothing can "+
							"add who serves to this key; capture another variable, and write "+
							"set %s with it", n.Name(), variable, variable)
					}
				}
			}
		}
	}
}

// defaults states the temporary directories that the http block leaves to Nginx's default, so that
// they lie in Rules.TempDir.
func (t *transform) defaults(http conf.Node) {
	have := map[string]bool{}
	for n := range http.Children() {
		have[n.Name()] = true
	}
	if t.rules.TempDir != "" {
		for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			if directive := name + "_temp_path"; !have[directive] {
				to := strings.TrimSuffix(t.rules.TempDir, "/") + "/" + name
				t.extra.WriteString(directive + " " + conf.Quote(to) + ";\n")
				t.dirs = append(t.dirs, directory{http.Directive, "", to})
			}
		}
	}
}

// logs add VIP and version to every log format, and to the built-in one.
func (t *transform) logs(http conf.Node) {
	used, level := false, false
	for _, n := range t.below("log_format") {
		t.logFormat(n)
	}
	for _, n := range t.below("access_log") {
		level = level || n.Parent() == http.Directive
		if n.Arg(0) == "off" || n.Arg(0) == "" {
			continue
		}
		if to, ok := t.mapped(n.Arg(0)); ok && to == "off" {
			continue
		}
		switch {
		case n.NumArgs() == 1:
			used = true
			t.edit.InsertArg(n.Directive, 1, "sluice_combined")
		case n.Arg(1) == "combined":
			used = true
			t.edit.ReplaceArg(n.Directive, 1, "sluice_combined")
		default:
			continue
		}
		t.changed(n.Directive, "log-format", "the built-in format has no field for VIP and version")
	}
	if !level {
		if to, ok := t.mapped("/var/log/nginx/access.log"); ok && to != "off" {
			used = true
			t.extra.WriteString("access_log " + conf.Quote(to) + " sluice_combined;\n")
		} else {
			t.extra.WriteString("access_log off;\n")
		}
		t.changed(http.Directive, "log-format", "the built-in access log is stated")
	}
	if used {
		// At the top: an access_log wants its format before it.
		t.edit.Prepend(http.Directive, "log_format sluice_combined '$remote_addr - $remote_user "+
			"[$time_local] \"$request\" $status $body_bytes_sent '\n"+
			"    '\"$http_referer\" \"$http_user_agent\" vip="+vipVariable+
			" version=$sluice_version';")
	}
}

func (t *transform) logFormat(n conf.Node) {
	last := n.NumArgs() - 1
	if last < 1 || strings.Contains(n.Text(), vipVariable) {
		return
	}
	first := 1
	if strings.HasPrefix(n.Arg(1), "escape=") {
		first = 2
	}
	// an object of JSON
	if strings.HasPrefix(strings.TrimSpace(n.Arg(first)), "{") &&
		strings.HasSuffix(strings.TrimSpace(n.Arg(last)), "}") {
		value := strings.TrimSpace(n.Arg(last))
		value = strings.TrimSuffix(value, "}")
		sep := ","
		if strings.HasSuffix(strings.TrimSpace(value), "{") {
			sep = ""
		}
		t.edit.ReplaceArg(n.Directive, last, value+sep+`"sluice_vip":"`+vipVariable+
			`","sluice_version":"$sluice_version"}`)
	} else {
		t.edit.InsertArg(n.Directive, last+1, "' vip="+vipVariable+" version=$sluice_version'")
	}
	t.changed(n.Directive, "log-format", "a line says which VIP and version it is about")
}

// header is a directive that is inherited only by blocks that have none of its kind: where a block
// has its own, the added one must be repeated.
type header struct {
	// needs: the directive without which the tree has no use for it; empty for always
	directive, needs string
	lines            []string
}

var headers = []header{
	{"add_header", "", []string{
		"add_header X-Sluice-Vip " + vipVariable + " always;",
		"add_header X-Sluice-Version $sluice_version always;",
		"add_header X-Sluice-Reason $sluice_reason always;",
	}},
	{"proxy_no_cache", "proxy_cache", []string{"proxy_no_cache $sluice_fleeting;"}},
	{"fastcgi_no_cache", "fastcgi_cache", []string{"fastcgi_no_cache $sluice_fleeting;"}},
	{"uwsgi_no_cache", "uwsgi_cache", []string{"uwsgi_no_cache $sluice_fleeting;"}},
	{"scgi_no_cache", "scgi_cache", []string{"scgi_no_cache $sluice_fleeting;"}},
	{"proxy_set_header", "", []string{"proxy_set_header X-Env-VIP " + vipVariable + ";"}},
	{"grpc_set_header", "grpc_pass", []string{"grpc_set_header X-Env-VIP " + vipVariable + ";"}},
	{"fastcgi_param", "fastcgi_pass", []string{"fastcgi_param HTTP_X_ENV_VIP " + vipVariable +
		";"}},
	{"uwsgi_param", "uwsgi_pass", []string{"uwsgi_param HTTP_X_ENV_VIP " + vipVariable + ";"}},
	{"scgi_param", "scgi_pass", []string{"scgi_param HTTP_X_ENV_VIP " + vipVariable + ";"}},
}

// baggage is the header in which instances get the VIP in the form of W3C Baggage.
var baggage = map[string]string{
	"proxy_set_header": "proxy_set_header baggage $sluice_baggage;",
	"grpc_set_header":  "grpc_set_header baggage $sluice_baggage;",
	"fastcgi_param":    "fastcgi_param HTTP_BAGGAGE $sluice_baggage;",
	"uwsgi_param":      "uwsgi_param HTTP_BAGGAGE $sluice_baggage;",
	"scgi_param":       "scgi_param HTTP_BAGGAGE $sluice_baggage;",
}

// answerHeaders are the headers that are added to answers.
func (t *transform) answerHeaders() []string {
	if t.rules.Selector == (Selector{}) {
		return headers[0].lines
	}
	return append(slices.Clone(headers[0].lines), "add_header Vary $sluice_vary always;")
}

// addedHeaders are the headers that the rules ask for.
func (t *transform) addedHeaders() []header {
	out := slices.Clone(headers)
	out[0].lines = t.answerHeaders()
	for i, h := range out {
		if line := baggage[h.directive]; line != "" && t.addsBaggage() {
			out[i].lines = append(slices.Clone(h.lines), line)
		}
	}
	return out
}

func (t *transform) headers(http conf.Node) {
	for _, h := range t.addedHeaders() {
		if h.needs != "" && len(t.below(h.needs)) == 0 {
			continue
		}
		text := strings.Join(h.lines, "\n")
		for _, line := range t.without(http.Directive, h) {
			t.extra.WriteString(line + "\n")
		}
		if h.directive == "add_header" && t.inheritedHeaders(http, text) {
			continue
		}
		reason := "has " + h.directive + " of its own, which would hide the added ones"
		for _, block := range t.info(h.directive).blocks {
			own := text
			if len(t.own) > 0 {
				own = strings.Join(t.without(block, h), "\n")
			}
			if block != http.Directive && own != "" {
				t.edit.Append(block, own)
				t.note(block, "headers", reason)
			}
		}
	}
}

// inheritedHeaders appends the added answer headers where a tree says how headers are inherited:
// since Nginx 1.29.3 a block may have headers of its own and those of the block around it (merge),
// or none (off). It returns false for a tree that does not say so.
func (t *transform) inheritedHeaders(http conf.Node, lines string) bool {
	if len(t.below("add_header_inherit")) == 0 {
		return false
	}
	own, done := map[*conf.Directive]bool{}, map[*conf.Directive]bool{}
	for _, block := range t.info("add_header").blocks {
		own[block] = true
	}
	var walk func(n conf.Node, mode string)
	walk = func(n conf.Node, mode string) {
		for c := range n.Children() {
			if c.Name() == "add_header_inherit" {
				mode = c.Arg(0)
			}
		}
		if n.Directive != http.Directive && !done[n.Directive] && mode != "merge" &&
			(own[n.Directive] || mode == "off") {
			done[n.Directive] = true
			t.edit.Append(n.Directive, lines)
			t.note(n.Directive, "headers", "does not inherit the added ones")
		}
		for c := range n.Children() {
			if c.IsBlock() && (c.Name() == "server" || c.Name() == "location" ||
				c.Name() == "if" && n.Name() == "location") {
				walk(c, mode)
			}
		}
	}
	walk(http, "on")
	return true
}
