package transform

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

func (t *transform) status(n conf.Node) {
	name := n.Name()
	if slices.Contains(t.rules.KeepStatus, name) {
		if strings.HasSuffix(name, "_cache_purge") && n.NumArgs() == 2 && n.Arg(1) != "from" {
			t.edit.ReplaceArg(n.Directive, 1, n.Arg(1)+tokenVariable)
			t.keeps(n, "cache-key", "a page is purged under the key that it is kept under")
		}
		return
	}
	parent := n.Parent()
	if strings.HasSuffix(name, "_cache_purge") && parent != nil && serves(n) {
		t.edit.Remove(n.Directive)
		t.changed(n.Directive, "status", "%s is left out: name it in the rules under keepStatus "+
			"to keep it", name)
		return
	}
	if parent != nil && parent.Name() == "location" && !strings.HasSuffix(name, "_format") &&
		name != "upstream_conf" {
		t.edit.Replace(n.Directive, "return 404;")
		t.changed(n.Directive, "status", "%s gives way to 404: name it in the rules under "+
			"keepStatus to keep it", name)
		return
	}
	t.edit.Remove(n.Directive)
	t.changed(n.Directive, "status", "%s is left out: name it in the rules under keepStatus to "+
		"keep it", name)
}

// serves reports whether the block of the directive passes requests on, too.
func serves(n conf.Node) bool {
	block := conf.Node{Directive: n.Parent(), Parents: n.Parents[:len(n.Parents)-1]}
	for c := range block.Children() {
		if passes(c.Name()) {
			return true
		}
	}
	return false
}

// secretWord matches the word in the name of a header, a parameter or a variable whose value may be
// a secret.
const secretWord = `(?i)(?:authorization|api[-_]?key|access[-_]?key|jwt[-_]?key|token|secret(?:[-_]?key)?|passw(?:or)?d|passphrase|credentials?|private[-_]?key|signing[-_]?key|session[-_]?key)`

// secretName is a name that is one, and not of something that belongs to one: x_api_key, and not
// x_api_key_docs.
var (
	secretName = regexp.MustCompile(secretWord +
		`s?(?:[-_.]?(?:value|base|hash|base64|[0-9]+|v[0-9]+|old|new|test|live|prod|production))*$`)
	secretInner = regexp.MustCompile(secretWord)
)

// random reports whether a value looks like one that a machine made up: letters and digits mixed,
// long, no words and no URL.
func random(value string) bool {
	return len(value) >= 16 && strings.ContainsAny(value, "0123456789") &&
		strings.IndexFunc(value, letter) >= 0 &&
		!strings.ContainsAny(value, "/:. ")
}

func letter(r rune) bool { return alphanumeric(r) && (r < '0' || r > '9') }

// holders are the directives whose argument, from the second on, is the value of the name before
// it.
var holders = set(
	"add_header",
	"fastcgi_param",
	"grpc_set_header",
	"proxy_set_header",
	"scgi_param",
	"set",
	"uwsgi_param",
)

// urls are the directives whose arguments may have a secret in a query, as token=… has. In the
// targets of passes it is pass that looks for them.
var urls = set(
	"fastcgi_param",
	"proxy_set_header",
	"return",
	"rewrite",
	"scgi_param",
	"set",
	"uwsgi_param",
)

// secretive reports whether a directive may hold a secret.
func secretive(name string) bool {
	switch name {
	case "secure_link_secret", "secure_link_md5", "encrypted_session_key", "jwt_key",
		"auth_jwt_key", "env", "map", "if", "more_set_headers", "more_set_input_headers":
		return true
	}
	return holders[name] || urls[name] || secretDirective(name)
}

// secretDirective reports whether a directive itself is named after the secret that it holds, such
// as aws_secret_key.
func secretDirective(name string) bool {
	return name != "server_tokens" && !strings.HasSuffix(name, "_file") &&
		!strings.HasPrefix(name, "ssl_") && !strings.Contains(name, "_ssl_") &&
		secretName.MatchString(name)
}

// secret reports whether the name is that of a secret.
func (t *transform) secret(name string) bool {
	yes, ok := t.secretly[name]
	if !ok {
		_, named := t.rules.Secrets[strings.ToLower(strings.TrimPrefix(name, "("))]
		yes = named || secretName.MatchString(name)
		t.secretly[name] = yes
	}
	return yes
}

// named reports whether the rules have a replacement for the secret of the name.
func (t *transform) named(name string) bool {
	_, ok := t.rules.Secrets[strings.ToLower(name)]
	return ok
}

