package transform

import (
	"fmt"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

const vipVariable = "$sluice_vip"

// neverEmpty are keys with which a limit always counts. A limit does not count a request whose key is empty, and must not
// begin to because the VIP was added.
var neverEmpty = set(
	"$binary_remote_addr",
	"$connection",
	"$host",
	"$remote_addr",
	"$request_uri",
	"$server_addr",
	"$uri",
)

var keys = set(
	"fastcgi_cache_key",
	"fastcgi_store",
	"limit_conn_zone",
	"limit_req_zone",
	"memcached_key",
	"proxy_cache_key",
	"proxy_store",
	"scgi_cache_key",
	"scgi_store",
	"uwsgi_cache_key",
	"uwsgi_store",
)

// keyed adds the VIP to keys under which versions would share a cached page or a limit.
func (t *transform) keyed(n conf.Node) {
	switch n.Name() {
	case "proxy_cache_key", "fastcgi_cache_key", "uwsgi_cache_key", "scgi_cache_key", "memcached_key":
		t.edit.ReplaceArg(n.Directive, 0, n.Arg(0)+vipVariable)
		t.changed(n.Directive, "cache-key", "a page of one version must not be served on the VIP of another")
	case "proxy_store", "fastcgi_store", "uwsgi_store", "scgi_store":
		if n.Arg(0) != "off" {
			t.edit.ReplaceArgs(n.Directive, "off")
			t.changed(n.Directive, "cache-key", "%s: a page of one version must not be stored for the VIP of another", n.Name())
		}
	case "limit_req_zone", "limit_conn_zone":
		key := n.Arg(0)
		if neverEmpty[key] || !strings.HasPrefix(key, "$") {
			t.edit.ReplaceArg(n.Directive, 0, key+vipVariable)
		} else {
			t.keys++
			variable := fmt.Sprintf("$sluice_key_%d", t.keys)
			fmt.Fprintf(&t.extra, "# %s %s: an empty key is not counted.\nmap %s %s {\n    \"\" \"\";\n    default %s;\n}\n",
				n.Pos(), n.Name(), conf.Quote(key), variable, conf.Quote(key+vipVariable))
			t.edit.ReplaceArg(n.Directive, 0, variable)
		}
		t.changed(n.Directive, "limit-key", "the load on one VIP must not count for another")
	}
}

// defaults states what Nginx would do by default and what mixes versions or writes outside the given folders.
func (t *transform) defaults(http conf.Node) {
	have := map[string]bool{}
	for n := range http.Children() {
		have[n.Name()] = true
	}
	cached := false
	for _, n := range t.below("proxy_cache") {
		cached = cached || n.Arg(0) != "off"
	}
	if cached && !have["proxy_cache_key"] {
		t.extra.WriteString("# The default key, and the VIP.\nproxy_cache_key $scheme$proxy_host$request_uri" + vipVariable + ";\n")
		t.changed(http.Directive, "cache-key", "the default key is stated, with the VIP")
	}
	if t.rules.TempDir != "" {
		for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			if directive := name + "_temp_path"; !have[directive] {
				t.extra.WriteString(directive + " " + conf.Quote(strings.TrimSuffix(t.rules.TempDir, "/")+"/"+name) + ";\n")
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
		t.edit.Prepend(http.Directive, "log_format sluice_combined '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent '\n"+
			"    '\"$http_referer\" \"$http_user_agent\" vip="+vipVariable+" version=$sluice_version';")
	}
}

func (t *transform) logFormat(n conf.Node) {
	last := n.NumArgs() - 1
	if last < 1 || strings.Contains(n.Text(), vipVariable) {
		return
	}
	if n.Arg(1) == "escape=json" && strings.HasSuffix(strings.TrimSpace(n.Arg(last)), "}") {
		value := strings.TrimSpace(n.Arg(last))
		value = strings.TrimSuffix(value, "}")
		sep := ","
		if strings.HasSuffix(strings.TrimSpace(value), "{") {
			sep = ""
		}
		t.edit.ReplaceArg(n.Directive, last, value+sep+`"sluice_vip":"`+vipVariable+`","sluice_version":"$sluice_version"}`)
	} else {
		t.edit.InsertArg(n.Directive, last+1, "' vip="+vipVariable+" version=$sluice_version'")
	}
	t.changed(n.Directive, "log-format", "a line says which VIP and version it is about")
}

// header is a directive that is inherited only by blocks that have none of its kind: where a block has its own, the
// added one must be repeated.
type header struct {
	directive, needs string // needs: the directive without which the tree has no use for it; empty for always
	lines            []string
}

var headers = []header{
	{"add_header", "", []string{"add_header X-Sluice-Vip " + vipVariable + " always;", "add_header X-Sluice-Version $sluice_version always;"}},
	{"proxy_set_header", "", []string{"proxy_set_header X-Env-VIP " + vipVariable + ";"}},
	{"grpc_set_header", "grpc_pass", []string{"grpc_set_header X-Env-VIP " + vipVariable + ";"}},
	{"fastcgi_param", "fastcgi_pass", []string{"fastcgi_param HTTP_X_ENV_VIP " + vipVariable + ";"}},
	{"uwsgi_param", "uwsgi_pass", []string{"uwsgi_param HTTP_X_ENV_VIP " + vipVariable + ";"}},
	{"scgi_param", "scgi_pass", []string{"scgi_param HTTP_X_ENV_VIP " + vipVariable + ";"}},
}

func (t *transform) headers(http conf.Node) {
	for _, h := range headers {
		if h.needs != "" && len(t.below(h.needs)) == 0 {
			continue
		}
		text := strings.Join(h.lines, "\n")
		t.extra.WriteString(text + "\n")
		reason := "has " + h.directive + " of its own, which would hide the added ones"
		for _, block := range t.info(h.directive).blocks {
			if block != http.Directive {
				t.edit.Append(block, text)
				t.note(block, "headers", reason)
			}
		}
	}
}
