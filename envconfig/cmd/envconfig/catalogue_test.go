//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// real is a service that many images have, with a piece of work that takes it a second.
type real struct {
	name string
	// needs are the programs, with the Debian packages that bring them.
	needs []string
	// files are written into the working directory. PORT stands for a free port and DIR for the
	// directory.
	files map[string]string
	// command starts it in the foreground.
	command string
	// task is a shell line that gives it the work; by default it is a request to PORT.
	task string
	// suffix of the paths that are requested.
	suffix string
	// flags of envconfig that it needs.
	flags string
	// works is its output when it has begun with the work, and done its output when it has ended;
	// without done the answer to the request shows the end.
	works, done string
}

const slowPython = `
import sys, time
def app(environ, respond):
    if environ["PATH_INFO"] == "/slow":
        print("WORKING", file=sys.stderr, flush=True)
        time.sleep(1)
    respond("200 OK", [("Content-Type", "text/plain")])
    return [b"whole"]
`

const slowNode = `
const http = require('http')
const server = http.createServer((request, response) => {
  if (request.url !== '/slow') return response.end('whole')
  console.log('WORKING')
  setTimeout(() => response.end('whole'), 1000)
}).listen(PORT, '127.0.0.1')
process.on('SIGTERM', () => server.close(() => process.exit(0)))
`

const slowJava = `
import com.sun.net.httpserver.*;
import java.net.InetSocketAddress;
import java.util.concurrent.*;
public class Slow {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", PORT), 0);
        ExecutorService pool = Executors.newCachedThreadPool();
        server.setExecutor(pool);
        server.createContext("/", exchange -> {
            if (exchange.getRequestURI().getPath().equals("/slow")) {
                System.out.println("WORKING");
                try { Thread.sleep(1000); } catch (InterruptedException e) { return; }
            }
            exchange.sendResponseHeaders(200, 5);
            exchange.getResponseBody().write("whole".getBytes());
            exchange.close();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(20)));
        server.start();
    }
}
`

const slowCelery = `
import sys, time
from celery import Celery
app = Celery("tasks", broker="filesystem://")
app.conf.update(worker_hijack_root_logger=False, broker_transport_options={
    "data_folder_in": "DIR/queue", "data_folder_out": "DIR/queue", "store_processed": False})
@app.task
def slow():
    print("WORKING", file=sys.__stderr__, flush=True)
    time.sleep(1)
    print("TASK DONE", file=sys.__stderr__, flush=True)
`

const phpNginx = `
daemon off; pid DIR/nginx.pid; error_log stderr; user root;
events {}
http { access_log off; server { listen 127.0.0.1:PORT;
  location / { fastcgi_pass unix:DIR/fpm.sock; fastcgi_param SCRIPT_FILENAME DIR/page.php; fastcgi_param QUERY_STRING $uri;
    fastcgi_param REQUEST_METHOD GET; fastcgi_read_timeout 60; } } }
`

var php = map[string]string{
	"fpm.conf": "[global]\npid = DIR/fpm.pid\nerror_log = /proc/self/fd/2\n[www]\nuser = " +
		"root\ngroup = root\nlisten = DIR/fpm.sock\n" +
		"pm = static\npm.max_children = 2\ncatch_workers_output = yes\ndecorate_workers_output = " +
		"no\n",
	"page.php":   `<?php if ($_SERVER['QUERY_STRING'] == '/slow') { fwrite(fopen('php://stderr', 'w'), "WORKING\n"); sleep(1); } echo 'whole';`,
	"nginx.conf": phpNginx,
	"fpm.sh":     "PHPFPM -R -F -y DIR/fpm.conf &\nuntil [ -S DIR/fpm.sock ]; do sleep 0.02; done\n",
}

