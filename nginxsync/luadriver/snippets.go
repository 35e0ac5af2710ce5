package luadriver

import (
	"cmp"
	"embed"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

//go:embed lua/*.lua
var luaFiles embed.FS

// program is the driver's Lua code: the files share their locals, so each stands before the files
// that use its declarations.
var program = func() string {
	var b strings.Builder
	for _, name := range []string{"base", "hash", "zone", "peers", "methods",
		"slots", "store", "push", "wake",
		"routes", "balance", "admin", "inflight", "enter", "choose", "token"} {
		text, err := luaFiles.ReadFile("lua/" + name + ".lua")
		if err != nil {
			panic(err)
		}
		b.Write(text)
	}
	return b.String()
}()

// SnippetConfig configures Snippets. Socket is required.
type SnippetConfig struct {
	// Socket is the absolute path of the unix socket of the admin endpoint.
	Socket string
	// Unavailable is the absolute path of the unix socket that answers 503 for clusters without an
	// instance. The user of the workers must be able to enter its directory. The default is Socket
	// and ".503".
	Unavailable string
	// StateFile is the agent's state file, which Nginx reads when it starts. Empty means that it
	// starts without routes.
	StateFile string
	// Memory is the size of the shared dictionary in bytes: about 250 bytes a cluster of a scope,
	// and 50 more an instance. A full push over other routes needs room for both. The default is 16
	// MiB.
	Memory int
	// Tick is how often a worker without requests looks for another generation by itself. A push
	// wakes it at once; where Nginx cannot have UDP sockets on 127.0.0.1, which that takes, a worker
	// looks every 20 ms at least. The default is 300 ms.
	Tick time.Duration
	// ModulesDir is the directory of Nginx's modules. The default is /usr/lib/nginx/modules.
	ModulesDir string
	// BuiltIn is whether Nginx has the Lua module compiled in, as OpenResty and Tengine have: then
	// no module is loaded.
	BuiltIn bool
	// LuaPath is lua_package_path where the tree sets none: it must find resty.core. The default is
	// "/usr/share/lua/5.1/?.lua;;".
	LuaPath string

	crash string // for tests: a file that names a step of a push at which the worker ends
	alone bool   // for tests: workers do not wake each other
}

// Validate reports everything that is wrong with the configuration, with nginxsync.ErrInvalid in
// its chain: paths that are not absolute or have other characters than letters, digits and "/._-",
// since they become a part of Nginx's configuration, and negative numbers.
func (cfg SnippetConfig) Validate() error {
	_, err := cfg.withDefaults()
	return err
}

func (cfg SnippetConfig) withDefaults() (SnippetConfig, error) {
	cfg.Unavailable = cmp.Or(cfg.Unavailable, cfg.Socket+".503")
	cfg.ModulesDir = cmp.Or(cfg.ModulesDir, "/usr/lib/nginx/modules")
	cfg.LuaPath = cmp.Or(cfg.LuaPath, "/usr/share/lua/5.1/?.lua;;")
	p := check.Problems{Package: "luadriver", Sentinel: nginxsync.ErrInvalid}
	for _, f := range []struct{ field, path string }{
		{"Socket", cfg.Socket},
		{"Unavailable", cfg.Unavailable},
		{"StateFile", cmp.Or(cfg.StateFile, "/none")},
		{"ModulesDir", cfg.ModulesDir},
	} {
		if !plainPath.MatchString(f.path) {
			p.Add(f.field, "%q: want an absolute path of letters, digits and /._-", f.path)
		}
	}
	if !plainLuaPath.MatchString(cfg.LuaPath) {
		p.Add("LuaPath", "%q: want printable ASCII without quotes, backslashes and $", cfg.LuaPath)
	}
	check.Number(&p, "Memory", &cfg.Memory, 16<<20)
	p.Duration("Tick", &cfg.Tick, 300*time.Millisecond)
	return cfg, p.Err()
}

// Snippets returns the driver's parts of the configuration, for transform.Rules. It panics where
// Validate returns an error.
func Snippets(cfg SnippetConfig) transform.Snippets {
	cfg, err := cfg.withDefaults()
	if err != nil {
		panic(err)
	}
	crash := "nil"
	if cfg.crash != "" {
		crash = strconv.Quote(cfg.crash)
	}
	lua := fmt.Sprintf(
		`{ state_file = %q, unavailable = "unix:%s", tick = %g, tree = %q, select = %q, `+
			`crash = %s, alone = %t }`, cfg.StateFile, cfg.Unavailable, cfg.Tick.Seconds(),
		transform.TreeID, transform.SelectID, crash, cfg.alone)
	var modules []string
	if !cfg.BuiltIn {
		modules = []string{cfg.ModulesDir + "/ndk_http_module.so", cfg.ModulesDir +
			"/ngx_http_lua_module.so"}
	}
	return transform.Snippets{
		Modules:  modules,
		Defaults: []string{fmt.Sprintf("lua_package_path %q;", cfg.LuaPath)},
		HTTP:     httpSnippet(cfg),
		Once: []transform.Block{
			{Name: "init_by_lua_block", Body: strings.Replace(program, "CONFIG", lua, 1)},
			{Name: "init_worker_by_lua_block", Body: `package.loaded["sluice.routes"].start()`},
		},
		Methods: []string{"least_conn", "hash", "ip_hash", "random", "sticky", "session_sticky"},
		Ended: transform.Block{Name: "log_by_lua_block",
			Body: `package.loaded["sluice.routes"].done()`},
		Upstream: upstream,
		Enter:    `set_by_lua_block $sluice_entered { package.loaded["sluice.routes"].enter() }`,
		Token: transform.Block{Name: "server_rewrite_by_lua_block",
			Body: `package.loaded["sluice.routes"].token()`},
		URI: transform.Block{Name: "rewrite_by_lua_block",
			Body: `package.loaded["sluice.routes"].uri()`},
		Version: version,
		Excepted: func(cluster string) transform.Block {
			return transform.Block{Name: "rewrite_by_lua_block", Body: "package.loaded[\"sluice.routes\"]" +
				".excepted(" + luaCluster(cluster) + ")"}
		},
		Unavailable: []transform.Block{
			{Name: "header_filter_by_lua_block",
				Body: `package.loaded["sluice.routes"].unavailable_header()`},
			{Name: "body_filter_by_lua_block",
				Body: `package.loaded["sluice.routes"].unavailable_body()`},
		},
	}
}

// version is the directive that sets $sluice_version before the cache is asked.
func version(cluster string) string {
	return `set_by_lua_block $sluice_version { return package.loaded["sluice.routes"].version(` +
		luaCluster(cluster) + `) }`
}

// luaCluster is the expression for a cluster, which may be a variable.
func luaCluster(cluster string) string {
	if name, ok := strings.CutPrefix(cluster, "$"); ok {
		return "ngx.var." + strings.Trim(name, "{}")
	}
	return luaString(cluster)
}

// upstream is the driver's text for an upstream. Parameters that all servers of production had in
// common go on in its numbers.
func upstream(u transform.Upstream) string {
	method, key := method(u.Method)
	args := fmt.Sprintf("%q, %t, %d, %g, %d, %g, %t, %q", u.Cluster, u.Plain, number(u.MaxFails, 1),
		seconds(u.FailTimeout, 10), number(u.MaxConns, 0), seconds(u.SlowStart, 0), u.Zone, method)
	if key != "" {
		args += ", " + luaString(key)
	}
	return fmt.Sprintf("server 0.0.0.1; # never asked: the driver chooses\nbalancer_by_lua_block "+
		"{ package.loaded[\"sluice.routes\"].balance(%s) }", args)
}

// method returns the driver's name of a balancing directive, and its hash key.
func method(directive []string) (name, key string) {
	if len(directive) == 0 {
		return "round_robin", ""
	}
	switch args := directive[1:]; {
	case directive[0] == "hash" && len(args) > 1 && args[1] == "consistent":
		return "consistent_hash", args[0]
	case directive[0] == "hash" && len(args) > 0:
		return "hash", args[0]
	case strings.HasSuffix(directive[0], "sticky"):
		// A client stays with an instance by its address and user agent, not by a cookie: no cookie
		// of one VIP can lead to a version on another.
		return "consistent_hash", "$remote_addr$http_user_agent"
	case directive[0] == "random" && len(args) > 0 && args[0] == "two":
		return "random_two", ""
	case slices.Contains([]string{"ip_hash", "least_conn", "random"}, directive[0]):
		return directive[0], ""
	}
	return "round_robin", ""
}

// number returns a number of Nginx, or otherwise where the text is none.
func number(text string, otherwise int) int {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return n
	}
	return otherwise
}

