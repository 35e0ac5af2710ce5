package nginxsync

import (
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// statusPages show, and some change, the state of the Nginx that they run in.
var statusPages = set("stub_status", "status", "api", "server_status", "check_status", "dyups_interface", "upstream_show", "status_format",
	"vhost_traffic_status_display", "vhost_traffic_status_display_format", "nginx_status", "live_activity_monitoring", "upstream_conf", "purge_all",
	"proxy_cache_purge", "fastcgi_cache_purge", "uwsgi_cache_purge", "scgi_cache_purge")

func (t *transform) status(n conf.Node) {
	name := n.Name()
	if !statusPages[name] || slices.Contains(t.rules.KeepStatus, name) {
		return
	}
	if parent := n.Parent(); parent != nil && parent.Name() == "location" && !strings.HasSuffix(name, "_format") && name != "upstream_conf" {
		t.edit.Replace(n.Directive, "return 404;")
		t.changed(n.Directive, "status", "%s gives way to 404: name it in the rules under keep_status to keep it", name)
		return
	}
	t.edit.Remove(n.Directive)
	t.changed(n.Directive, "status", "%s is left out: name it in the rules under keep_status to keep it", name)
}

// secretName is a header, a parameter or a variable whose value is one.
var secretName = regexp.MustCompile(`(?i)authorization|api[-_]?key|access[-_]?key|token|secret|passw|credential|private[-_]?key|signing[-_]?key`)

// secretive are the directives that may hold one.
var secretive = set("proxy_set_header", "grpc_set_header", "fastcgi_param", "uwsgi_param", "scgi_param", "add_header", "set", "secure_link_secret",
	"secure_link_md5", "env", "map")

// secret reports whether what has the name has a secret for a value.
func (t *transform) secret(name string) bool {
	yes, ok := t.secretly[name]
	if !ok {
		yes = secretName.MatchString(name)
		t.secretly[name] = yes
	}
	return yes
}

// variablePart is what stands for a value that is known only at run time.
var variablePart = regexp.MustCompile(`\$\{?\w+\}?`)

const stripped = "stripped"

// A variable with a shorter value steers the configuration: "set $has_token no".
const shortSecret = 8

// secrets replaces the values of secrets that stand in the text. A value that consists of variables is none.
func (t *transform) secrets(n conf.Node) {
	name, value := "", 1
	switch n.Name() {
	case "proxy_set_header", "grpc_set_header", "fastcgi_param", "uwsgi_param", "scgi_param", "add_header":
		name = n.Arg(0)
	case "set":
		if len(n.Arg(1)) < shortSecret {
			return
		}
		name = n.Arg(0)
	case "secure_link_secret", "secure_link_md5":
		name, value = n.Name(), 0
	case "env":
		t.env(n)
		return
	case "map":
		t.secretMap(n)
		return
	default:
		return
	}
	if value == 1 && !t.secret(name) || n.NumArgs() <= value {
		return
	}
	t.strip(n, value, name)
}

// strip replaces what is literal in the argument.
func (t *transform) strip(n conf.Node, i int, name string) {
	old := n.Arg(i)
	to, ok := t.rules.Secrets[strings.ToLower(name)]
	if !ok {
		to = literals(old)
	}
	if to == old {
		return
	}
	t.edit.ReplaceArg(n.Directive, i, to)
	t.changed(n.Directive, "secret", "the value of %s stays in production", name)
}

// flags are values that steer the configuration and are no secrets.
var flags = set("0", "1", "on", "off", "yes", "no", "true", "false", "none")

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// literals is the text with each part that is no variable replaced, from its first letter or digit to its last.
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
	if !ok || !t.secret(name) || value == "" {
		return
	}
	to, ok := t.rules.Secrets[strings.ToLower(name)]
	if !ok {
		to = stripped
	}
	t.edit.ReplaceArg(n.Directive, 0, name+"="+to)
	t.changed(n.Directive, "secret", "the value of %s stays in production", name)
}

// secretMap strips the values of a map that yields a secret.
func (t *transform) secretMap(n conf.Node) {
	if !t.secret(n.Arg(1)) {
		return
	}
	for c := range n.Children() {
		if c.NumArgs() == 1 && c.Name() != "include" && len(c.Arg(0)) >= shortSecret {
			t.strip(c, 0, n.Arg(1))
		}
	}
}
