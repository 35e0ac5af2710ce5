package start

import (
	"path"
	"slices"
	"strings"
)

// The tables below hold the reactions of programs to signals and the arguments that keep them in
// the foreground, by their manuals.

// drains are the signals at which services finish the requests that they have; SIGTERM cuts them
// off there.
var drains = map[string]struct{ signal, source string }{
	"nginx":   {"QUIT", "nginx(8)"},
	"unitd":   {"QUIT", "unitd(8)"},
	"php-fpm": {"QUIT", "php-fpm(8)"},
	"httpd":   {"WINCH", "httpd.apache.org/docs/current/stopping.html"},
	"apache2": {"WINCH", "httpd.apache.org/docs/current/stopping.html"},
	"haproxy": {"USR1", "the management guide of HAProxy, chapter 4"},
	"unicorn": {"QUIT", "the page SIGNALS of unicorn"},
}

// rewrites are the services for which envconfig rewrites SIGTERM by itself.
var rewrites = []string{"nginx", "php-fpm", "httpd", "apache2", "haproxy"}

// not are signals that do something else than to stop a service.
var not = map[string]map[string]string{
	"java": {"QUIT": "prints its threads and goes on", "HUP": "may end at once",
		"USR1": "does not end"},
	"nginx": {"HUP": "reads its configuration again", "USR1": "opens its logs again",
		"USR2": "starts a new binary", "WINCH": "stops its workers and stays"},
	"php-fpm": {"USR1": "opens its logs again", "USR2": "reads its configuration again"},
	"httpd":   {"HUP": "restarts", "USR1": "restarts"},
	"apache2": {"HUP": "restarts", "USR1": "restarts"},
	"haproxy": {"USR2": "reads its configuration again", "HUP": "prints its state and goes on"},
	"gunicorn": {"QUIT": "cuts its requests off", "INT": "cuts its requests off",
		"HUP": "reads its configuration again"},
	"celery":   {"QUIT": "loses its tasks"},
	"postgres": {"QUIT": "stops without a checkpoint", "HUP": "reads its configuration again"},
	"mysqld":   {"HUP": "writes its tables and goes on"},
	"uwsgi": {"TERM": "starts again, unless it has --die-on-term",
		"HUP": "reads its configuration again"},
	"redis": {"HUP": "does not end"},
	"envoy": {"HUP": "does not end"},
}

// bases are images of Docker's official library and the like that set a signal themselves.
var bases = []string{"nginx", "nginx-unprivileged", "httpd", "haproxy", "postgres", "unit",
	"openresty", "wordpress", "nextcloud"}

// deaf are programs that leave SIGTERM at its default, which the kernel does not apply to process 1
// (pid_namespaces(7)).
var deaf = []string{"node", "nodejs", "python", "php", "perl", "cron", "crond", "tail", "sleep",
	"deno", "bun", "ts-node", "tsx", busyBoxHTTPD}

const busyBoxHTTPD = "BusyBox's httpd"

// runners start a program through a shell or as a child that they do not pass a signal on to.
var runners = []string{"npm", "yarn", "pnpm", "npx", "nodemon", "pipenv", "poetry", "make",
	"forever"}

// listening are modules and scripts of those languages that handle SIGTERM.
var listening = []string{"gunicorn", "uvicorn", "celery", "supervisor", "supervisord", "hypercorn",
	"waitress", "daphne", "twisted", "tornado"}

// foreground are the arguments that keep a program in the foreground, one of which it needs.
var foreground = map[string][]string{
	"nginx": {"daemon off"}, "httpd": {"-DFOREGROUND", "FOREGROUND", "-X", "NO_DETACH"},
	"apache2": {"-DFOREGROUND", "FOREGROUND", "-X", "NO_DETACH"},
	"sshd":    {"-D", "-d", "-De", "-eD"}, "cron": {"-f"}, "crond": {"-f", "-n", "-s", "-d"},
	"rsyslogd": {"-n"}, "lighttpd": {"-D"}, "named": {"-f", "-g"},
	"dnsmasq":    {"-k", "-d", "--keep-in-foreground", "--no-daemon"},
	"keepalived": {"-n", "--dont-fork", "-l"}, "varnishd": {"-F", "-d"},
	"squid": {"-N", "--foreground", "-NYC", "-NYCd1"}, "ntpd": {"-n", "-d"},
	"smbd": {"-F", "--foreground", "-i"}, "nmbd": {"-F", "--foreground", "-i"},
	"vsftpd":  {"background=NO"},
	"proftpd": {"-n", "--nodaemon"}, "atd": {"-f"}, "dhcpd": {"-f", "-d"}, "bird": {"-f", "-d"},
	"supervisord": {"-n", "--nodaemon"}, "php-fpm": {"-F", "--nodaemonize"}, "slapd": {"-d"},
	"dovecot": {"-F"}, "unbound": {"-d"}, "chronyd": {"-d", "-n"}, "cassandra": {"-f"},
	"snmpd": {"-f"}, "zabbix_server": {"-f", "--foreground"},
	"zabbix_agentd": {"-f", "--foreground"}, "xinetd": {"-dontfork", "-d"}, "inetd": {"-d", "-f"},
	"syslog-ng": {"-F", "--foreground"}, "radvd": {"-n", "--nodaemon", "-d"},
	"collectd": {"-f"}, "dropbear": {"-F"}, "winbindd": {"-F", "--foreground", "-i"},
}