// seconds returns a time of Nginx in seconds, or otherwise where the text is none.
func seconds(text string, otherwise float64) float64 {
	if d, ok := nginxDuration(text); ok {
		return d.Seconds()
	}
	return otherwise
}

// timeUnits are Nginx's, from the largest to the smallest; a number without a unit is in seconds
// and comes last.
var (
	timeUnits = []string{"y", "M", "w", "d", "h", "m", "s", "ms", ""}
	unitTimes = []time.Duration{365 * day, 30 * day, 7 * day, day, time.Hour, time.Minute,
		time.Second, time.Millisecond, time.Second}
	timePart = regexp.MustCompile(`^([0-9]+)(ms|[yMwdhms]?) *`)
)

const day = 24 * time.Hour

// nginxDuration reads a time as ngx_parse_time does: numbers with units, each unit smaller than the
// one before, such as "1h 30m" or "1d".
func nginxDuration(text string) (total time.Duration, ok bool) {
	for next := 0; text != ""; {
		part := timePart.FindStringSubmatch(text)
		if part == nil {
			return 0, false
		}
		n, err := strconv.ParseInt(part[1], 10, 64)
		unit := slices.Index(timeUnits, part[2])
		if err != nil || unit < next || n > int64((math.MaxInt64-total)/unitTimes[unit]) {
			return 0, false
		}
		total, next = total+time.Duration(n)*unitTimes[unit], unit+1
		text, ok = text[len(part[0]):], true
	}
	return total, ok
}

