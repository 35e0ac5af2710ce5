package start

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Mistakes that keep SIGTERM from the service, in ENTRYPOINT and in start scripts.
func TestEntrypoints(t *testing.T) {
	t.Parallel()
	image := fstest.MapFS{"bin/sh": {Mode: 0o755}}
	script := func(name, text string, mode fs.FileMode) {
		image[name] = &fstest.MapFile{Data: []byte(text), Mode: mode}
	}
	script("exec.sh", "#!/bin/sh\nset -e\nexec /app/server\n", 0o755)
	script("plain.sh", "#!/bin/sh\n/app/server\n", 0o755)
	script("tomcat.sh", "#!/bin/sh\n/opt/tomcat/bin/catalina.sh start\n", 0o755)
	script("background.sh", "#!/bin/sh\n/app/server &\nwait\n", 0o755)
	script("noexec.sh", "#!/bin/sh\nexec x\n", 0o644)
	script("lost.sh", "#!/usr/bin/perl\nexec x\n", 0o755)
	script("crlf.sh", "#!/bin/sh\r\nexec x\r\n", 0o755)
	script("bare.sh", "exec x\n", 0o755)
	for dockerfile, want := range map[string]string{
		`ENTRYPOINT ["/exec.sh"]`:                                                  "",
		`ENTRYPOINT ["/app/server"]`:                                               "/app/server: command: is not in the image",
		`ENTRYPOINT /app/server`:                                                   "ENTRYPOINT: command: a shell stays process 1, ignores SIGTERM and does not pass it on: use the form with brackets, exec, or envconfig",
		`ENTRYPOINT exec /app/server`:                                              "/app/server: command: is not in the image",
		`ENTRYPOINT ["/plain.sh"]`:                                                 "/plain.sh:2: command: the last command has no exec: the shell stays process 1 and SIGTERM does not reach the service",
		`ENTRYPOINT ["/sbin/envconfig","--","sh","/plain.sh"]`:                     "",
		"ENTRYPOINT [\"/sbin/envconfig\",\"--\"]\nCMD [\"/tomcat.sh\"]":            "/tomcat.sh:2: command: starts Tomcat in the background: use catalina.sh run, or envconfig --on-main-exit=wait",
		`ENTRYPOINT ["/sbin/envconfig","--on-main-exit=wait","--","/tomcat.sh"]`:   "",
		`ENTRYPOINT ["/sbin/envconfig","--on-main-exit","wait","--","/tomcat.sh"]`: "",
		`ENTRYPOINT ["sh","/background.sh"]`:                                       "/background.sh:2: command: puts a process into the background: run the service in the foreground, or use envconfig --on-main-exit=wait",
		`ENTRYPOINT ["/noexec.sh"]`:                                                "/noexec.sh: command: is not executable: mode 0644",
		`ENTRYPOINT ["/lost.sh"]`:                                                  "/lost.sh:1: command: the interpreter /usr/bin/perl is not in the image",
		`ENTRYPOINT ["/crlf.sh"]`:                                                  "/crlf.sh:1: command: the first line ends in a carriage return, so that the interpreter is not found",
		`ENTRYPOINT ["/bare.sh"]`:                                                  "/bare.sh:1: command: has no #! line",
		"WORKDIR /\nENTRYPOINT [\"./plain.sh\"]\nFROM other\nCMD [\"/exec.sh\"]":   "",
		"FROM x AS first\nWORKDIR /\nCMD [\"./plain.sh\"]\nFROM first AS second\nENTRYPOINT " +
			"[\"sh\", \"/exec.sh\"]\nFROM --platform=linux/amd64 FIRST": "./plain.sh:2: command: " +
			"the last command has no exec: the shell stays process 1 and SIGTERM does not reach " +
			"the service",
		"ENTRYPOINT [\"/sbin/envconfig\",\"--\",\"/tomcat.sh\"]\nENV A=b " +
			"ENVCONFIG_ON_MAIN_EXIT=\"wait\"": "",
		"ENV ENVCONFIG_ON_MAIN_EXIT wait\nENTRYPOINT [\"/sbin/envconfig\",\"--\",\"/tomcat.sh\"]": "",
		"ENV ENVCONFIG_ON_MAIN_EXIT=wait\nENTRYPOINT [\"/exec.sh\"]":                              "",
		`ENTRYPOINT ["/sbin/envconfig","--init=false","--","sh","/plain.sh"]`:                     "/plain.sh:2: command: the last command has no exec: the shell stays process 1 and SIGTERM does not reach the service",
		"CMD [\"sh\", \"/plain.sh\"]\nENTRYPOINT [\"/sbin/envconfig\", \"--\"]":                   "",
		"ENV ENVCONFIG_INIT=false\nENV ENVCONFIG_INIT=true\nENTRYPOINT [\"/sbin/envconfig\", " +
			"\"--\", \"/plain.sh\"]": "",
		"ENV ENVCONFIG_INIT=false\nENTRYPOINT [\"/sbin/envconfig\", \"--init\", \"--\", " +
			"\"/plain.sh\"]": "",
		"ENV ENVCONFIG_ON_MAIN_EXIT=wait\nENTRYPOINT [\"/sbin/envconfig\", \"--on-main-exit\", " +
			"\"stop\", \"--\", \"/tomcat.sh\"]": "/tomcat.sh:2: command: starts Tomcat in the " +
			"background: use catalina.sh run, or envconfig --on-main-exit=wait",
		"ENTRYPOINT\t[\"sh\", \\\n # the service\n\"/exec.sh\"]":             "",
		`ENTRYPOINT ["sh","-e","/plain.sh"]`:                                 "/plain.sh:2: command: the last command has no exec: the shell stays process 1 and SIGTERM does not reach the service",
		`ENTRYPOINT ["bash","--login","-o","pipefail","+x","--","/exec.sh"]`: "",
		`ENTRYPOINT ["bash","-lc","/app/server"]`:                            "ENTRYPOINT: command: a shell stays process 1, ignores SIGTERM and does not pass it on: use the form with brackets, exec, or envconfig",
		`ENTRYPOINT ["/bin/bash","-euo","pipefail","-c","exec /app/server"]`: "/app/server: command: is not in the image",
		`ENTRYPOINT ["sh","-c"]`:                                             "",
		`CMD []`:                                                             "ENTRYPOINT: command: names no command",
		`ENTRYPOINT ["/sbin/envconfig", "x"]`:                                "ENTRYPOINT: command: names no command",
		"ENTRYPOINT [\"sh\", \\\n\"/exec.sh\"]":                              "",
	} {
		i := Dockerfile("FROM base\n" + dockerfile)
		var lines []string
		for _, f := range Entrypoint(i, image) {
			lines = append(lines, f.String())
		}
		require.Equal(t, want, strings.Join(lines, "\n"), dockerfile)
	}
}