func with(files map[string]string, more ...string) map[string]string {
	all := map[string]string{}
	for name, text := range files {
		all[name] = text
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

// phpFPM is the name of the program, which Debian gives a version.
func phpFPM() string {
	if found, _ := filepath.Glob("/usr/sbin/php-fpm[0-9]*"); len(found) > 0 {
		return filepath.Base(found[0])
	}
	return "php-fpm"
}

// catalogue has one entry for each kind of service. The programs are those of Debian's packages
// nginx, php-fpm, openjdk, nodejs, gunicorn, celery, supervisor, cron and tomcat10.
var catalogue = []real{
	{
		name: "nginx and php-fpm", needs: []string{"nginx=nginx", phpFPM() + "=php-fpm"},
		files:   with(php, "both.sh", php["fpm.sh"]+"nginx -c DIR/nginx.conf &\nwait\n"),
		command: "sh DIR/both.sh", works: "WORKING",
	},
	{
		name: "nginx and php-fpm, bash, trap QUIT", needs: []string{"nginx=nginx",
			phpFPM() + "=php-fpm"},
		files: with(php, "both.sh", php["fpm.sh"]+"fpm=$!\nnginx -c DIR/nginx.conf & ng=$!\n"+
			"trap 'kill -QUIT $ng; wait $ng; kill -QUIT $fpm; exit 0' TERM QUIT\nwait\n"),
		command: "bash DIR/both.sh", works: "WORKING",
	},
	{
		name: "node", needs: []string{"node=nodejs"}, files: map[string]string{"slow.js": slowNode},
		command: "node DIR/slow.js", works: "WORKING",
	},
	{
		name: "java", needs: []string{"java=default-jre-headless", "javac=default-jdk-headless"},
		files:   map[string]string{"Slow.java": slowJava},
		command: "java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp DIR Slow", works: "WORKING",
	},
	{
		name: "tomcat", needs: []string{"java=default-jre-headless",
			"/usr/share/tomcat10/bin/catalina.sh=tomcat10"},
		files: map[string]string{
			"conf/server.xml": `<Server port="-1"><Service name="Catalina" gracefulStopAwaitMillis="20000"><Connector port="PORT" address="127.0.0.1"/>` +
				`<Engine name="Catalina" defaultHost="shop"><Host name="shop" appBase="webapps" autoDeploy="false"/></Engine></Service></Server>`,
			"conf/web.xml": `<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0"><servlet><servlet-name>jsp</servlet-name>` +
				`<servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class></servlet><servlet-mapping><servlet-name>jsp</servlet-name>` +
				`<url-pattern>*.jsp</url-pattern></servlet-mapping></web-app>`,
			"webapps/ROOT/ready.jsp": "whole", "temp/.keep": "", "work/.keep": "", "logs/.keep": "",
			"webapps/ROOT/slow.jsp": `<% System.out.println("WORKING"); Thread.sleep(3000); %>whole`,
		},
		command: "env CATALINA_BASE=DIR CATALINA_TMPDIR=DIR/temp " +
			"CATALINA_OPTS=-XX:TieredStopAtLevel=1 sh /usr/share/tomcat10/bin/catalina.sh run",
		works: "WORKING", suffix: ".jsp",
	},
	{
		name: "gunicorn", needs: []string{"gunicorn=gunicorn"},
		files:   map[string]string{"slow.py": slowPython},
		command: "gunicorn -w 2 -b 127.0.0.1:PORT --chdir DIR slow:app", works: "WORKING",
	},
	{
		name: "celery", needs: []string{"celery=celery"},
		files: map[string]string{"tasks.py": slowCelery, "queue/.keep": ""},
		command: "env C_FORCE_ROOT=1 /usr/bin/python3 -m celery --workdir DIR -A tasks worker -c " +
			"1 -P prefork --without-gossip --without-mingle -l INFO",
		task: "cd DIR && until /usr/bin/python3 -c 'import tasks; tasks.slow.delay()'; do :; " +
			"done",
		works: "WORKING", done: "TASK DONE",
	},
	{
		name: "supervisord", needs: []string{"supervisord=supervisor", "gunicorn=gunicorn"},
		files: map[string]string{"slow.py": slowPython,
			"supervisord.conf": "[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=DIR/supervisord.pid\n" +
				"[program:web]\ncommand=gunicorn -b 127.0.0.1:PORT --chdir DIR " +
				"slow:app\nstderr_logfile=/dev/fd/2\nstderr_logfile_maxbytes=0\n"},
		command: "supervisord -c DIR/supervisord.conf", works: "WORKING",
	},
	{
		name: "cron", needs: []string{"cron=cron"},
		files: map[string]string{
			"tab": "@reboot sh DIR/job.sh > DIR/log 2>&1\n", "job.sh": "echo WORKING\nsleep " +
				"1\necho TASK DONE\n",
		},
		command: "cron -f", works: "WORKING", done: "TASK DONE",
	},
	{
		name: "a daemon", needs: []string{"nginx=nginx", phpFPM() + "=php-fpm"},
		files: with(php, "nginx.conf", strings.Replace(phpNginx, "daemon off;", "", 1),
			"both.sh", "PHPFPM -R -D -y DIR/fpm.conf\nnginx -c DIR/nginx.conf\n"),
		command: "sh DIR/both.sh", works: "WORKING", flags: "--on-main-exit=wait --pid-file " +
			"DIR/nginx.pid ",
	},
}

// ways are how images start a service; %s is the command.
var ways = []struct{ name, command string }{
	{"binary", `%s`},
	{"script", `DIR/service`},
	{"behind sh", `sh DIR/start.sh`},
}

// outcome is how a stop with work in flight went.
type outcome struct {
	whole  bool // the work was finished
	code   int
	took   time.Duration
	output string
}

// stopAtWork starts a service of the catalogue behind an entrypoint, as process 1 of a PID
// namespace, sends it the signal while it is at work, and waits for its end.
func stopAtWork(t *testing.T, r real, way, entrypoint string, stop func(*service)) outcome {
	t.Helper()
	for _, pair := range r.needs {
		program, pkg, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(program, "/") {
			testbed.NeedFile(t, program, pkg)
		} else {
			testbed.NeedProgram(t, program, pkg)
		}
	}
	port := freePort(t)
	dir := t.TempDir()
	fill := strings.NewReplacer("DIR", dir, "PORT", strconv.Itoa(port), "PHPFPM", phpFPM()).Replace
	files := with(r.files, "service", "#!/bin/sh\nexec "+r.command+"\n", "start.sh",
		r.command+"\necho went on\n")
	for name, text := range files {
		name = filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(fill(text)), 0o755))
	}
	if _, ok := r.files["Slow.java"]; ok {
		out, err := exec.Command("javac", "-d", dir, dir+"/Slow.java").CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	command := way
	if strings.Contains(way, "%s") {
		command = fmt.Sprintf(way, r.command)
	}
	// A /run of its own for PID files, and no jobs of this machine for cron.
	s := startWith(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS},
		`set -e; mount --make-rprivate /; mount -t proc proc /proc; mount -t tmpfs none /run; mount -t tmpfs none /var/spool/cron || :
		mkdir -p /var/spool/cron/crontabs /run/php; [ ! -e `+dir+`/tab ] || { cp `+dir+`/tab /var/spool/cron/crontabs/root; chmod 600 /var/spool/cron/crontabs/root; }
		for f in /etc/cron.d /etc/cron.hourly; do [ ! -d $f ] || mount -t tmpfs none $f; done; [ ! -f /etc/crontab ] || mount --bind /dev/null /etc/crontab
		PATH=$PATH:/usr/sbin:/sbin; exec `+fill(entrypoint+" "+command), "PYTHONUNBUFFERED=1")
	says := func(text string) {
		t.Helper()
		require.Eventually(t, func() bool {
			log, _ := os.ReadFile(dir + "/log")
			return strings.Contains(s.output.String()+string(log), text)
		}, time.Minute, 5*time.Millisecond, "%q in %v", text, s.output)
	}
	var answer string
	var failed error
	var answered sync.WaitGroup
	if r.done == "" {
		base := "http://127.0.0.1:" + strconv.Itoa(port)
		require.Eventually(t, func() bool {
			body, err := get(t.Context(), base+"/ready"+r.suffix)
			return err == nil && body == "whole"
		},
			time.Minute, 10*time.Millisecond, "%v", s.output)
		answered.Go(func() { answer, failed = get(t.Context(), base+"/slow"+r.suffix) })
	} else if r.task != "" {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", fill(r.task)).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	says(r.works)
	begin := time.Now()
	stop(s)
	o := outcome{code: s.ends(), took: time.Since(begin)}
	answered.Wait()
	log, _ := os.ReadFile(dir + "/log")
	o.output = s.output.String() + string(log)
	if o.whole = failed == nil && answer == "whole"; r.done != "" {
		o.whole = strings.Contains(o.output, r.done)
	}
	if failed != nil {
		o.output += failed.Error()
	}
	return o
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func terminate(s *service) { s.signal(syscall.SIGTERM) }

// Every service of the catalogue finishes the work that it is at when it is stopped, however the
// image starts it, and none is killed for outliving the grace time.
func TestCatalogue(t *testing.T) {
	t.Parallel()
	testbed.NeedRoot(t, "services with users of their own")
	for i, r := range catalogue {
		for j, way := range ways {
			if !soak.Whole() && j != i%len(ways) {
				continue // each service one way, each way several services
			}
			t.Run(r.name+"/"+way.name, func(t *testing.T) {
				t.Parallel()
				o := stopAtWork(t, r, way.command, `"$E" --grace 2m `+r.flags+`--`, terminate)
				require.True(t, o.whole, "%s", o.output)
				require.Contains(t, []int{0, 143}, o.code, "%s", o.output)
				require.NotContains(t, o.output, "grace time over")
				if r.flags == "" {
					require.NotContains(t, o.output, "went on")
				}
				require.Less(t, o.took, time.Minute, "before the last call: %s", o.output)
			})
		}
	}
}
