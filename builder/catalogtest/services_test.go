//go:build linux

package catalogtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
)

var templates = []service{
	{
		template: "go-static@1", env: "app/env.txt", asked: "/env", slow: "/slow",
		set: func(t *testing.T, s *site) {
			dir := t.TempDir()
			for name, text := range goModule(t) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
			}
			program := filepath.Join(dir, "app")
			compile(t, dir, program, ".", "GOWORK=off")
			content, err := os.ReadFile(program)
			require.NoError(t, err)
			s.files["app"] = string(content)
		},
	},
	{
		template: "go@1", soak: true, env: "app/env.txt", asked: "/env", slow: "/slow",
		set: func(t *testing.T, s *site) {
			s.values["GO_IMAGE"], s.values["PACKAGE"] = s.goBase(t), "example.com/service"
			for name, text := range goModule(t) {
				s.files["app/"+name] = text
			}
		},
	},
	{
		template: "static-site@1", env: "etc/nginx/conf.d/site.conf", envText: nginxSite,
		asked: "/env", slow: "/slow",
		set: func(t *testing.T, s *site) {
			s.values["BASE_IMAGE"] = s.nginxBase(t)
			s.files["site/slow"] = slowFile
			s.working = s.answered.Load
		},
	},
	{
		template: "nginx@1", env: "etc/nginx/conf.d/env.conf",
		envText: `location = /env { return 200 "environment test"; }`,
		asked:   "/env", slow: "/slow", set: setNginx,
	},
	{
		template: "spa@1", soak: true, env: "etc/nginx/conf.d/site.conf", envText: nginxSite,
		asked: "/env", slow: "/slow",
		set: func(t *testing.T, s *site) {
			s.values["BASE_IMAGE"], s.values["NODE_IMAGE"] = s.nginxBase(t), s.nodeBase(t)
			s.npm(t, `"scripts": {"build": "node build.js"}`)
			// the package that npm has installed writes the page
			s.files["app/build.js"] = `const fs = require('fs')
fs.mkdirSync('dist')
fs.writeFileSync('dist/slow', '\n'.repeat(120000) + require('greeting'))
`
			s.working = s.answered.Load
		},
	},
	{
		template: "node@1", soak: true, env: "app/env.txt", asked: "/env", slow: "/slow",
		set: func(t *testing.T, s *site) {
			s.values["BASE_IMAGE"] = s.nodeBase(t)
			s.npm(t, `"main": "server.js"`)
			s.files["app/server.js"] = nodeServer
		},
	},
	{
		template: "python@1", soak: true, env: "app/env.txt", asked: "/env", slow: "/slow",
		set: func(t *testing.T, s *site) {
			s.values["BASE_IMAGE"] = s.pythonBase(t)
			s.files["app/requirements.txt"] = s.wheel(t)
			s.files["app/service.py"] = pythonServer
		},
	},
	{
		template: "php-fpm@1", env: "var/www/html/env.txt", asked: "/env", slow: "/slow",
		set: setPHP,
	},
	{
		template: "java@1", soak: true, env: "app/env.txt", asked: "/env", slow: "/slow",
		code: 143,
		set: func(t *testing.T, s *site) {
			s.values["BASE_IMAGE"] = s.javaBase(t)
			s.files["app.jar"] = jar(t, map[string]string{"Server.java": javaServer}, "",
				"Main-Class: Server")
		},
	},
	{
		template: "spring-boot@1", soak: true, env: "app/env.txt", asked: "/env", slow: "/slow",
		code: 143, set: setSpringBoot,
	},
	{
		template: "tomcat@2", soak: true, env: "home/work/service/webapps/ROOT/env.jsp",
		asked: "/env.jsp", slow: "/slow.jsp", code: 143,
		set: func(t *testing.T, s *site) {
			s.values["BASE_IMAGE"] = s.javaBase(t)
			s.values["PACKAGES"] = "greeting"
			s.values["BUILD_IP"] = "127.0.0.1"
			s.values["BUILD_PORT"] = strconv.Itoa(s.rsyncd(t, "127.0.0.1", 0))
			s.values["SOURCE"] = "root/root/output"
			s.files["startup.sh"] = startTomcat
		},
	},
	{
		template: "tomcat@1", soak: true, env: "home/work/service/webapps/ROOT/env.jsp",
		asked: "/env.jsp", slow: "/slow.jsp", code: 143,
		set: func(t *testing.T, s *site) {
			s.values["BASE_IMAGE"] = s.javaBase(t)
			s.values["PACKAGES"] = "greeting"
			s.values["BUILD_IP"] = oldBuildMachine
			s.rsyncd(t, oldBuildMachine, 873)
			s.files["startup.sh"] = startTomcat
		},
	},
}

// goModule is a service in Go, by file.
func goModule(t *testing.T) map[string]string {
	program, err := os.ReadFile("testdata/service.go")
	require.NoError(t, err)
	return map[string]string{"main.go": string(program), "go.sum": "",
		"go.mod": "module example.com/service\n\ngo 1.24\n"}
}

// oldBuildMachine is an address of this machine whose port 873 nothing else takes: tomcat@1 has no
// parameter for the port.
const oldBuildMachine = "127.87.3.1"

