package transform

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync/internal/listen"
)

// Rules describe how a production tree becomes the tree of a test Nginx. A directive that no rule
// covers and that would reach production is an error of Transform, not a default.
type Rules struct {
	// Listen maps each production port to the port of the test Nginx, which listens there on all
	// addresses. A listen whose port is not in the map is an error.
	Listen map[int]int `json:"listen"`
	// ListenAt maps single addresses, which come before Listen: {"10.1.1.2:80": 8081}. A key is
	// host:port as in production, with brackets around IPv6, "*:80" for all IPv4 addresses and
	// "[::]:80" for all of IPv6. It is needed where servers on different addresses have the same
	// name, different default servers, or TLS on one of them only: on one port of the test Nginx
	// they would become one.
	ListenAt map[string]int `json:"listenAt,omitempty"`
	// VIPsAt are VIPs that stand for a single address of production: {"10.1.1.2": "10.99.2.0/28"}.
	// A key is an IP address as in production, with brackets around IPv6. The servers that listen
	// on it answer on these VIPs and on no other, each port on its port of Listen; the servers of
	// all addresses answer on all other VIPs. A tester who needs two addresses of production leases
	// a VIP of each network. Like ListenAt, it tells listens apart that would become one on one
	// port, but for clients that choose no port. A network has at most 256 addresses.
	VIPsAt map[string]netip.Prefix `json:"vipsAt,omitempty"`
	// DefaultServer names, by the listen of the test Nginx ("8080", "[::]:8080", with VIPsAt
	// "10.99.2.0/28:8080"), the server that answers hosts that none has, by one of its names. It is
	// needed where addresses with different default servers share a port.
	DefaultServer map[string]string `json:"defaultServer,omitempty"`
	// KeepProxyProtocol keeps the proxy_protocol of listens. The default leaves it out, since no
	// browser speaks it.
	KeepProxyProtocol bool `json:"keepProxyProtocol,omitempty"`
	// Main sets directives of the main context, such as pid, user, daemon, worker_processes,
	// error_log. An empty value removes the directive.
	Main map[string]string `json:"main,omitempty"`
	// Paths replaces the beginning of path arguments, the longest match first: {"/var/log/nginx/":
	// "/srv/test/logs/"}. A path that Nginx writes to (logs, caches, state, pid, sockets, uploads),
	// absolute or not, and that no entry matches is an error. An entry for "syslog:" is needed
	// where production logs to syslog. The value "off" turns an access log off, and leaves out any
	// other directive or the parameter with the path.
	Paths map[string]string `json:"paths,omitempty"`
	// Certificates is a directory, an absolute path, in which the test Nginx finds a certificate
	// for each server block on a port with TLS, with that block's names: Result.Certificates, which
	// package testca issues. Then the directives that read production's keys are left out. The
	// default leaves them to Paths.
	Certificates string `json:"certificates,omitempty"`
	// TempDir is the directory of client_body_temp_path and the like where the tree sets none. The
	// default leaves the directories that Nginx was built with.
	TempDir string `json:"tempDir,omitempty"`
	// Clusters maps upstream names to clusters, without regard to the case of the upstream's name,
	// as Nginx compares them. An upstream that is not in the map is the cluster of the same name in
	// lower case: the upstream Hello_Web is hello_web. An upstream whose name is no cluster's even
	// so, such as "a..b", keeps its own servers: then Pass must map the address of each, like those
	// of an upstream without a driver.
	Clusters map[string]string `json:"clusters,omitempty"`
	// Pass maps literal addresses ("10.0.0.7:8080", "api.example.com", "unix:/run/php.sock") and
	// expressions with variables ("$backend") in proxy_pass, fastcgi_pass, grpc_pass, uwsgi_pass,
	// scgi_pass and memcached_pass to the name of an upstream, which is added when the tree has
	// none of that name, or to another literal address. The URI mapping, the Host that the upstream
	// sees and the effect of proxy_redirect stay those of production. An expression whose values
	// the tree gives as literals (by set, map, geo, split_clients) needs no entry: each value is
	// mapped like a literal target. An entry that maps an expression to itself accepts it as far as
	// it yields the name of an upstream: any other name is answered with 502, an address with 500.
	// A target that is not in the map is an error.
	Pass map[string]string `json:"pass,omitempty"`
	// PassAt are rules for single places, which come before Pass: the first that matches counts.
	PassAt []PassRule `json:"passAt,omitempty"`
	// Resolver is the argument of every resolver directive. Empty removes them: then a name that no
	// upstream has is answered with 502.
	Resolver string `json:"resolver,omitempty"`
	// KeepaliveTimes is how many times the connections of production's keepalive the driver's
	// upstreams keep: the versions on all VIPs share them. Each connection that may be kept takes
	// 200 bytes of every worker. The default is 16, and less where all upstreams would come to more
	// than 65,536 connections; 1 leaves the numbers as they are.
	KeepaliveTimes int `json:"keepaliveTimes,omitempty"`
	// Drop names directives and blocks that are left out: blocks of the main context other than
	// events and http, such as "stream" and "mail", whose upstreams nothing maps, and directives
	// that would be refused because they may connect to something.
	Drop []string `json:"drop,omitempty"`
	// Accept names directives that would be refused because they may connect to something or, as
	// dav_methods, write below a directory, directives that no rule knows, and blocks of the main
	// context such as "stream". They stay as they are: no VIP leads into such a block, and it
	// listens and connects where production does.
	Accept []string `json:"accept,omitempty"`
	// KeepStatus names directives that show the state of Nginx, such as "stub_status", and that
	// stay. The others of their kind give way to 404: they are production's monitoring, and some of
	// them change upstreams.
	KeepStatus []string `json:"keepStatus,omitempty"`
	// Secrets are the values that take the place of secrets in the text: by the name of the header,
	// parameter or variable, in lower case, such as "authorization" or "$api_token", or by that of
	// the directive, such as "secure_link_secret". A value whose name is in the map is a secret,
	// however its name looks. A secret that is not in the map becomes "stripped".
	Secrets map[string]string `json:"secrets,omitempty"`
	// TrustCode accepts Lua, Perl and njs code of the tree, which can open connections of its own.
	// Without it such code is an error.
	TrustCode bool `json:"trustCode,omitempty"`
	// AllowClients answers every client outside these networks with 403, even a client that the
	// tree allows. Empty lets all in.
	AllowClients []netip.Prefix `json:"allowClients,omitempty"`
	// TrustVIPHeader are the networks of the peers whose requests say for which VIP they are, so
	// that a backend that calls a production host name comes back to the VIP of its own caller: by
	// the header X-Env-VIP, or by the member sluice-vip of the header baggage (W3C Baggage), which
	// OpenTelemetry carries through services. With a driver, instances get that member with each
	// request. A trusted peer's value that is no address, or two that differ, is answered with 400;
	// the values of other peers are ignored. The default trusts none, and adds no baggage.
	TrustVIPHeader []netip.Prefix `json:"trustVIPHeader,omitempty"`
	// Selector names a header or a cookie that says for which VIP a request is that comes to an
	// address which is none. It needs a driver. The default is none.
	Selector Selector `json:"selector,omitzero"`
	// Snippets holds the parts that the driver needs in the configuration.
	Snippets Snippets `json:"-"`
}