// holds reports whether the value of the name is a secret. The name of an upstream, a path and a
// URL are no secrets, nor is the value of a variable that decides where a request goes.
func (t *transform) holds(name, value string) bool {
	switch {
	case t.named(name):
		return true
	case t.routes[strings.ToLower(name)], t.inTree[strings.ToLower(value)],
		strings.HasPrefix(value, "/"), strings.HasPrefix(value, "unix:"), url.MatchString(value):
		return false
	}
	return t.secret(name) || secretInner.MatchString(name) && random(value)
}

// url is one without a password in it.
var url = regexp.MustCompile(`^[a-z+]+://[^@]*$`)

// routing finds the variables that decide where a request goes: the variables in targets, and the
// variables from which these are computed.
func (t *transform) routing() {
	t.routes = map[string]bool{}
	var add func(text string, depth int)
	add = func(text string, depth int) {
		for _, v := range variablePart.FindAllString(text, -1) {
			v = "$" + strings.ToLower(strings.Trim(v, "${}"))
			if t.routes[v] || depth > 8 {
				continue
			}
			t.routes[v] = true
			d := t.definitions(v[1:])
			for _, s := range d.sets {
				add(s.Arg(1), depth+1)
			}
			for _, table := range d.tables {
				for c := range table.Children() {
					add(c.Arg(0), depth+1)
				}
			}
		}
	}
	for _, n := range t.targets {
		_, target, _ := splitTarget(n.Arg(0))
		add(target, 0)
	}
}

// variablePart matches a variable, whose value is known only at run time.
var variablePart = regexp.MustCompile(`\$\{?\w+\}?`)

const stripped = "stripped"

// A variable with a shorter value steers the configuration: "set $has_token no".
const shortSecret = 8

// secrets replaces the values of secrets that stand in the text. A value that consists of variables
// is none.
func (t *transform) secrets(n conf.Node) {
	name := n.Name()
	switch {
	case name == "secure_link_secret", name == "secure_link_md5":
		t.strip(n, 0, name)
	case name == "env":
		t.env(n)
	case name == "map":
		t.secretMap(n)
	case name == "if":
		t.secretCondition(n)
	case name == "more_set_headers", name == "more_set_input_headers":
		for i := range n.NumArgs() {
			if header, value, ok := strings.Cut(n.Arg(i), ":"); ok &&
				(t.holds(header, strings.TrimSpace(value)) ||
					t.secretValue(strings.TrimSpace(value))) {
				value = strings.TrimLeft(value, " ")
				t.stripTo(n, i, header, header+": "+t.stripped(header, value))
			}
		}
	case holders[name], urls[name]:
		t.secretWords(n)
	case name == "encrypted_session_key":
		// which has 32 bytes
		t.stripTo(n, 0, name, cmp.Or(t.rules.Secrets[name], strings.Repeat(stripped, 4)))
	case name == "jwt_key", name == "auth_jwt_key":
		if t.holds(name, n.Arg(0)) && !path.IsAbs(n.Arg(0)) {
			t.strip(n, 0, name)
		}
	case secretDirective(name):
		if n.NumArgs() > 0 && !path.IsAbs(n.Arg(n.NumArgs()-1)) {
			t.strip(n, n.NumArgs()-1, name)
		}
	}
}

func (t *transform) secretWords(n conf.Node) {
	if value := n.Arg(1); holders[n.Name()] && n.NumArgs() > 1 {
		if name := n.Arg(0); t.holds(name, value) &&
			(n.Name() != "set" || len(value) >= shortSecret) || t.secretValue(value) {
			t.strip(n, 1, name)
			return
		}
	}
	if !urls[n.Name()] {
		return
	}
	for i := range n.NumArgs() {
		if to := t.secretQuery(n.Arg(i)); to != n.Arg(i) {
			t.stripTo(n, i, "a parameter", to)
		}
	}
}

// secretValue reports whether a value is one for which a name says nothing: "Basic dXNlcjpw" in any
// header or variable.
func (t *transform) secretValue(value string) bool {
	scheme, rest, ok := strings.Cut(value, " ")
	return ok && (strings.EqualFold(scheme, "basic") || strings.EqualFold(scheme, "bearer")) &&
		len(rest) >= shortSecret &&
		!strings.ContainsAny(rest, " $")
}

// queryParameter is a literal value in a query.
var queryParameter = regexp.MustCompile(`([?&])([A-Za-z0-9_.-]+)=([^&$\s#]+)`)

