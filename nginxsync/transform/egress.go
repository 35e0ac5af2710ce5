package transform

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
)

// code reports whether a directive holds a program.
func code(name string) bool {
	return strings.Contains(name, "_by_lua") || strings.HasPrefix(name, "perl") || strings.HasPrefix(name, "js_") ||
		strings.HasPrefix(name, "passenger_") || strings.HasPrefix(name, "mruby_") || strings.HasPrefix(name, "proxy_wasm")
}

// code refuses programs in the configuration unless the rules trust them, and names those that they trust.
func (t *transform) code(n conf.Node) {
	if !t.rules.TrustCode {
		t.refuse(n.Directive, "%s: code can open connections that no rule sees; set trustCode in the rules to accept it", n.Name())
		return
	}
	t.changed(n.Directive, "code", "%s is kept as it is: trustCode is set, and what it connects to no rule sees", n.Name())
}

// outboundDirectives are the directives with which Nginx talks to others on its own account, and those that a test Nginx cannot follow.
var outboundDirectives = set(
	"fastcgi_bind",
	"grpc_bind",
	"memcached_bind",
	"proxy_bind",
	"resolver",
	"scgi_bind",
	"ssl_ocsp",
	"ssl_stapling",
	"uwsgi_bind",
)

func (t *transform) egress(n conf.Node) {
	name := n.Name()
	switch {
	case name == "resolver":
		if t.rules.Resolver == "" {
			t.edit.Remove(n.Directive)
			t.changed(n.Directive, "resolver", "production's resolver is removed: a name that no upstream has stays unresolved")
			return
		}
		t.edit.ReplaceArgs(n.Directive, strings.Fields(t.rules.Resolver)...)
		t.changed(n.Directive, "resolver", "the resolver is %s", t.rules.Resolver)
	case n.Arg(0) == "off":
	case strings.HasSuffix(name, "_bind"):
		t.edit.ReplaceArgs(n.Directive, "off")
		t.changed(n.Directive, "egress", "%s: the source address is one of production's machines", name)
	default:
		t.edit.ReplaceArgs(n.Directive, "off")
		t.changed(n.Directive, "egress", "%s would ask the certificate's issuer", name)
	}
}

// connectingDirectives are directives of modules that open connections which no other rule sees.
var connectingDirectives = set(
	"accesslog_kafka",
	"auth_gss",
	"auth_ldap",
	"auth_ldap_servers",
	"auth_ldap_url",
	"auth_pam",
	"auth_spnego",
	"check",
	"drizzle_server",
	"exec",
	"graphite_config",
	"graylog_server",
	"health_check",
	"influxdb",
	"jaeger_agent_host",
	"kafka.broker.list",
	"kafka_broker_list",
	"kafka_log",
	"ldap_server",
	"modsecurity_rules_remote",
	"nchan_redis_server",
	"nchan_redis_url",
	"opentelemetry_config",
	"opentracing_load_tracer",
	"otel_exporter",
	"pagespeed",
	"postgres_server",
	"proxy_connect",
	"pull",
	"push",
	"state",
	"statsd_server",
	"upsync",
	"usage_report",
	"zipkin_collector_host",
	"zookeeper",
)

// inertDirectives are directives that may name an address and connect to none, or whose addresses other rules look at.
var inertDirectives = set(
	"access_log",
	"add_header",
	"add_trailer",
	"alias",
	"allow",
	"auth_basic",
	"auth_request",
	"auth_request_set",
	"debug_connection",
	"deny",
	"echo",
	"env",
	"error_log",
	"error_page",
	"geo",
	"geoip2_proxy",
	"geoip_proxy",
	"grpc_ssl_name",
	"if",
	"include",
	"index",
	"listen",
	"load_module",
	"location",
	"log_format",
	"map",
	"memcached_key",
	"mirror",
	"proxy_cache_bypass",
	"proxy_cookie_domain",
	"proxy_cookie_path",
	"proxy_no_cache",
	"proxy_redirect",
	"proxy_set_body",
	"proxy_ssl_name",
	"resolver",
	"return",
	"rewrite",
	"root",
	"secure_link",
	"secure_link_md5",
	"server",
	"server_name",
	"set",
	"set_real_ip_from",
	"split_clients",
	"ssl_ocsp_responder",
	"ssl_stapling_responder",
	"sub_filter",
	"subs_filter",
	"try_files",
	"upstream",
	"userid_domain",
	"uwsgi_ssl_name",
	"valid_referers",
	"xslt_param",
	"xslt_string_param",
)