// Common commands, each with a part of its finding, or empty where it is right.
func TestServicesAndTheirSignals(t *testing.T) {
	t.Parallel()
	for dockerfile, want := range map[string]string{
		// shells in front
		`ENTRYPOINT ["/usr/bin/env", "bash", "/plain.sh"]`:                               "/plain.sh:2: command: the last command has no exec",
		`ENTRYPOINT ["/usr/bin/env", "bash", "/exec.sh"]`:                                "",
		`ENTRYPOINT ["gosu", "app", "sh", "/plain.sh"]`:                                  "/plain.sh:2: command: the last command has no exec",
		`ENTRYPOINT ["su-exec", "app:app", "/opt/server"]`:                               "",
		`ENTRYPOINT ["nice", "-n", "5", "bash", "/plain.sh"]`:                            "the last command has no exec",
		`ENTRYPOINT ["setpriv", "--reuid", "1000", "--clear-groups", "sh", "/plain.sh"]`: "the last command has no exec",
		`ENTRYPOINT ["chroot", "/", "bash", "/plain.sh"]`:                                "the last command has no exec",
		`ENTRYPOINT ["/sbin/envconfig", "--", "gosu", "app", "sh", "/plain.sh"]`:         "",
		`ENTRYPOINT ["su", "app", "-c", "server"]`:                                       "su kills the service 2 seconds after SIGTERM",
		`ENTRYPOINT ["/sbin/envconfig", "--", "su", "app", "-c", "server"]`:              "",
		`ENTRYPOINT ["tini", "--", "sh", "/plain.sh"]`:                                   "tini ends with the shell",
		`ENTRYPOINT ["tini", "--", "sh", "/exec.sh"]`:                                    "",
		`ENTRYPOINT ["dumb-init", "sh", "-c", "/opt/server --x"]`:                        "dumb-init ends with the shell",
		`ENTRYPOINT ["sh", "-c", "exec node /app/deaf.js"]`:                              "node as process 1 ignores SIGTERM",
		// services that leave SIGTERM alone
		`CMD ["node", "/app/deaf.js"]`:                                                      "node as process 1 ignores SIGTERM",
		`CMD ["node", "/app/hears.js"]`:                                                     "",
		`CMD ["node", "--inspect", "server.js"]`:                                            "node as process 1 ignores SIGTERM",
		"ENTRYPOINT [\"tini\", \"--\"]\nCMD [\"node\", \"/app/deaf.js\"]":                   "",
		"ENTRYPOINT [\"/sbin/envconfig\", \"--\"]\nCMD [\"node\", \"/app/deaf.js\"]":        "",
		"ENTRYPOINT [\"/sbin/envconfig\", \"--init=false\", \"--\"]\nCMD [\"node\", \"x\"]": "node as process 1 ignores SIGTERM",
		`CMD ["python3.11", "-u", "app.py"]`:                                                "python as process 1 ignores SIGTERM",
		`CMD ["python", "-m", "gunicorn", "app:app"]`:                                       "",
		`CMD ["gunicorn", "app:app"]`:                                                       "",
		`CMD ["php", "-S", "0.0.0.0:80"]`:                                                   "php as process 1 ignores SIGTERM",
		`CMD ["tail", "-f", "/var/log/x"]`:                                                  "tail as process 1 ignores SIGTERM",
		`CMD ["npm", "start"]`:                                                              "npm does not pass SIGTERM on",
		`CMD ["java", "-jar", "/app.jar"]`:                                                  "",
		"ENTRYPOINT [\"/entry.sh\"]\nCMD [\"node\", \"server.js\"]":                         "/entry.sh:3: command: node as process 1 ignores SIGTERM",
		"ENTRYPOINT [\"/entry.sh\"]\nCMD [\"java\", \"-jar\", \"x\"]":                       "",
		// background and foreground
		`CMD ["nginx"]`: "nginx goes into the " +
			"background",
		`CMD ["nginx", "-c", "/etc/nginx.conf"]`: "nginx goes into the " +
			"background",
		"STOPSIGNAL QUIT\nCMD [\"nginx\", \"-g\", \"daemon off;\"]": "",
		`CMD ["httpd", "-DFOREGROUND"]`: "httpd cuts its requests " +
			"off at SIGTERM",
		"STOPSIGNAL SIGWINCH\nCMD [\"httpd\", \"-D\", \"FOREGROUND\"]": "",
		`CMD ["apachectl", "start"]`:                                   "apachectl puts the service into the background",
		`CMD ["cron"]`:                                                 "cron goes into the background",
		`CMD ["/usr/sbin/sshd", "-D", "-e"]`:                           "",
		`CMD ["/usr/sbin/sshd"]`:                                       "sshd goes into the background",
		`CMD ["redis-server", "--daemonize", "yes"]`: "redis-server puts the " +
			"service into the background",
		`CMD ["redis-server", "/etc/redis.conf"]`: "",
		`CMD ["service", "nginx", "start"]`:       "service puts the service into the background",
		`CMD ["memcached", "-d", "-m", "64"]`:     "memcached puts the service into the background",
		`CMD ["catalina.sh", "run"]`:              "",
		`CMD ["catalina.sh", "start"]`: "starts Tomcat in the " +
			"background",
		`CMD ["supervisord", "-c", "/daemon.conf"]`:                                  "supervisord goes into the background, and the container ends: add -n",
		`CMD ["supervisord", "-n", "-c", "/daemon.conf"]`:                            "",
		`CMD ["supervisord", "-c", "/stays.conf"]`:                                   "",
		"WORKDIR /\nCMD [\"supervisord\", \"-c\", \"stays.conf\"]":                   "",
		`CMD ["supervisord"]`:                                                        "supervisord goes into the background",
		`CMD ["php-fpm8.2"]`:                                                         "php-fpm goes into the background, and the container ends: add -F",
		"STOPSIGNAL QUIT\nCMD [\"php-fpm8.2\", \"-F\"]":                              "",
		"STOPSIGNAL QUIT\nCMD [\"php-fpm8.2\", \"-y\", \"/fpm.conf\"]":               "",
		"FROM shop/php:8\nCMD [\"php-fpm\", \"-R\"]":                                 "php-fpm cuts its requests off at SIGTERM",
		"STOPSIGNAL QUIT\nCMD [\"nginx\", \"-c\", \"/off.conf\"]":                    "",
		`CMD ["nginx", "-c", "/on.conf"]`:                                            "nginx goes into the background",
		"FROM httpd:2.4\nSTOPSIGNAL SIGTERM\nCMD [\"httpd-foreground\"]":             "httpd cuts its requests off at SIGTERM and finishes its requests at SIGWINCH",
		"FROM httpd:2.4\nCMD [\"httpd-foreground\"]":                                 "",
		"FROM x\nCMD [\"httpd-foreground\"]":                                         "STOPSIGNAL SIGWINCH",
		`CMD ["apache2ctl", "start"]`:                                                "apache2ctl puts the service into the background",
		`CMD ["apache2ctl", "-D", "FOREGROUND"]`:                                     "apache2ctl does not pass SIGTERM on",
		"ENTRYPOINT [\"envconfig\", \"--\"]\nCMD [\"apache2ctl\", \"-DFOREGROUND\"]": "",
		`CMD ["httpd", "-f", "-p", "80", "-h", "/www"]`:                              "BusyBox's httpd as process 1 ignores SIGTERM",
		`CMD ["mysqld_safe"]`:                                                        "mysqld_safe ignores SIGTERM",
		`CMD ["mysqld"]`:                                                             "",
		`CMD ["pg_ctlcluster", "15", "main", "start"]`:                               "pg_ctlcluster puts the service into the background",
		`CMD ["pg_ctlcluster", "15", "main", "start", "--foreground"]`:               "",
		`CMD ["crond"]`:                                  "crond goes into the background, and the container ends: add -f",
		`CMD ["slapd", "-d", "0"]`:                       "",
		`CMD ["slapd", "-h", "ldap:///"]`:                "slapd goes into the background",
		`CMD ["cassandra"]`:                              "cassandra goes into the background",
		`CMD ["dovecot", "-F"]`:                          "",
		`CMD ["kafka-server-start.sh", "-daemon", "/c"]`: "kafka-server-start.sh puts the service into the background",
		// signals
		`CMD ["nginx", "-g", "daemon off;"]`:                                           "nginx cuts its requests off at SIGTERM and finishes its requests at SIGQUIT (nginx(8)): STOPSIGNAL SIGQUIT",
		"FROM nginx:1.27\nCMD [\"nginx\", \"-g\", \"daemon off;\"]":                    "",
		"FROM php:8.3-fpm-alpine\nCMD [\"php-fpm\"]":                                   "",
		"FROM debian\nCMD [\"php-fpm8.2\", \"-F\"]":                                    "php-fpm cuts its requests off at SIGTERM",
		"STOPSIGNAL HUP\nCMD [\"nginx\", \"-g\", \"daemon off;\"]":                     "nginx reads its configuration again at SIGHUP",
		"ENTRYPOINT [\"/sbin/envconfig\", \"--\", \"nginx\", \"-g\", \"daemon off;\"]": "",
		"STOPSIGNAL SIGQUIT\nCMD [\"java\", \"-jar\", \"x.jar\"]":                      "java prints its threads and goes on at SIGQUIT: STOPSIGNAL SIGTERM",
		"STOPSIGNAL SIGKILL\nCMD [\"java\", \"-jar\", \"x.jar\"]":                      "SIGKILL cannot be handled",
		"STOPSIGNAL SIGFOO\nCMD [\"java\", \"-jar\", \"x.jar\"]":                       "is the name of no signal",
		"STOPSIGNAL 15\nCMD [\"java\", \"-jar\", \"x.jar\"]":                           "",
		`CMD ["uwsgi", "--http", ":80"]`:                                               "uwsgi starts again",
		`CMD ["uwsgi", "--http", ":80", "--die-on-term"]`:                              "",
		"STOPSIGNAL QUIT\nCMD [\"gunicorn\", \"a:a\"]":                                 "gunicorn cuts its requests off at SIGQUIT",
		// scripts
		`ENTRYPOINT ["/branches.sh"]`: "",
		`ENTRYPOINT ["/half.sh"]`:     "/half.sh:7: command: the last command has no exec",
		`ENTRYPOINT ["/pipe.sh"]`:     "exec in a pipeline",
		`ENTRYPOINT ["/paren.sh"]`:    "exec in a pipeline or in parentheses",
		`ENTRYPOINT ["/main.sh"]`:     "",
		`ENTRYPOINT ["/trap.sh"]`:     "/trap.sh:2: command: the trap runs only when",
		`ENTRYPOINT ["/trapwait.sh"]`: "",
		`ENTRYPOINT ["/deafened.sh"]`: "ignores SIGTERM, for itself",
		`ENTRYPOINT ["/broken.sh"]`:   "is no valid shell script",
		`ENTRYPOINT ["/nginx.sh"]`: "/nginx.sh:2: command: nginx puts the service into the " +
			"background",
		`ENTRYPOINT ["/sourced.sh"]`: "",
		`ENTRYPOINT ["/envpy"]`:      "/envpy:1: command: python as process 1 ignores SIGTERM",
	} {
		image := fstest.MapFS{"bin/sh": {Mode: 0o755}, "bin/bash": {Mode: 0o755},
			"usr/bin/env": {Mode: 0o755}, "usr/sbin/sshd": {Data: []byte("\x7fELF"), Mode: 0o755},
			"opt/server":   {Data: []byte("\x7fELF"), Mode: 0o755},
			"app/deaf.js":  {Data: []byte("require('http').createServer().listen(80)")},
			"app/hears.js": {Data: []byte("process.on('SIGTERM', () => server.close())")},
		}
		for name, text := range map[string]string{
			"exec.sh": "set -e\nexec /opt/server \"$@\"", "plain.sh": "/opt/server",
			"entry.sh": "set -e\nexec \"$@\"",
			"branches.sh": "if [ \"$1\" = x ]; then\n  exec /opt/server x\nelse\n  exec " +
				"/opt/server\nfi", "half.sh": "if [ \"$1\" = x ]; then\n  exec /opt/server " +
				"x\nfi\ncase $1 in a) exec a;;\n*) exec b;; esac\n/opt/server",
			"pipe.sh": "exec /opt/server 2>&1 | tee /log", "paren.sh": "( exec /opt/server )",
			"main.sh":     "main() {\n  exec /opt/server\n}\nmain \"$@\"",
			"trap.sh":     "trap 'echo bye' TERM\n/opt/server",
			"trapwait.sh": "trap 'kill $pid; wait $pid' TERM\n/opt/server &\npid=$!\nwait $pid",
			"deafened.sh": "trap '' TERM\nexec /opt/server",
			"broken.sh":   "if true; then\n/opt/server", "nginx.sh": "nginx\nsleep infinity",
			"sourced.sh": ". /lib.sh",
		} {
			image[name] = &fstest.MapFile{Data: []byte("#!/bin/sh\n" + text + "\n"), Mode: 0o755}
		}
		for name, text := range map[string]string{"daemon.conf": "[supervisord]\n;nodaemon=true\n",
			"stays.conf": "[supervisord]\nnodaemon = true ; stay\n", "fpm.conf": "daemonize = no\n",
			"off.conf": "pid x; daemon  off;\n", "on.conf": "# daemon off;\n"} {
			image[name] = &fstest.MapFile{Data: []byte(text)}
		}
		image["envpy"] = &fstest.MapFile{Data: []byte("#!/usr/bin/env python3\nprint(1)\n"),
			Mode: 0o755}
		if !strings.HasPrefix(dockerfile, "FROM ") {
			dockerfile = "FROM debian\n" + dockerfile
		}
		var lines []string
		for _, f := range Entrypoint(Dockerfile(dockerfile), image) {
			lines = append(lines, f.String())
		}
		got := strings.Join(lines, "\n")
		if want == "" {
			assert.Empty(t, got, dockerfile)
		} else {
			assert.Contains(t, got, want, dockerfile)
		}
	}
}

// Without the image's files a shell that runs a script is reported, and nothing that depends on the
// files is.
func TestImageThatIsNotThere(t *testing.T) {
	t.Parallel()
	for dockerfile, want := range map[string]bool{
		`ENTRYPOINT ["sh", "startup.sh"]`: true, `ENTRYPOINT ["/docker-entrypoint.sh"]`: false,
		`ENTRYPOINT ["/sbin/envconfig", "--", "sh", "startup.sh"]`: false,
		`ENTRYPOINT ["env", "bash", "x.sh"]`:                       true,
		`CMD ["/app/server"]`:                                      false,
		`CMD ["node", "x.js"]`:                                     true,
		`CMD ["supervisord", "-c", "/a.conf"]`:                     true,
	} {
		assert.Equal(t, want, len(Entrypoint(Dockerfile("FROM debian\n"+dockerfile), nil)) > 0,
			dockerfile)
	}
}