// background are the arguments that put a program into the background.
var background = map[string][]string{
	"memcached": {"-d"}, "haproxy": {"-D"},
	"mysqld": {"--daemonize"}, "mongod": {"--fork"}, "gunicorn": {"-D", "--daemon"},
	"unicorn": {"-D", "--daemonize"}, "uwsgi": {"--daemonize", "-d"},
	"redis-server": {"--daemonize"}, "puma": {"-d"}, "catalina.sh": {"start"},
	"apachectl":  {"start"},
	"apache2ctl": {"start"}, "pg_ctl": {"start"}, "postfix": {"start"},
	"rabbitmq-server": {"-detached"}, "celery": {"--detach", "-D"}, "pm2": {"start"},
	"rc-service": {"start"}, "service": {"start", "restart"}, "systemctl": {"start"},
	"supervisorctl": {"start"}, "zkServer.sh": {"start"}, "nohup": {"&"},
	"kafka-server-start.sh": {"-daemon"}, "zookeeper-server-start.sh": {"-daemon"},
	"elasticsearch": {"-d", "--daemonize"}, "opensearch": {"-d", "--daemonize"},
	"openvpn": {"--daemon"}, "pgbouncer": {"-d", "--daemon"}, "activemq": {"start"},
	"jetty.sh": {"start"}, "emqx": {"start"}, "thin": {"-d", "--daemonize"},
	"dbus-daemon": {"--fork"}, "avahi-daemon": {"-D", "--daemonize"}, "invoke-rc.d": {"start"},
	"openrc": {"default"}, "mongos": {"--fork"},
}

// program is the name under which a program is in the tables above: python3.11 is python,
// php-fpm8.2 php-fpm.
func program(argv0 string) string {
	name := path.Base(argv0)
	switch trimmed := strings.TrimRight(name, "0123456789."); {
	case slices.Contains([]string{"python", "php", "php-fpm", "perl", "ruby", "node", "mysqld",
		"postgres"}, trimmed):
		return trimmed
	case name == "mariadbd":
		return "mysqld"
	case name == "openresty":
		return "nginx"
	case name == "httpd-foreground":
		return "httpd"
	case name == "redis-server", name == "valkey-server":
		return "redis-server"
	}
	return name
}

// detaches reports whether a command puts its service into the background.
func detaches(argv []string) bool {
	name := program(argv[0])
	args := argv[1:]
	switch {
	case path.Base(argv[0]) == "httpd-foreground": // a script of the image httpd
		return false
	case name == "pg_ctlcluster":
		return slices.Contains(args, "start") && !slices.Contains(args, "--foreground")
	case isBusyBox(argv):
		return !slices.Contains(args, "-f")
	}
	if words, ok := foreground[name]; ok {
		joined := strings.Join(args, " ")
		if slices.ContainsFunc(args, func(a string) bool {
			return slices.Contains([]string{"-v", "-V", "-t", "-T", "-s", "--version",
				"configtest"}, a)
		}) {
			return false // asks, and ends
		}
		return !slices.ContainsFunc(words, func(w string) bool {
			return strings.HasPrefix(w, "-") && slices.ContainsFunc(args, func(a string) bool {
				return a == w || strings.HasPrefix(a, w) && len(w) > 2
			}) ||
				!strings.HasPrefix(w, "-") && strings.Contains(joined, w)
		})
	}
	if name == "redis-server" {
		i := slices.Index(args, "--daemonize")
		return i >= 0 && i+1 < len(args) && args[i+1] == "yes"
	}
	if strings.HasPrefix(argv[0], "/etc/init.d/") {
		return slices.Contains(args, "start") || slices.Contains(args, "restart")
	}
	if name == "startup.sh" && strings.Contains(argv[0], "bin/") {
		return true
	}
	if name == "pm2" && slices.Contains(args, "--no-daemon") {
		return false
	}
	return slices.ContainsFunc(args, func(a string) bool {
		return slices.Contains(background[name], a)
	})
}

// isBusyBox reports whether httpd is BusyBox's, by options that take an argument there and that
// Apache lacks or takes without one (https://busybox.net/downloads/BusyBox.html).
func isBusyBox(argv []string) bool {
	return path.Base(argv[0]) == "httpd" && slices.ContainsFunc(argv, func(a string) bool {
		return a == "-p" || a == "-h"
	})
}

// signals are the names that STOPSIGNAL takes beside numbers.
var signals = strings.Fields("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM " +
	"TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH " +
	"IO PWR SYS RTMIN RTMIN+1 RTMIN+2 RTMIN+3 RTMIN+4 RTMIN+5 RTMIN+6 RTMAX")

// signal returns the name of a signal without SIG, or "" if name is no signal.
func signal(name string) string {
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	numbers := map[string]string{"1": "HUP", "2": "INT", "3": "QUIT", "9": "KILL", "10": "USR1",
		"12": "USR2", "15": "TERM", "19": "STOP", "28": "WINCH", "37": "RTMIN+3"}
	if n, ok := numbers[name]; ok {
		return n
	}
	if slices.Contains(signals, name) || name != "" && strings.Trim(name, "0123456789") == "" &&
		len(name) < 3 {
		return name
	}
	return ""
}