// inertSuffixes end the names of further inert directives.
var inertSuffixes = []string{"_set_header", "_param", "_pass", "_bind", "_cache_key", "_cache_purge", "_set_headers", "_set_input_headers", "_zone", "_store"}

// tableBlocks are blocks of table entries, which are no directives.
var tableBlocks = set("map", "geo", "types", "split_clients", "charset_map", "match")

// skipChildren reports whether the rules ignore the content of the block, except include: table entries, or the
// body of an upstream that the driver replaces.
func (t *transform) skipChildren(block *conf.Directive) bool {
	return block != nil && (tableBlocks[block.Name()] || block.Name() == "upstream" && t.routed(block.Arg(0)))
}

// mayNameHost reports whether an argument of the directive may be a machine to connect to.
func mayNameHost(name string) bool {
	return !inertDirectives[name] && !outboundDirectives[name] && !slices.ContainsFunc(inertSuffixes, func(s string) bool { return strings.HasSuffix(name, s) })
}

// hostPort is what begins with a name and a port, such as consul.example:8500/v1.
var hostPort = regexp.MustCompile(`^(?:[A-Za-z0-9_-]+\.[A-Za-z0-9._-]*[A-Za-z]|localhost):[0-9]{1,5}(?:/|$)`)

// namesHost reports whether an argument names a machine, or several with commas between them. What could be any word is not seen: a
// host without dots ("kafka1:9092", "db-7"), a name without a port ("redis.internal"), a unix socket.
func namesHost(arg string) bool {
	if first, others, ok := strings.Cut(arg, ","); ok && !strings.Contains(arg, "://") {
		return namesHost(first) || namesHost(others)
	}
	if _, value, ok := strings.Cut(arg, "="); ok {
		arg = value
	}
	if strings.Contains(arg, "://") {
		return true
	}
	if !strings.ContainsAny(arg, ".:") {
		return false
	}
	host, _, _ := strings.Cut(arg, "/")
	if _, err := netip.ParseAddrPort(host); err == nil {
		return true
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && (a.Is4() || strings.Count(host, ":") > 1) {
		return true
	}
	return hostPort.MatchString(arg)
}

// connects refuses what may open a connection that the rules do not map: a directive that is known to, and any other that names a
// machine and is not known to leave it alone.
func (t *transform) connects(n conf.Node) {
	name := n.Name()
	if slices.Contains(t.rules.Accept, name) {
		t.changed(n.Directive, "accept", "%s is kept as it is: the rules accept it", name)
		return
	}
	if connectingDirectives[name] {
		t.refuse(n.Directive, "%s: it opens connections that nothing maps; name it in the rules under drop to leave it out, or under accept to keep it", name)
		return
	}
	for i := range n.NumArgs() {
		if a := n.Arg(i); namesHost(a) {
			t.refuse(n.Directive, "%s %s: nothing says what this address is for; name %s in the rules under drop to leave it out, or under accept if it connects to nothing of production",
				name, a, name)
			return
		}
	}
}

// dropped leaves out what the rules drop, and reports whether the directive is of that.
func (t *transform) dropped(n conf.Node) bool {
	if len(t.rules.Drop) == 0 {
		return false
	}
	for _, p := range n.Parents {
		if slices.Contains(t.rules.Drop, p.Name()) {
			return true
		}
	}
	if !slices.Contains(t.rules.Drop, n.Name()) {
		return false
	}
	t.edit.Remove(n.Directive)
	t.changed(n.Directive, "drop", "%s is left out", n.Name())
	return true
}