// Selector is the name of a header or of a cookie, one of them. Its value is a VIP with a live
// lease, or a task of Snapshot.Tasks of package nginxsync. Another value is answered with 410 when
// it is a VIP of a pool or the name of a task, else with 400. On an address that is a VIP it does
// not count. Any client may send it, as any client may connect to a VIP.
type Selector struct {
	Header string `json:"header,omitempty"` // letters, digits and "-"
	Cookie string `json:"cookie,omitempty"` // letters, digits, "_" and "-"
}

// PassRule maps a target where it stands. An empty field matches everything; To is required and has
// the form of a value of Rules.Pass.
type PassRule struct {
	// the file's name or a pattern of path.Match, such as "conf.d/*.conf"
	File string `json:"file,omitempty"`
	// one of the server's names, as written
	Server string `json:"server,omitempty"`
	// the arguments of a location around it, such as "/api/" or "~ \\.php$"
	Location string `json:"location,omitempty"`
	// a target, in the form of a key of Rules.Pass
	Target string `json:"target,omitempty"`
	To     string `json:"to"`
}

// TreeID stands for Result.ID in the texts of Snippets.
const TreeID = "{{tree}}"

// SelectID stands in the texts of Snippets.Once for what names the VIP of a request besides its
// address: words of "peers" for Rules.TrustVIPHeader, with $sluice_peer, "1" for one of them, and
// "header NAME" or "cookie NAME" for Rules.Selector. The driver sets $sluice_vip, and with peers
// $sluice_baggage, which instances get.
const SelectID = "{{select}}"

