//go:build linux

package nginxtest_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
	"github.com/sluice-deploy/sluice/internal/testbed/rsync"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/consulbundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/dirbundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/gitbundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/httpbundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/rsyncbundle"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/mirror"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// machine is a production machine: files and links by absolute path, as a distribution lays them
// out. A request is "HOST PATH", over TLS if the host begins with "tls:", and its answer the
// status with the beginning of the body or the Location.
type machine struct {
	files, links map[string]string
	answers      map[string]string
}

const types = "types { text/html html; text/plain txt; }\n"

// machines are written as the packages of Debian and RHEL and certbot leave a machine.
var machines = map[string]machine{
	"debian": {
		files: map[string]string{
			"/etc/nginx/nginx.conf": `user www-data;
worker_processes auto;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
include /etc/nginx/modules-enabled/*.conf;

events {
	worker_connections 768;
	# multi_accept on;
}

http {
	sendfile on;
	types_hash_max_size 2048;
	include /etc/nginx/mime.types;
	default_type application/octet-stream;
	access_log /var/log/nginx/access.log;
	gzip on;
	include /etc/nginx/conf.d/*.conf;
	include /etc/nginx/sites-enabled/*;
}
`,
			"/etc/nginx/mime.types":   types,
			"/etc/nginx/proxy_params": "proxy_set_header Host $http_host;\n",
			"/etc/nginx/sites-available/default": `server {
	listen 80 default_server;
	listen [::]:80 default_server;
	root /var/www/html;
	index index.html;
	server_name _;
	location / { try_files $uri $uri/ =404; }
}
`,
			"/etc/nginx/sites-available/app": `upstream app { server 10.0.0.1:8080; }
server {
	listen 80;
	server_name app.x;
	location / { include proxy_params; proxy_pass http://app; }
}
`,
			"/etc/nginx/sites-available/off": "server { listen 1; }\n",
			"/etc/nginx/conf.d/old.conf.bak": "broken {",
			"/usr/share/nginx/modules-available/mod-stream.conf": "load_module " +
				"modules/ngx_stream_module.so;\n",
			"/var/www/html/index.html": "welcome\n",
		},
		links: map[string]string{
			"/etc/nginx/sites-enabled/default": "/etc/nginx/sites-available/default",
			"/etc/nginx/sites-enabled/app":     "/etc/nginx/sites-available/app",
			"/etc/nginx/modules-enabled/50-mod-stream.conf": "/usr/share/nginx/" +
				"modules-available/mod-stream.conf",
		},
		answers: map[string]string{"app.x /p": "200 app /p host=app.x", "other.x /": "200 welcome",
			"other.x /none": "404 <html>"},
	},
	"rhel": {
		files: map[string]string{
			"/etc/nginx/nginx.conf": `user nginx;
worker_processes auto;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;

# Modules of other packages.
include /usr/share/nginx/modules/*.conf;

events { worker_connections 1024; }

http {
    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer"';
    access_log  /var/log/nginx/access.log  main;
    sendfile            on;
    keepalive_timeout   65;
    include             /etc/nginx/mime.types;
    default_type        application/octet-stream;

    include /etc/nginx/conf.d/*.conf;

    server {
        listen       80;
        listen       [::]:80;
        server_name  _;
        root         /usr/share/nginx/html;
        include /etc/nginx/default.d/*.conf;
        error_page 404 /404.html;
        location = /404.html { }
        error_page 500 502 503 504 /50x.html;
        location = /50x.html { }
    }
}
`,
			"/etc/nginx/mime.types": types,
			"/etc/nginx/fastcgi_params": "fastcgi_param QUERY_STRING $query_string;\n" +
				"fastcgi_param REQUEST_METHOD $request_method;\n",
			"/etc/nginx/default.d/php.conf": `index index.php index.html;
location ~ \.(php|phar)(/.*)?$ {
    fastcgi_split_path_info ^(.+\.(?:php|phar))(/.*)$;
    fastcgi_index  index.php;
    include        fastcgi_params;
    fastcgi_param  SCRIPT_FILENAME  $document_root$fastcgi_script_name;
    fastcgi_pass   php-fpm;
}
`,
			"/etc/nginx/conf.d/php-fpm.conf": "upstream php-fpm { server " +
				"unix:/run/php-fpm/www.sock; }\n",
			"/etc/nginx/conf.d/app.conf": `upstream app { server 10.0.0.1:8080; }
server {
    listen 80;
    listen [::]:80;
    server_name app.x;
    location / { proxy_set_header Host $host; proxy_pass http://app; }
}
`,
			"/etc/nginx/conf.d/app.conf.rpmsave": "broken {",
			"/usr/share/nginx/modules/mod-stream.conf": "load_module " +
				"\"/usr/lib64/nginx/modules/ngx_stream_module.so\";\n",
			"/usr/share/nginx/html/index.html": "test page\n",
			"/usr/share/nginx/html/404.html":   "no such page\n",
			"/usr/share/nginx/html/50x.html":   "an error\n",
		},
		answers: map[string]string{"app.x /p": "200 app /p host=app.x", "_ /": "200 test page",
			"_ /none": "404 no such page",
			"_ /x.php": "503 no instance serves this cluster on VIP 127.58.0.2\nno-instance; " +
				"cluster=php-fpm"},
	},
	"certbot": {
		files: map[string]string{
			"/etc/nginx/nginx.conf": `user www-data;
events { }
http {
    include /etc/nginx/mime.types;
    include /etc/nginx/sites-enabled/*;
}
`,
			"/etc/nginx/mime.types": types,
			"/etc/nginx/sites-available/www": `upstream app { server 10.0.0.1:8080; }
server {
    server_name www.x;
    location / { proxy_set_header Host $host; proxy_pass http://app; }

    listen [::]:443 ssl ipv6only=on; # managed by Certbot
    listen 443 ssl; # managed by Certbot
    ssl_certificate /etc/letsencrypt/live/www.x/fullchain.pem; # managed by Certbot
    ssl_certificate_key /etc/letsencrypt/live/www.x/privkey.pem; # managed by Certbot
    include /etc/letsencrypt/options-ssl-nginx.conf; # managed by Certbot
    ssl_dhparam /etc/letsencrypt/ssl-dhparams.pem; # managed by Certbot
}
server {
    if ($host = www.x) {
        return 301 https://$host$request_uri;
    } # managed by Certbot

    listen 80;
    listen [::]:80;
    server_name www.x;
    return 404; # managed by Certbot
}
`,
			"/etc/letsencrypt/options-ssl-nginx.conf": "ssl_session_cache shared:le_nginx_SSL:1m;\n" +
				"ssl_session_timeout 10m;\nssl_session_tickets off;\n" +
				"ssl_protocols TLSv1.2 TLSv1.3;\nssl_prefer_server_ciphers off;\n",
		},
		links: map[string]string{
			"/etc/nginx/sites-enabled/www":              "/etc/nginx/sites-available/www",
			"/etc/letsencrypt/live/www.x/fullchain.pem": "../../archive/www.x/fullchain1.pem",
			"/etc/letsencrypt/live/www.x/privkey.pem":   "../../archive/www.x/privkey1.pem",
		},
		answers: map[string]string{"tls:www.x /p": "200 app /p host=www.x",
			"www.x /q?a=b": "301 https://www.x/q?a=b", "other.x /": "404 <html>"},
	},
}