// luaString is text as a Lua string, every byte that is not a plain one by its number.
func luaString(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(text) {
		if c := text[i]; c >= ' ' && c <= '~' && !strings.ContainsRune("\"\\{}", rune(c)) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "\\%03d", c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// httpSnippet is the dictionary and the two servers. They set each directive that they would
// otherwise inherit from production.
func httpSnippet(cfg SnippetConfig) string {
	return fmt.Sprintf(`lua_shared_dict sluice_routes %dk;
lua_shared_dict sluice_workers 256k;
server {
    listen unix:%s;
    access_log off;
    allow all;
    `+transform.Reset+`
    add_header Cache-Control no-store always;
    client_max_body_size 256m;
    client_body_buffer_size 8m;
    location = /v1/state {
        content_by_lua_block { package.loaded["sluice.routes"].state() }
    }
    location = /v1/inflight {
        content_by_lua_block { package.loaded["sluice.routes"].inflight() }
    }
    location = /v1/routes {
        content_by_lua_block { package.loaded["sluice.routes"].admin() }
    }
    location / {
        return 404;
    }
}
server {
    listen unix:%s;
    access_log off;
    allow all;
    `+transform.Reset+`
    add_header Cache-Control no-store always;
    default_type text/plain;
    set $sluice_fleeting 1; # so that Lua may set them
    set $sluice_token none;
    error_page 400 =503 /; # what does not speak HTTP is answered too
    location / {
        return 503 "no instance serves this cluster on VIP $http_x_env_vip\n";
    }
}
`, (cfg.Memory+1023)/1024, cfg.Socket, cfg.Unavailable)
}

var (
	plainPath    = regexp.MustCompile(`^/[A-Za-z0-9/._-]+$`)
	plainLuaPath = regexp.MustCompile(`^[ !#%-\[\]-~]+$`)
)