// Snippets holds the parts that a driver adds to the configuration. They may use $sluice_vip, the
// VIP of the request, and set $sluice_version, which the response header shows, $sluice_reason,
// which X-Sluice-Reason shows, and $sluice_fleeting, which keeps an answer out of every cache.
// TreeID in HTTP and Once gives way to the id of the tree.
type Snippets struct {
	// Modules are shared objects, loaded in this order, each unless the tree loads one of the same
	// file name.
	Modules []string
	// Defaults are directives of the http context, each left out when the tree has one of the same
	// name there.
	Defaults []string
	// Once are blocks of the http context that may stand only once: the body goes in front of that
	// of the tree's own.
	Once []Block
	// HTTP is text for the http context.
	HTTP string
	// Ended is a block of the http context, for a tree with an upstream that the driver serves. It
	// runs when a request has ended. Since a block further in that has a directive of the name
	// would hide it, the body goes in front of each of those too, as for the blocks below.
	Ended Block
	// Enter is a directive for the top of every server. It sets the path of a request that is not to
	// go on: to ".sluice/gone", which answers 410 with $sluice_text, or ".sluice/bad", which answers
	// 400; of a client of gRPC in a tree with grpc_pass to ".sluice/grpc-gone" and
	// ".sluice/grpc-bad". The path that a client sends begins with a slash, so none of these is its
	// own.
	Enter string
	// Token is a block of the http context, for a tree that keeps something over time (cached
	// pages, counts of limits): it sets $sluice_token, under which that is kept, before any
	// directive of the tree sets a variable. It must differ whenever the versions that serve on the
	// VIP differ. Without it $sluice_token is the VIP.
	Token Block
	// URI is a block of the http context, for a tree with caches whose key production leaves to
	// Nginx: it sets the variable that $sluice_at names, as luadriver describes. Without it the key
	// is made of $request_uri.
	URI Block
	// Version is the directive that sets $sluice_version, in a location whose answers are cached,
	// to the version of the cluster that made the pages under the token. The cluster may be a
	// variable. Nil leaves the version of a page open.
	Version func(cluster string) string
	// Excepted is a block of a location that does what Version does, for the methods that
	// limit_except excludes: Nginx runs none of the location's rewrites for these. Nil leaves the
	// version of their pages open.
	Excepted func(cluster string) Block
	// Unavailable are blocks of the http context, for a tree that asks upstreams in another
	// protocol than plain HTTP.
	Unavailable []Block
	// Methods are the balancing methods that the driver honours. The others are reported as left
	// out.
	Methods []string
	// Upstream returns the text that takes the place of the server lines of an upstream. Nil leaves
	// upstreams static: then Rules.Pass must map the address of each server.
	Upstream func(Upstream) string
}

// hooks are all blocks that a block of the tree would hide.
func (s Snippets) hooks() []Block {
	return append([]Block{s.Ended, s.Token, s.URI}, s.Unavailable...)
}

// Block is a block directive.
type Block struct{ Name, Body string }

// Upstream is an upstream block of the tree.
type Upstream struct {
	Name    string
	Cluster string
	// Method is the balancing directive of the tree with its arguments, such as ["hash", "$uri",
	// "consistent"], nil for round robin. It is not in the transformed tree.
	Method []string
	// MaxFails, FailTimeout, MaxConns and SlowStart are max_fails, fail_timeout, max_conns and
	// slow_start of the server lines when all have the same, else empty. Weights and backups are
	// not here: they belong to production's instances, those of the test environment come with
	// their own.
	MaxFails, FailTimeout, MaxConns, SlowStart string
	// Zone is whether the upstream has a zone: then Nginx's workers share the requests in flight
	// and the failures of each instance, and take turns together.
	Zone bool
	// Plain is whether all that pass to the upstream speak plain HTTP/1 to it: no TLS, HTTP/2,
	// FastCGI, gRPC, uwsgi, SCGI or memcached.
	Plain bool
}

