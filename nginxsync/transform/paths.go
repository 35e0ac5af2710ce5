package transform

import (
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// main sets what Rules.Main names and drops or refuses what carries traffic outside the http context.
func (t *transform) main() {
	set := map[string]bool{}
	for n := range t.tree.Top() {
		name := n.Name()
		value, named := t.rules.Main[name]
		switch {
		case slices.Contains(t.rules.Drop, name): // done
		case n.IsBlock() && name != "http" && name != "events" && slices.Contains(t.rules.Accept, name):
			t.changed(n.Directive, "accept", "%s is kept as it is, with the ports and the machines that it names: the rules accept it", name)
			t.acceptedBlocks[n.Directive] = true
		case n.IsBlock() && name != "http" && name != "events":
			t.refuse(n.Directive, "%s block: nothing maps its upstreams; name it in the rules under drop to leave it out, or under accept to keep it as it is", name)
		case !named || name == "load_module":
		case value == "" || set[name]:
			t.edit.Remove(n.Directive)
			t.changed(n.Directive, "main", "%s is removed", name)
		default:
			set[name] = true
			t.edit.Replace(n.Directive, name+" "+value+";")
			t.changed(n.Directive, "main", "%s is set to %s", name, value)
		}
	}
	var head strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t.rules.Main)) {
		if value := t.rules.Main[name]; value != "" && !set[name] {
			head.WriteString(name + " " + value + ";\n")
			t.changes = append(t.changes, change{rule: "main", reason: name + " is added"})
		}
	}
	head.WriteString(t.modules())
	if head.Len() > 0 {
		t.edit.PrependFile(t.tree.Main, strings.TrimSuffix(head.String(), "\n"))
	}
}

func (t *transform) modules() string {
	loaded := map[string]bool{}
	for n := range t.tree.Find("load_module") {
		loaded[path.Base(n.Arg(0))] = true
	}
	var b strings.Builder
	for _, m := range t.rules.Snippets.Modules {
		if !loaded[path.Base(m)] {
			b.WriteString("load_module " + conf.Quote(m) + ";\n")
			t.changes = append(t.changes, change{rule: "driver", reason: "loads " + m})
		}
	}
	return b.String()
}

// writes are the directives whose first argument is a path that Nginx writes to, reads those that it only reads.
var (
	writes = set(
		"access_log",
		"acme_client_path",
		"client_body_temp_path",
		"error_log",
		"fastcgi_cache_path",
		"fastcgi_temp_path",
		"google_perftools_profiles",
		"grpc_ssl_key_log",
		"lock_file",
		"lua_ssl_key_log",
		"pid",
		"proxy_cache_path",
		"proxy_ssl_key_log",
		"proxy_temp_path",
		"scgi_cache_path",
		"scgi_temp_path",
		"ssl_key_log",
		"upload_state_store",
		"upload_store",
		"uwsgi_cache_path",
		"uwsgi_ssl_key_log",
		"uwsgi_temp_path",
		"vhost_traffic_status_dump",
		"working_directory",
	)
	reads = set(
		"alias",
		"auth_basic_user_file",
		"geoip_city",
		"geoip_country",
		"geoip_org",
		"grpc_ssl_certificate",
		"grpc_ssl_certificate_key",
		"grpc_ssl_crl",
		"grpc_ssl_password_file",
		"grpc_ssl_trusted_certificate",
		"js_import",
		"js_path",
		"load_module",
		"lua_ssl_certificate",
		"lua_ssl_certificate_key",
		"lua_ssl_crl",
		"lua_ssl_trusted_certificate",
		"modsecurity_rules_file",
		"perl_modules",
		"proxy_ssl_certificate",
		"proxy_ssl_certificate_key",
		"proxy_ssl_crl",
		"proxy_ssl_password_file",
		"proxy_ssl_trusted_certificate",
		"root",
		"ssl_certificate",
		"ssl_certificate_key",
		"ssl_client_certificate",
		"ssl_crl",
		"ssl_dhparam",
		"ssl_password_file",
		"ssl_session_ticket_key",
		"ssl_stapling_file",
		"ssl_trusted_certificate",
		"uwsgi_ssl_certificate",
		"uwsgi_ssl_certificate_key",
		"uwsgi_ssl_crl",
		"uwsgi_ssl_password_file",
		"uwsgi_ssl_trusted_certificate",
		"xslt_stylesheet",
	)
)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