// base makes an image once for all templates.
func (b *bed) base(t *testing.T, name string, spec func() image.DebianSpec) string {
	t.Helper()
	b.mu.Lock()
	get := b.bases[name]
	if get == nil {
		get = sync.OnceValue(func() string {
			return image.Debian(b.t, b.oci.Addr, name, spec())
		})
		b.bases[name] = get
	}
	b.mu.Unlock()
	return get()
}

// slowFile takes some seconds at the rate of nginxSite.
var slowFile = strings.Repeat("\n", 120_000) + "whole"

const nginxSite = `server {
  listen 127.0.0.1:PORT;
  root /usr/share/nginx/html;
  location = /env { return 200 "environment test"; }
  location = /slow { limit_rate 40k; }
}
`

// nginxBase has an Nginx that runs without root, as nginx-unprivileged.
func (b *bed) nginxBase(t *testing.T) string {
	return b.base(t, "nginx", func() image.DebianSpec {
		return image.DebianSpec{
			Programs: []string{"nginx=nginx"}, Owner: 101,
			Files: map[string]string{"etc/nginx/nginx.conf": nginxMain(
				"include /etc/nginx/conf.d/*.conf;"), "etc/nginx/conf.d/": ""},
		}
	})
}

func nginxMain(http string) string {
	return `pid /tmp/nginx.pid; error_log /dev/stderr; events {} http { access_log off;
client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi; default_type text/plain; ` + http + " }\n"
}

// setNginx makes a gateway before a server of the test.
func setNginx(t *testing.T, s *site) {
	var asked atomic.Bool
	s.working = asked.Load
	// The stop signal comes within the second; a later one finds the request answered.
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(true)
		<-time.After(time.Second)
		fmt.Fprint(w, "whole")
	}))
	t.Cleanup(behind.Close)
	s.values["BASE_IMAGE"] = s.nginxBase(t)
	s.files["nginx/nginx.conf"] = nginxMain(fmt.Sprintf("server { listen 127.0.0.1:%d; include "+
		"/etc/nginx/conf.d/*.conf; location /slow { proxy_pass %s; } }", s.port, behind.URL))
}

const phpPage = `<?php
$path = $_SERVER['QUERY_STRING'];
if ($path == '/env') { readfile('env.txt'); exit; }
fwrite(fopen('php://stderr', 'w'), "WORKING\n");
sleep(1);
echo 'whole';
`

// setPHP puts an Nginx of this machine in front.
func setPHP(t *testing.T, s *site) {
	found, err := filepath.Glob("/usr/sbin/php-fpm[0-9]*")
	require.NoError(t, err)
	program := "php-fpm"
	if len(found) > 0 {
		program = found[0]
	}
	version := strings.TrimPrefix(filepath.Base(program), "php-fpm")
	s.values["BASE_IMAGE"] = s.base(t, "php-fpm", func() image.DebianSpec {
		return image.DebianSpec{
			Programs: []string{program + "=php-fpm"},
			Links:    map[string]string{"usr/sbin/php-fpm": filepath.Base(program)},
			Files: map[string]string{"etc/php/" + version + "/fpm/php-fpm.conf": fmt.Sprintf(
				"[global]\nerror_log = /proc/self/fd/2\nprocess_control_timeout = 60\n[www]\n"+
					"listen = 127.0.0.1:%d\npm = static\npm.max_children = 2\n"+
					"catch_workers_output = yes\ndecorate_workers_output = no\n", s.port)},
		}
	})
	s.files["app/index.php"] = phpPage
	front := testbed.Port(t)
	s.front = "http://127.0.0.1:" + strconv.Itoa(front)
	prefix := t.TempDir()
	conf := filepath.Join(prefix, "nginx.conf")
	temp := strings.ReplaceAll(nginxMain(fmt.Sprintf("server { listen 127.0.0.1:%d; location / { "+
		"fastcgi_pass 127.0.0.1:%d; fastcgi_param SCRIPT_FILENAME /var/www/html/index.php; "+
		"fastcgi_param QUERY_STRING $uri; fastcgi_param REQUEST_METHOD GET; } }", front, s.port)),
		"/tmp", prefix)
	require.NoError(t, os.WriteFile(conf, []byte("daemon off; "+temp), 0o644))
	nginx.Start(t, prefix, conf)
}

const nodeServer = `
const http = require('http'), fs = require('fs'), greeting = require('greeting')
const server = http.createServer((request, response) => {
  if (request.url !== '/slow') return response.end(fs.readFileSync('/app/env.txt'))
  console.log('WORKING')
  setTimeout(() => response.end(greeting), 1000)
}).listen(process.env.PORT, '127.0.0.1')
process.on('SIGTERM', () => server.close(() => process.exit(0)))
`

const pythonServer = `
import os, sys, time
from gunicorn.app.wsgiapp import run
import greeting
def app(environ, respond):
    respond("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] != "/slow":
        return [open("/app/env.txt", "rb").read()]
    print("WORKING", file=sys.stderr, flush=True)
    time.sleep(1)
    return [greeting.text]
if __name__ == "__main__":
    sys.argv = ["gunicorn", "-w", "2", "-b", "127.0.0.1:" + os.environ["PORT"], "service:app"]
    run()
`