// ErrInvalid is in the chain of errors about rules that are not valid.
var ErrInvalid = errors.New("invalid")

// ReadRules reads rules from JSON, as UnmarshalJSON does, and validates them.
func ReadRules(r io.Reader) (Rules, error) {
	var rules Rules
	if err := json.NewDecoder(r).Decode(&rules); err != nil {
		return Rules{}, fmt.Errorf("rules: %w: %w", err, ErrInvalid)
	}
	return rules, rules.Validate()
}

// oldNames are the names of fields that earlier versions wrote.
var oldNames = map[string]string{
	"allow_clients":    "allowClients",
	"keep_status":      "keepStatus",
	"temp_dir":         "tempDir",
	"trust_code":       "trustCode",
	"trust_vip_header": "trustVIPHeader",
}

// UnmarshalJSON reads the object that MarshalJSON writes. It accepts the older names of fields,
// such as temp_dir for tempDir, one of the two. A field that is not known is an error.
func (r *Rules) UnmarshalJSON(text []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	known := fieldNames()
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		to, old := oldNames[name]
		switch {
		case old && fields[to] != nil:
			return fmt.Errorf("both %q and %q are given: keep %q", name, to, to)
		case old:
			fields[to] = fields[name]
			delete(fields, name)
		case !known[name]:
			return fmt.Errorf("unknown field %q", name)
		}
	}
	renamed, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	type plain Rules // without this method
	return json.Unmarshal(renamed, (*plain)(r))
}

// fieldNames are the names in JSON of the fields of Rules.
func fieldNames() map[string]bool {
	known := map[string]bool{}
	for t, i := reflect.TypeFor[Rules](), 0; i < t.NumField(); i++ {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "-" {
			known[name] = true
		}
	}
	return known
}

// undroppable holds the directives that other rules edit.
var undroppable = set("http", "events", "server", "listen", "location", "upstream", "include",
	"map", "geo")

