// Package edge runs the private Nginx of the example server: it transforms a production
// configuration tree for the test environment (nginxsync), tests the result, and starts Nginx on it
// in a directory of its own, as the user that started the server, apart from every other Nginx of
// the machine. Nginx outlives the server; Start finds it again.
package edge

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/route"
	"github.com/sluice-deploy/sluice/nginxsync/supervisor"
	"github.com/sluice-deploy/sluice/nginxsync/testca"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// modules are the places where Debian's libnginx-mod-http-lua puts the modules that the Lua driver
// needs.
var modules = []string{"/usr/lib/nginx/modules/ndk_http_module.so",
	"/usr/lib/nginx/modules/ngx_http_lua_module.so"}

// Config configures an Edge. Dir, Tree and Ports are required.
type Config struct {
	// Dir is the prefix of this Nginx. Open makes it if it is missing. Its path becomes a part of
	// the Nginx configuration and of socket addresses, so it holds letters, digits and /._- only,
	// and 85 bytes at most.
	Dir string
	// Tree is the production configuration; its main file is nginx.conf.
	Tree fs.FS
	// Ports maps the ports that production listens on to those of this Nginx, 1 to 65535.
	Ports map[int]int
	// Logger logs that testers have to trust a new authority. The default discards.
	Logger *slog.Logger
	// Program is the nginx binary. The default is "nginx" in PATH or in /usr/sbin.
	Program string
}

// Edge is one private Nginx.
type Edge struct {
	config Config
	nginx  *supervisor.Supervisor
	// Result is the transform that serves: the changes in the production tree, with reasons.
	Result *transform.Result
	// CA signs the certificates of this Nginx; nil for a tree without TLS.
	CA *testca.CA
	// Routes knows which hosts production's tree serves.
	Routes *route.Router
	// Clusters are the clusters of the tree's upstreams, sorted: their names in lower case, as in
	// transform.Rules.Clusters.
	Clusters []string
}

// ErrInvalid is returned by Open for a Config that cannot be right.
var ErrInvalid = errors.New("invalid")

func (cfg Config) validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("edge: Config.%s: %s: %w", field,
			fmt.Sprintf(format, args...), ErrInvalid))
	}
	if cfg.Dir == "" {
		bad("Dir", "want the path of a directory")
	}
	if cfg.Tree == nil {
		bad("Tree", "want the production configuration tree")
	}
	if len(cfg.Ports) == 0 {
		bad("Ports", "want the port of this Nginx for each port that production listens on")
	}
	for _, from := range slices.Sorted(maps.Keys(cfg.Ports)) {
		if to := cfg.Ports[from]; min(from, to) < 1 || max(from, to) > 65535 {
			bad("Ports", "%d becomes %d: want ports from 1 to 65535", from, to)
		}
	}
	return errors.Join(errs...)
}

// CheckPath returns why Nginx cannot work in the directory of this real, absolute path, or nil. The
// error matches ErrInvalid.
func CheckPath(dir string) error {
	switch {
	case strings.Trim(dir, plainPath) != "":
		return fmt.Errorf("edge: Config.Dir: directory %q: its path becomes a part of the Nginx "+
			"configuration, so it may "+
			"have letters, digits and /._- only: choose another: %w", dir, ErrInvalid)
	case len(dir) > longestDir:
		return fmt.Errorf("edge: Config.Dir: directory %s: its path has %d bytes, and the "+
			"address of a socket in it "+
			"has room for %d: choose a shorter one: %w", dir, len(dir), longestDir, ErrInvalid)
	}
	return nil
}