// build writes the machine's files below dir.
func (m machine) build(t *testing.T, dir string) {
	t.Helper()
	for name, text := range m.files {
		full := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		require.NoError(t, os.WriteFile(full, []byte(text), 0o644))
	}
	for name, to := range m.links {
		full := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		require.NoError(t, os.Symlink(to, full))
	}
	if m.links["/etc/letsencrypt/live/www.x/privkey.pem"] == "" {
		return
	}
	keys := filepath.Join(dir, "etc/letsencrypt/archive/www.x")
	require.NoError(t, os.MkdirAll(keys, 0o755))
	pair, err := os.ReadFile(nginxtest.Pair(t, keys))
	require.NoError(t, err)
	for _, name := range []string{"fullchain1.pem", "privkey1.pem"} {
		require.NoError(t, os.WriteFile(filepath.Join(keys, name), pair, 0o600))
	}
	text, err := parameters()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "etc/letsencrypt/ssl-dhparams.pem"), text,
		0o644))
}

// parameters are those of Diffie-Hellman, made once.
var parameters = sync.OnceValues(func() ([]byte, error) {
	prime, err := rand.Prime(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := asn1.Marshal(struct{ P, G *big.Int }{prime, big.NewInt(2)})
	return pem.EncodeToMemory(&pem.Block{Type: "DH PARAMETERS", Bytes: der}), err
})

// all are the roots of a bundle that stands for the whole machine.
var all = conf.Roots{"/": "."}

// split are the roots of /etc/nginx with the other directories in it.
var split = conf.Roots{"/etc/nginx": ".", "/usr/share/nginx": ".share",
	"/etc/letsencrypt": ".letsencrypt"}

// sources are the ways of the machine's files to the mirror: each returns a source, and where
// absolute paths are in its bundles.
var sources = map[string]func(t *testing.T, dir string) (bundle.Source, conf.Roots){
	"directory": func(t *testing.T, dir string) (bundle.Source, conf.Roots) {
		extra := map[string]string{}
		for abs, at := range split {
			if at != "." {
				extra[at] = filepath.Join(dir, abs)
				require.NoError(t, os.MkdirAll(extra[at], 0o755))
			}
		}
		s, err := dirbundle.New(dirbundle.Config{Dir: filepath.Join(dir, "etc/nginx"),
			Extra: extra, Roots: split, Settle: time.Millisecond})
		require.NoError(t, err)
		return s, split
	},
	"git": func(t *testing.T, dir string) (bundle.Source, conf.Roots) {
		for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"},
			{"-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-q", "-m", "machine"},
		} {
			out, err := exec.CommandContext(t.Context(), testbed.NeedProgram(t, "git", "git"),
				append([]string{"-C", dir}, args...)...).CombinedOutput()
			require.NoError(t, err, string(out))
		}
		s, err := gitbundle.New(gitbundle.Config{Repository: dir, Ref: "main", Roots: all,
			Dir: filepath.Join(t.TempDir(), "git")})
		require.NoError(t, err)
		return s, all
	},
	"rsync": func(t *testing.T, dir string) (bundle.Source, conf.Roots) {
		server := rsync.Start(t, dir)
		s, err := rsyncbundle.New(rsyncbundle.Config{URL: server.URL, Roots: all,
			Dir: filepath.Join(t.TempDir(), "copy")})
		require.NoError(t, err)
		return s, all
	},
	"http": func(t *testing.T, dir string) (bundle.Source, conf.Roots) {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		require.NoError(t, w.AddFS(os.DirFS(dir)))
		require.NoError(t, w.Close())
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
			_ *http.Request) {
			_, _ = w.Write(archive.Bytes())
		}))
		t.Cleanup(server.Close)
		s, err := httpbundle.New(httpbundle.Config{URL: server.URL + "/m.tar", Roots: all})
		require.NoError(t, err)
		return s, all
	},
	// Consul has no links: the keys hold the files at their ends.
	"consul": func(t *testing.T, dir string) (bundle.Source, conf.Roots) {
		client, err := api.NewClient(&api.Config{Address: consul.Start(t).Addr})
		require.NoError(t, err)
		put := func(name, from string) {
			text, err := os.ReadFile(from)
			require.NoError(t, err)
			_, err = client.KV().Put(&api.KVPair{Key: "machine/" + name, Value: text}, nil)
			require.NoError(t, err)
		}
		require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			from := path
			if to, err := os.Readlink(path); err == nil {
				if from = filepath.Join(filepath.Dir(path), to); filepath.IsAbs(to) {
					from = filepath.Join(dir, to)
				}
				if info, err := os.Stat(from); err != nil || info.IsDir() {
					return err
				}
			}
			put(name, from)
			return nil
		}))
		s, err := consulbundle.New(consulbundle.Config{Client: client, Prefix: "machine/",
			Settle: time.Millisecond})
		require.NoError(t, err)
		return s, all
	},
}