// Validate reports everything that is wrong with the rules, each problem with its field.
func (r Rules) Validate() error {
	var errs []error
	from := map[int]int{}
	for _, port := range slices.Sorted(maps.Keys(r.Listen)) {
		to := r.Listen[port]
		if port < 1 || port > 65535 || to < 1 || to > 65535 {
			errs = append(errs, fmt.Errorf("rules: listen %d: %d, want ports 1 to 65535", port, to))
		}
		if other, ok := from[to]; ok {
			errs = append(errs, fmt.Errorf("rules: listen %d and %d both become %d, want a port "+
				"of its own for each", other, port, to))
		}
		from[to] = port
	}
	for _, address := range slices.Sorted(maps.Keys(r.ListenAt)) {
		from, ok := listen.Parse(address)
		if to := r.ListenAt[address]; !ok || from.First != from.Last || to < 1 || to > 65535 {
			errs = append(errs, fmt.Errorf("rules: listenAt %q: %d, want an address with a port, "+
				"and a port from 1 to 65535", address, to))
		}
	}
	if r.KeepaliveTimes < 0 || r.KeepaliveTimes > 1024 {
		errs = append(errs, fmt.Errorf("rules: keepaliveTimes: %d, want 1 to 1024, or 0 for the "+
			"default", r.KeepaliveTimes))
	}
	errs = append(errs, r.vipsAt()...)
	for _, m := range []struct {
		field string
		texts map[string]string
	}{{"main", r.Main}, {"paths", r.Paths}, {"pass", r.Pass}, {"clusters", r.Clusters},
		{"secrets", r.Secrets}, {"defaultServer", r.DefaultServer}} {
		for _, key := range slices.Sorted(maps.Keys(m.texts)) {
			if key == "" || strings.ContainsAny(key+m.texts[key], "\n\r;{}") && m.field != "pass" ||
				m.field == "pass" && m.texts[key] == "" {
				errs = append(errs, fmt.Errorf("rules: %s %q: %q, want text without line breaks, "+
					"\";\" and braces", m.field, key, m.texts[key]))
			}
			if m.field == "clusters" {
				if err := names.Cluster(m.texts[key]); err != nil {
					errs = append(errs, fmt.Errorf("rules: clusters %q: %w", key, err))
				}
			}
		}
	}
	errs = append(errs, r.sameUpstreams()...)
	for i, p := range r.PassAt {
		if _, err := path.Match(p.File, ""); err != nil || p.To == "" ||
			strings.ContainsAny(p.To, "\n\r;{}") {
			errs = append(errs, fmt.Errorf("rules: passAt %d: file %q, to %q: want a pattern of "+
				"path.Match, and a target", i, p.File, p.To))
		}
	}
	for _, name := range r.Drop {
		if undroppable[name] {
			errs = append(errs, fmt.Errorf("rules: drop %q: the transform works on these; drop "+
				"what stands in them", name))
		}
	}
	if c := r.Certificates; c != "" && (!path.IsAbs(c) || strings.ContainsAny(c, " \t\n\r;{}\"'\\$")) {
		errs = append(errs, fmt.Errorf("rules: certificates %q: want the absolute path of a "+
			"directory, without spaces, quotes, \"$\", \";\" and braces", c))
	}
	if strings.ContainsAny(r.TempDir+r.Resolver, "\n\r;{}\"") {
		errs = append(errs, fmt.Errorf("rules: tempDir %q, resolver %q: want text without line "+
			"breaks, quotes, \";\" and braces", r.TempDir, r.Resolver))
	}
	for _, networks := range []struct {
		field string
		list  []netip.Prefix
	}{{"allowClients", r.AllowClients}, {"trustVIPHeader", r.TrustVIPHeader}} {
		for _, p := range networks.list {
			if !p.IsValid() {
				errs = append(errs, fmt.Errorf("rules: %s: %s, want a network such as 10.0.0.0/8",
					networks.field, p))
			}
		}
	}
	if s := r.Selector; s != (Selector{}) {
		taken := set("baggage", "connection", "cookie", "host", "x-env-vip")
		if (s.Header == "") == (s.Cookie == "") || !headerName.MatchString(s.Header+"a") ||
			!cookieName.MatchString(s.Cookie+"a") || taken[strings.ToLower(s.Header)] {
			errs = append(errs, fmt.Errorf("rules: selector: header %q, cookie %q: want one of "+
				"them, a header of letters, digits and \"-\" that has no meaning of its own, or a "+
				"cookie of letters, digits, \"_\" and \"-\"", s.Header, s.Cookie))
		}
	}
	for i, err := range errs {
		errs[i] = fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return errors.Join(errs...)
}

var (
	headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	cookieName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// sameUpstreams reports keys of Clusters that Nginx takes for the same upstream.
func (r Rules) sameUpstreams() (errs []error) {
	first := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(r.Clusters)) {
		if other, ok := first[strings.ToLower(key)]; ok {
			errs = append(errs, fmt.Errorf("rules: clusters %q and %q: Nginx takes them for the "+
				"same upstream, want one", other, key))
		}
		first[strings.ToLower(key)] = key
	}
	return errs
}

// digest identifies the rules and the snippets.
func (r Rules) digest() string {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(r)
	s := r.Snippets
	if s.Upstream != nil {
		fmt.Fprintf(h, "%q", s.Upstream(Upstream{Name: "a", Cluster: "b"}))
	}
	if s.Version != nil {
		fmt.Fprintf(h, "%q", s.Version("a"))
	}
	if s.Excepted != nil {
		fmt.Fprintf(h, "%q", s.Excepted("a"))
	}
	fmt.Fprintf(h, "%q %q %q %q %q %q %q %q", s.Modules, s.Defaults, s.Once, s.HTTP, s.Ended,
		s.Token, s.URI, s.Unavailable)
	return hex.EncodeToString(h.Sum(nil))
}