// Open transforms the tree and writes it below cfg.Dir; an Nginx that runs there already goes on
// with its old one until Start. It returns all problems of cfg at once, and names the packages to
// install when Nginx or its Lua module is missing.
func Open(ctx context.Context, cfg Config) (*Edge, error) {
	err := cfg.validate()
	if err != nil {
		return nil, err
	}
	if cfg.Program, err = findProgram(cfg.Program); err != nil {
		return nil, err
	}
	for sub, mode := range map[string]fs.FileMode{"logs": 0o755, "cache": 0o755, "temp": 0o755,
		"admin": 0o700} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, sub), mode); err != nil {
			return nil, fmt.Errorf("edge: %w", err)
		}
	}
	if cfg.Dir, err = realPath(cfg.Dir); err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	if err := CheckPath(cfg.Dir); err != nil {
		return nil, err
	}
	tree, err := conf.Parse(cfg.Tree, "nginx.conf")
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	e := &Edge{config: cfg, Routes: route.NewRouter(tree)}
	e.nginx, err = supervisor.New(supervisor.Config{Prefix: cfg.Dir, Program: cfg.Program,
		Before: func() error { return luadriver.RemoveStaleSockets(e.snippets()) }})
	if err != nil {
		return nil, wrap(err)
	}
	e.Result, err = transform.Transform(tree, e.rules())
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	for upstream := range tree.Find("http", "upstream") {
		// any other keeps its servers
		if cluster := strings.ToLower(upstream.Arg(0)); names.Cluster(cluster) == nil {
			e.Clusters = append(e.Clusters, cluster)
		}
	}
	slices.Sort(e.Clusters)
	if err := e.openCA(); err != nil {
		return nil, err
	}
	if err := e.write(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// longestDir leaves room for the names of sockets in it: an address has 107 bytes.
const longestDir = 107 - len("/admin/nginx.sock.503")

const plainPath = "/._-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

func findProgram(program string) (string, error) {
	path, err := exec.LookPath(cmp.Or(program, "nginx"))
	if err != nil && program == "" {
		path, err = exec.LookPath("/usr/sbin/nginx") // Debian keeps it out of a user's PATH
	}
	for _, module := range modules {
		if err == nil {
			_, err = os.Stat(module)
		}
	}
	if err != nil {
		return "", fmt.Errorf("edge: %w: install them with: apt-get install "+
			"--no-install-recommends nginx libnginx-mod-http-lua", err)
	}
	return path, nil
}

func (e *Edge) rules() transform.Rules {
	dir := e.config.Dir
	rules := transform.Rules{
		Listen: e.config.Ports,
		Main: map[string]string{
			"pid":       filepath.Join(dir, "nginx.pid"),
			"error_log": filepath.Join(dir, "logs/error.log") + " warn",
			"user":      "",
		},
		Paths: map[string]string{"/var/log/nginx": filepath.Join(dir, "logs"),
			"/var/cache/nginx": filepath.Join(dir, "cache")},
		TempDir:      filepath.Join(dir, "temp"),
		Certificates: filepath.Join(dir, "certificates"),
		AllowClients: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Snippets:     luadriver.Snippets(e.snippets()),
	}
	if os.Geteuid() == 0 {
		// as the user that started the server: the directory may be closed to others
		rules.Main["user"] = "root"
	}
	return rules
}

// write puts the transformed tree beside the one in use, has Nginx test it, and switches.
func (e *Edge) write(ctx context.Context) error {
	staged := filepath.Join(e.config.Dir, "conf.new")
	if err := os.RemoveAll(staged); err != nil {
		return err
	}
	if err := e.Result.WriteTo(staged); err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	if out, err := exec.CommandContext(ctx, e.config.Program, "-p", e.config.Dir+"/", "-e",
		filepath.Join(e.config.Dir, "logs/error.log"), "-t", "-q", "-c",
		filepath.Join(staged, "nginx.conf")).CombinedOutput(); err != nil {
		return fmt.Errorf("edge: nginx -t: %w: %s", err, bytes.TrimSpace(out))
	}
	current := filepath.Join(e.config.Dir, "conf")
	return errors.Join(os.RemoveAll(current), os.Rename(staged, current))
}

// Ports maps the ports that production listens on to ports of this Nginx.
func (e *Edge) Ports() map[int]int { return maps.Clone(e.config.Ports) }

// Dir is the prefix of this Nginx, an absolute path.
func (e *Edge) Dir() string { return e.config.Dir }

// Socket is where the driver talks to Nginx.
func (e *Edge) Socket() string { return filepath.Join(e.config.Dir, "admin", "nginx.sock") }

func (e *Edge) snippets() luadriver.SnippetConfig {
	return luadriver.SnippetConfig{Socket: e.Socket(), StateFile: e.StateFile()}
}

// StateFile holds the routes that Nginx starts with until a driver pushes others.
func (e *Edge) StateFile() string { return filepath.Join(e.config.Dir, "routes.state") }