// paths maps path arguments and makes absolute includes point into the new tree.
func (t *transform) paths(n conf.Node) {
	name := n.Name()
	if _, ok := t.rules.Main[name]; ok && len(n.Parents) == 0 {
		return
	}
	value := n.Arg(0)
	switch {
	case name == "include":
		t.include(n)
		return
	case !writes[name] && !reads[name], n.NumArgs() == 0:
		return
	}
	if (name == "access_log" || name == "error_log") && (value == "off" || value == "on" || value == "stderr") {
		return
	}
	if to, ok := t.mapped(value); ok {
		switch {
		case to != "off":
			t.edit.ReplaceArg(n.Directive, 0, to)
		case name == "error_log": // cannot be off
			t.edit.Remove(n.Directive)
		default:
			t.edit.ReplaceArgs(n.Directive, to)
		}
		t.changed(n.Directive, "paths", "%s is mapped to %s", value, to)
		return
	}
	if writes[name] && (path.IsAbs(value) || strings.HasPrefix(value, "syslog:") || strings.HasPrefix(value, "$")) {
		t.refuse(n.Directive, "%s %s: nothing maps this path, which Nginx writes to; map it in the rules under paths", name, value)
	}
}

// include makes an include point into the new tree where its own path does not.
func (t *transform) include(n conf.Node) {
	to, err := t.tree.IncludeName(n.Directive)
	dir := path.Dir(t.tree.Main.Name)
	if err != nil || path.Join(dir, n.Arg(0)) == to && !path.IsAbs(n.Arg(0)) {
		return // one with an error ended the reading
	}
	if dir != "." {
		to = strings.Repeat("../", strings.Count(dir, "/")+1) + to
	}
	t.edit.ReplaceArg(n.Directive, 0, to)
	t.changed(n.Directive, "paths", "the include points into the transformed tree")
}

// mapped is the value with its beginning replaced by the longest entry of Rules.Paths that matches.
func (t *transform) mapped(value string) (string, bool) {
	best := ""
	for from := range t.rules.Paths {
		if strings.HasPrefix(value, from) && len(from) > len(best) {
			best = from
		}
	}
	if best == "" {
		return value, false
	}
	to := t.rules.Paths[best]
	if to == "off" {
		return to, true
	}
	return to + value[len(best):], true
}

// variables defines $sluice_vip, the VIP of the request, and what AllowClients needs.
func (t *transform) variables() string {
	var b strings.Builder
	peer := "$remote_addr"
	if len(t.below("set_real_ip_from")) > 0 {
		peer = "$realip_remote_addr" // $remote_addr is what the peer claims
	}
	geo := func(variable string, networks []netip.Prefix) {
		b.WriteString("geo " + peer + " " + variable + " {\n    default 0;\n")
		for _, p := range networks {
			b.WriteString("    " + p.Masked().String() + " 1;\n")
		}
		b.WriteString("}\n")
	}
	if len(t.rules.AllowClients) > 0 {
		networks := t.rules.AllowClients
		b.WriteString("# Who may use this Nginx at all.\n")
		geo("$sluice_client", networks)
	}
	b.WriteString("# The VIP of a request is the address that it came to.\n")
	if len(t.rules.TrustVIPHeader) == 0 {
		b.WriteString("map $server_addr $sluice_vip {\n    default $server_addr;\n}\n")
	} else {
		geo("$sluice_peer", t.rules.TrustVIPHeader)
		// No regular expression: its match would take the captures of the request away.
		b.WriteString("# A trusted peer may name another one, to come back to the VIP of its own caller.\n" +
			"map $http_x_env_vip $sluice_named {\n    \"\" $server_addr;\n    default $http_x_env_vip;\n}\n" +
			"map $sluice_peer $sluice_vip {\n    default $server_addr;\n    1 $sluice_named;\n}\n")
	}
	b.WriteString("# The driver sets these.\nmap \"\" $sluice_token {\n    default $sluice_vip;\n}\n")
	for _, name := range []string{"version", "reason", "fleeting"} {
		b.WriteString("map \"\" $sluice_" + name + " {\n    default \"\";\n}\n")
	}
	return b.String()
}
