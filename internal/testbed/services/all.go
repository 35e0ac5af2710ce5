//go:build linux

package services

import (
	"path/filepath"
	"strings"
)

const phpNginx = `
daemon off; pid DIR/nginx.pid; error_log stderr; user root;
events {}
http { access_log off; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi; server { listen 127.0.0.1:PORT;
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

var apache = map[string]string{
	"httpd.conf": slowApache,
	"ready.cgi":  "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nwhole'\n",
	"slow.cgi": "#!/bin/sh\necho WORKING >&2\nsleep 1\n" +
		"printf 'Content-Type: text/plain\\n\\nwhole'\n",
}

// phpFPM is the name of the program, which Debian gives a version.
func phpFPM() string {
	if found, _ := filepath.Glob("/usr/sbin/php-fpm[0-9]*"); len(found) > 0 {
		return filepath.Base(found[0])
	}
	return "php-fpm"
}

// All has one entry for each kind of service. The programs are those of the Debian packages nginx,
// php-fpm, openjdk, nodejs, gunicorn, celery, supervisor, cron, tomcat10, haproxy and apache2.
var All = []Service{
	{
		Name: "nginx and php-fpm", Needs: []string{"nginx=nginx", phpFPM() + "=php-fpm"},
		Files:   with(php, "both.sh", php["fpm.sh"]+"nginx -c DIR/nginx.conf &\nwait\n"),
		Command: "sh DIR/both.sh", Works: "WORKING",
	},
	{
		Name: "nginx and php-fpm, bash, trap QUIT", Needs: []string{"nginx=nginx",
			phpFPM() + "=php-fpm"},
		Files: with(php, "both.sh", php["fpm.sh"]+"fpm=$!\nnginx -c DIR/nginx.conf & ng=$!\n"+
			"trap 'kill -QUIT $ng; wait $ng; kill -QUIT $fpm; exit 0' TERM QUIT\nwait\n"),
		Command: "bash DIR/both.sh", Works: "WORKING",
	},
	{
		Name: "node", Needs: []string{"node=nodejs"}, Files: map[string]string{"slow.js": slowNode},
		Command: "node DIR/slow.js", Works: "WORKING",
	},
	{
		Name: "java", Needs: []string{"java=default-jre-headless", "javac=default-jdk-headless"},
		Files:   map[string]string{"Slow.java": slowJava},
		Command: "java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp DIR Slow", Works: "WORKING",
	},
	{
		Name: "tomcat", Needs: []string{"java=default-jre-headless",
			"/usr/share/tomcat10/bin/catalina.sh=tomcat10"},
		Files: map[string]string{
			"conf/server.xml": `<Server port="-1"><Service name="Catalina" gracefulStopAwaitMillis="20000"><Connector port="PORT" address="127.0.0.1"/>` +
				`<Engine name="Catalina" defaultHost="shop"><Host name="shop" appBase="webapps" autoDeploy="false"/></Engine></Service></Server>`,
			"conf/web.xml": `<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0"><servlet><servlet-name>jsp</servlet-name>` +
				`<servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class></servlet><servlet-mapping><servlet-name>jsp</servlet-name>` +
				`<url-pattern>*.jsp</url-pattern></servlet-mapping></web-app>`,
			"webapps/ROOT/ready.jsp": "whole", "temp/.keep": "", "work/.keep": "", "logs/.keep": "",
			"webapps/ROOT/slow.jsp": `<% System.out.println("WORKING"); Thread.sleep(3000); %>whole`,
		},
		Command: "env CATALINA_BASE=DIR CATALINA_TMPDIR=DIR/temp " +
			"CATALINA_OPTS=-XX:TieredStopAtLevel=1 sh /usr/share/tomcat10/bin/catalina.sh run",
		Works: "WORKING", Suffix: ".jsp",
	},
	{
		Name: "gunicorn", Needs: []string{"gunicorn=gunicorn"},
		Files:   map[string]string{"slow.py": slowPython},
		Command: "gunicorn -w 2 -b 127.0.0.1:PORT --chdir DIR slow:app", Works: "WORKING",
	},
	{
		Name: "celery", Needs: []string{"celery=celery"},
		Files: map[string]string{"tasks.py": slowCelery, "queue/.keep": ""},
		Command: "env C_FORCE_ROOT=1 /usr/bin/python3 -m celery --workdir DIR -A tasks worker -c " +
			"1 -P prefork --without-gossip --without-mingle -l INFO",
		Task: "cd DIR && until /usr/bin/python3 -c 'import tasks; tasks.slow.delay()'; do :; " +
			"done",
		Works: "WORKING", Done: "TASK DONE",
	},
	{
		Name: "supervisord", Needs: []string{"supervisord=supervisor", "gunicorn=gunicorn"},
		Files: map[string]string{"slow.py": slowPython,
			"supervisord.conf": "[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=DIR/supervisord.pid\n" +
				"[program:web]\ncommand=gunicorn -b 127.0.0.1:PORT --chdir DIR " +
				"slow:app\nstderr_logfile=/dev/fd/2\nstderr_logfile_maxbytes=0\n"},
		Command: "supervisord -c DIR/supervisord.conf", Works: "WORKING",
	},
	{
		Name: "cron", Needs: []string{"cron=cron"},
		Files: map[string]string{
			"tab": "@reboot sh DIR/job.sh > DIR/log 2>&1\n", "job.sh": "echo WORKING\nsleep " +
				"1\necho TASK DONE\n",
		},
		Command: "cron -f", Works: "WORKING", Done: "TASK DONE",
	},
	{
		Name: "a daemon", Needs: []string{"nginx=nginx", phpFPM() + "=php-fpm"},
		Files: with(php, "nginx.conf", strings.Replace(phpNginx, "daemon off;", "", 1),
			"both.sh", "PHPFPM -R -D -y DIR/fpm.conf\nnginx -c DIR/nginx.conf\n"),
		Command: "sh DIR/both.sh", Works: "WORKING", Flags: "--on-main-exit=wait --pid-file " +
			"DIR/nginx.pid ",
	},
	{
		Name: "haproxy", Needs: []string{"haproxy=haproxy"},
		Files:   map[string]string{"slow.lua": slowLua, "haproxy.cfg": slowHAProxy},
		Command: "haproxy -W -db -f DIR/haproxy.cfg", Works: "WORKING",
	},
	{
		Name: "apache", Needs: []string{"apache2=apache2"}, Files: apache,
		Command: "apache2 -DFOREGROUND -f DIR/httpd.conf", Works: "WORKING",
	},
	{
		Name: "a daemon, one program", Needs: []string{"apache2=apache2"},
		// its standard error is /dev/null
		Files: with(apache, "httpd.conf", strings.Replace(slowApache, "/proc/self/fd/2",
			"DIR/log", 1)),
		Command: "apache2 -f DIR/httpd.conf", Works: "WORKING", Flags: "--on-main-exit=wait " +
			"--pid-file DIR/httpd.pid ",
	},
}