// Machines as Debian, RHEL and certbot leave them come through each source, are transformed, and
// serve: the cluster of the VIP, the static files, the redirects.
func TestMachinesServe(t *testing.T) {
	t.Parallel()
	testbed.NeedFile(t, nginx.Modules+"/ngx_stream_module.so", "libnginx-mod-stream")
	for system, m := range machines {
		for name, source := range sources {
			t.Run(system+"/"+name, func(t *testing.T) {
				t.Parallel()
				dir := nginxtest.Dir(t)
				require.NoError(t, os.Chmod(dir, 0o755))
				root := filepath.Join(dir, "machine")
				m.build(t, root)
				s, roots := source(t, root)
				m.serve(t, dir, s, roots)
			})
		}
	}
}

// serve runs Nginx on the mirror of the source and asks it.
func (m machine) serve(t *testing.T, dir string, source bundle.Source, roots conf.Roots) {
	web, tls := nginxtest.Port(t), nginxtest.Port(t)
	root, socket := filepath.Join(dir, "machine"), filepath.Join(dir, "admin.sock")
	driver, err := luadriver.New(luadriver.Config{Socket: socket})
	require.NoError(t, err)
	pid, log := filepath.Join(dir, "nginx.pid"), filepath.Join(dir, "error.log")
	main := "nginx.conf"
	if roots["/"] != "" {
		main = "etc/nginx/nginx.conf"
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "trees"), 0o755))
	cfg := mirror.Config{
		Source: source, Driver: driver, Roots: roots, Main: main,
		Dir:   filepath.Join(dir, "trees"),
		Nginx: &mirror.ExecNginx{Prefix: dir, PIDFile: pid, ErrorLog: log},
		Rules: transform.Rules{
			Listen: map[int]int{80: web, 443: tls}, TempDir: dir,
			Snippets: luadriver.Snippets(luadriver.SnippetConfig{Socket: socket, Memory: 1 << 20}),
			Main: map[string]string{"user": "", "pid": pid, "daemon": "off",
				"worker_processes": "1", "error_log": log},
			Paths: map[string]string{"/var/log/nginx/": dir + "/", "/var/www/": root + "/var/www/",
				"/usr/share/nginx/html":     root + "/usr/share/nginx/html",
				"/etc/letsencrypt/":         root + "/etc/letsencrypt/",
				"/usr/lib64/nginx/modules/": nginx.Modules + "/"},
		},
	}
	mirrored, err := mirror.New(cfg)
	require.NoError(t, err)
	b, err := source.Fetch(t.Context(), "")
	require.NoError(t, err)
	id, err := mirrored.Stage(t.Context(), b)
	require.NoError(t, err)
	require.NoError(t, mirrored.Switch(id))
	require.NoError(t, filepath.WalkDir(filepath.Join(cfg.Dir, id), func(name string,
		_ fs.DirEntry, err error) error {
		require.False(t, bundle.Backup(name), name)
		return err
	}))
	nginxtest.Start(t, dir, filepath.Join(dir, "trees", "current", main))
	vip := netip.MustParseAddr("127.58.0.2")
	app := []nginxsync.Instance{{ID: "i", Addr: nginxtest.Backend(t, "app"), Version: "v2"}}
	require.NoError(t, driver.Apply(t.Context(), nginxsync.NewRoutes(1, nginxsync.Snapshot{
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{vip: {"app": app}}}).All()))
	for request, want := range m.answers {
		host, path, _ := strings.Cut(request, " ")
		host, overTLS := strings.CutPrefix(host, "tls:")
		port := web
		if overTLS {
			port = tls
		}
		got := ask(t, netip.AddrPortFrom(vip, uint16(port)), host, path, overTLS)
		require.True(t, strings.HasPrefix(got, want), "%s: %s", request, got)
	}
}

// ask returns the status, and the Location or the body.
func ask(t *testing.T, addr netip.AddrPort, host, path string, overTLS bool) string {
	t.Helper()
	client := nginxtest.Client(addr, host)
	scheme := "http"
	if overTLS {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+host+path, nil)
	require.NoError(t, err)
	resp, err := client.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	if to := resp.Header.Get("Location"); to != "" {
		return fmt.Sprint(resp.StatusCode, " ", to)
	}
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	require.NoError(t, err)
	reason := resp.Header.Get("X-Sluice-Reason")
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", body.String(), reason))
}

// The machines serve on the Nginx of each release.
func TestOthers(t *testing.T) {
	t.Parallel()
	nginx.Others(t, "TestMachinesServe")
}