// secretQuery is the text with the secrets of a query in it replaced.
func (t *transform) secretQuery(text string) string {
	if strings.IndexByte(text, '=') < 0 || !strings.ContainsAny(text, "?&") {
		return text
	}
	return queryParameter.ReplaceAllStringFunc(text, func(match string) string {
		m := queryParameter.FindStringSubmatch(match)
		if !t.holds(m[2], m[3]) || len(m[3]) < shortSecret {
			return match
		}
		return m[1] + m[2] + "=" + t.stripped(m[2], m[3])
	})
}

// secretCondition strips the text that a condition compares a secret with: if ($http_x_api_key !=
// "…").
func (t *transform) secretCondition(n conf.Node) {
	args := n.Args()
	op := slices.IndexFunc(args, func(a string) bool { return a == "=" || a == "!=" })
	if op < 1 || op+1 >= len(args) {
		return
	}
	name, raw, tail := strings.TrimPrefix(args[op-1], "("), args[op+1], ""
	if op+2 == len(args) { // without quotes the parenthesis belongs to the word
		raw, tail = strings.TrimSuffix(raw, ")"), ")"
	}
	if len(raw) < shortSecret || !t.holds(name, raw) {
		return
	}
	to := t.stripped(name, raw)
	if to == raw {
		return
	}
	t.edit.ReplaceRawArg(n.Directive, op+1, conf.Quote(to)+tail)
	t.changed(n.Directive, "secret", "the value of %s stays in production", name)
}

// strip replaces the literal parts of the argument.
func (t *transform) strip(n conf.Node, i int, name string) {
	if i < n.NumArgs() {
		t.stripTo(n, i, name, t.stripped(name, n.Arg(i)))
	}
}

func (t *transform) stripTo(n conf.Node, i int, name, to string) {
	if to == n.Arg(i) {
		return
	}
	t.edit.ReplaceArg(n.Directive, i, to)
	t.changed(n.Directive, "secret", "the value of %s stays in production", name)
}

// stripped returns the replacement of the secret of the name.
func (t *transform) stripped(name, value string) string {
	if to, ok := t.rules.Secrets[strings.ToLower(name)]; ok {
		return to
	}
	return literals(value)
}

// flags are values that steer the configuration and are no secrets.
var flags = set("0", "1", "on", "off", "yes", "no", "true", "false", "none")

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// literals is the text with each part that is no variable replaced, from its first letter or digit
// to its last.
func literals(text string) string {
	var b strings.Builder
	part := func(s string) {
		from := strings.IndexFunc(s, alphanumeric)
		if from < 0 || flags[strings.ToLower(s)] {
			b.WriteString(s)
			return
		}
		scheme, _, _ := strings.Cut(s, " ") // "Basic dXNlcjpw" stays an authorization
		if strings.EqualFold(scheme, "basic") || strings.EqualFold(scheme, "bearer") {
			from = min(len(scheme)+1, len(s))
		}
		to := strings.LastIndexFunc(s, alphanumeric) + 1
		b.WriteString(s[:from])
		if from < to {
			b.WriteString(stripped + s[to:])
		}
	}
	at := 0
	for _, m := range variablePart.FindAllStringIndex(text, -1) {
		part(text[at:m[0]])
		b.WriteString(text[m[0]:m[1]])
		at = m[1]
	}
	part(text[at:])
	return b.String()
}

func (t *transform) env(n conf.Node) {
	name, value, ok := strings.Cut(n.Arg(0), "=")
	if !ok || !t.holds(name, value) || value == "" {
		return
	}
	t.stripTo(n, 0, name, name+"="+t.stripped(name, value))
}

// secretMap strips the values of a map that yields a secret, and the keys of one that looks a
// secret up.
func (t *transform) secretMap(n conf.Node) {
	yields, looks := t.secret(n.Arg(1)), t.secret(n.Arg(0))
	keys := 0
	for c := range n.Children() {
		if c.NumArgs() != 1 || c.Name() == "include" {
			continue
		}
		if (yields || secretInner.MatchString(n.Arg(1))) && len(c.Arg(0)) >= shortSecret &&
			t.holds(n.Arg(1), c.Arg(0)) {
			t.strip(c, 0, n.Arg(1))
		}
		if key := c.Name(); looks && len(key) >= shortSecret && !strings.HasPrefix(key, "~") {
			keys++
			to, ok := t.rules.Secrets[strings.ToLower(n.Arg(0))]
			if !ok || keys > 1 {
				to = fmt.Sprintf("%s-%d", stripped, keys)
			}
			t.edit.Rename(c.Directive, to)
			t.changed(c.Directive, "secret", "the value of %s stays in production", n.Arg(0))
		}
	}
}
