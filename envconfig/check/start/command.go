package start

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig/check"
)

// maxFile is the size beyond which a file is no script.
const maxFile = 16 << 20

// Image describes the start of the service of an image.
type Image struct {
	// Command is ENTRYPOINT followed by CMD.
	Command []string
	// Dir is the working directory.
	Dir string
	// StopSignal is the image's STOPSIGNAL. The default is SIGTERM.
	StopSignal string
	// Base is the image in a registry that the last stage begins with, or empty.
	Base string
}

// Entrypoint checks the command of an image for mistakes that keep a signal from the service or cut
// its requests off. Scripts that the command names are read from root, the image's file system; nil
// means that there is none to look into.
func Entrypoint(i Image, root fs.FS) []check.Finding {
	l := &linter{image: i, root: root, source: "ENTRYPOINT"}
	var service []string
	service, l.wrapped, l.waits = unwrap(i.Command)
	if len(service) == 0 {
		l.report(0, "names no command")
		return l.out
	}
	l.stopSignal()
	l.run(0, service, nil)
	return l.out
}

// linter collects the findings.
type linter struct {
	image          Image
	root           fs.FS
	source         string // the checked source
	wrapped, waits bool   // envconfig is in front; and waits for background processes
	depth          int
	out            []check.Finding
}

func (l *linter) report(line int, format string, args ...any) {
	l.out = append(l.out, check.Finding{Rule: check.RuleCommand, Source: l.source, Line: line,
		Message: fmt.Sprintf(format, args...)})
}

const inFront = "put envconfig in front of it"

// run looks at the command that a line executes; behind are the arguments that "$@" stands for.
func (l *linter) run(line int, argv, behind []string) {
	if len(argv) == 0 {
		return
	}
	if name := path.Base(argv[0]); (name == "su" || name == "runuser") && !l.wrapped &&
		slices.ContainsFunc(argv, func(a string) bool {
			return a == "-c" || strings.HasPrefix(a, "--command") || a == "--session-command"
		}) {
		l.report(line, "%s kills the service 2 seconds after SIGTERM (su(1)): use setpriv or "+
			"gosu, or %s", name, inFront)
		return
	}
	service, init := peel(argv)
	if len(service) == 0 {
		return
	}
	if isShell(service[0]) {
		l.shell(line, service, init)
		return
	}
	if script := service[0]; l.root != nil && l.source == "ENTRYPOINT" {
		before := len(l.out)
		l.script(script, service[1:], true, init)
		if len(l.out) > before && l.out[before].Source == script && l.out[before].Line == 0 {
			return // there is no such file
		}
	}
	l.service(line, service, init)
}

// shell looks at a shell that runs a script or a line.
func (l *linter) shell(line int, service []string, init string) {
	what, isLine := shellRuns(service[1:])
	switch {
	case what == "":
	case isLine && l.wrapped:
		if argv := words1(what); argv != nil {
			l.run(line, argv, nil)
		}
	case isLine:
		rest, ok := strings.CutPrefix(strings.TrimSpace(what), "exec ")
		if argv := words1(rest); ok && argv != nil {
			l.run(line, argv, nil)
		} else if !ok && init == "" {
			l.report(line, "a shell stays process 1, ignores SIGTERM and does not pass it on: "+
				"use the form with brackets, exec, or envconfig")
		} else if !ok {
			l.report(line, "%s ends with the shell, and the service is killed before it has "+
				"finished: use exec, or envconfig", init)
		}
	case l.root == nil && !l.wrapped && l.source == "ENTRYPOINT":
		l.report(line, "a shell is process 1: SIGTERM reaches the service only if %s ends in "+
			"exec, which --image-root would tell: %s", what, inFront)
	case l.root != nil:
		l.script(what, arguments(service, what), false, init)
	}
}

// arguments returns the arguments after the script.
func arguments(argv []string, script string) []string {
	for i, a := range argv {
		if a == script {
			return argv[i+1:]
		}
	}
	return nil
}

// service looks at a program that becomes process 1, or the child of an init.
func (l *linter) service(line int, argv []string, init string) {
	name := program(argv[0])
	if isBusyBox(argv) {
		name = busyBoxHTTPD
	}
	if detaches(argv) && !l.inConfig(argv) && !l.waits {
		switch {
		case name == "catalina.sh" || name == "startup.sh":
			l.report(line, "starts Tomcat in the background: use catalina.sh run, or envconfig "+
				"--on-main-exit=wait")
		case foreground[name] != nil:
			l.report(line, "%s goes into the background, and the container ends%s: add %s, or use "+
				"envconfig --on-main-exit=wait", name, l.unless(name), hint(name))
		default:
			l.report(line, "%s puts the service into the background: run it in the foreground, "+
				"or use envconfig --on-main-exit=wait", name)
		}
		return
	}
	if !l.wrapped && init == "" {
		switch {
		case slices.Contains(deaf, name) && !l.listens(argv):
			l.report(line, "%s as process 1 ignores SIGTERM unless the program handles it, and "+
				"is killed after the grace time: %s, or an init", name, inFront)
		case name == "mysqld_safe":
			l.report(line, "mysqld_safe ignores SIGTERM: run mysqld or mariadbd itself")
		case (name == "apachectl" || name == "apache2ctl") && !slices.Contains(argv, "-t"):
			l.report(line, "%s does not pass SIGTERM on: run apache2 or httpd with -DFOREGROUND, "+
				"or %s", name, inFront)
		case slices.Contains(runners, name) && len(argv) > 1:
			l.report(line, "%s does not pass SIGTERM on: run the program itself, or %s", name,
				inFront)
		}
	}
	l.drain(line, name, argv)
}

func hint(name string) string {
	if name == "nginx" {
		return "-g 'daemon off;'"
	}
	return foreground[name][0]
}

// configuration says in which files of an image, by default, and by which line a program is kept in
// the foreground. The program's option -c or -y names another file.
type configuration struct {
	files  []string // patterns of fs.Glob
	option string
	line   *regexp.Regexp
}

var configurations = map[string]configuration{
	"nginx": {[]string{"etc/nginx/nginx.conf", "usr/local/openresty/nginx/conf/nginx.conf"}, "-c",
		regexp.MustCompile(`(?m)^[^#\n]*\bdaemon\s+off\s*;`)},
	"supervisord": {[]string{"etc/supervisor/supervisord.conf", "etc/supervisord.conf"}, "-c",
		regexp.MustCompile(`(?mi)^\s*nodaemon\s*=\s*(?:true|yes|on|1)\s*(?:;|$)`)},
	"php-fpm": {[]string{"etc/php-fpm.conf", "etc/php*/php-fpm.conf", "etc/php/*/fpm/php-fpm.conf",
		"etc/php-fpm.d/*.conf", "etc/php*/php-fpm.d/*.conf", "etc/php/*/fpm/pool.d/*.conf",
		"usr/local/etc/php-fpm.conf", "usr/local/etc/php-fpm.d/*.conf"}, "-y",
		regexp.MustCompile(`(?mi)^\s*daemonize\s*=\s*(?:no|off|false|0)\s*(?:;|$)`)},
}

// inConfig reports whether a program's configuration in the image, or the image that it begins
// with, keeps it in the foreground.
func (l *linter) inConfig(argv []string) bool {
	name := program(argv[0])
	if name == "php-fpm" && strings.Contains(l.image.Base, "php") {
		return true // php:fpm and images made of it have daemonize = no
	}
	c, ok := configurations[name]
	if l.root == nil || !ok {
		return false
	}
	files := c.files
	if i := slices.Index(argv, c.option); i > 0 && i+1 < len(argv) {
		files = []string{strings.TrimPrefix(path.Join("/", l.image.Dir, argv[i+1]), "/")}
		if path.IsAbs(argv[i+1]) {
			files = []string{strings.TrimPrefix(path.Clean(argv[i+1]), "/")}
		}
	}
	return slices.ContainsFunc(files, func(pattern string) bool {
		found, _ := fs.Glob(l.root, pattern)
		return slices.ContainsFunc(found, func(file string) bool {
			data, err := fs.ReadFile(l.root, file)
			return err == nil && c.line.Match(data)
		})
	})
}

// unless says what the configuration, which is not there to be looked at, may say.
func (l *linter) unless(name string) string {
	if line, ok := map[string]string{"supervisord": "nodaemon=true", "php-fpm": "daemonize = no",
		"nginx": "daemon off"}[name]; ok && l.root == nil {
		return " unless its configuration has " + line + ", which --image-root would tell"
	}
	return ""
}

var handlers = regexp.MustCompile(
	`process\.(?:on|once)\(\s*['"]SIGTERM|signal\.signal\(|add_signal_handler\(|pcntl_(?:async_)?signal|\$SIG\{TERM\}|Deno\.addSignalListener`)

// listens reports whether a program in one of the languages of deaf handles SIGTERM, as far as its
// text is there.
func (l *linter) listens(argv []string) bool {
	for _, a := range argv[1:] {
		if slices.Contains(listening, path.Base(a)) || strings.HasPrefix(a, "gunicorn") {
			return true
		}
		if l.root == nil || strings.HasPrefix(a, "-") {
			continue
		}
		name := a
		if !path.IsAbs(name) {
			name = path.Join("/", l.image.Dir, name)
		}
		if data, err := fs.ReadFile(l.root, strings.TrimPrefix(path.Clean(name), "/")); err == nil {
			return handlers.Match(data)
		}
	}
	return false
}

// stopSignal looks at STOPSIGNAL by itself.
func (l *linter) stopSignal() {
	if l.image.StopSignal == "" {
		return
	}
	switch name := signal(l.image.StopSignal); name {
	case "":
		l.out = append(l.out, check.Finding{Rule: check.RuleCommand, Source: "STOPSIGNAL",
			Message: "is the name of no signal: the engine refuses to start the container"})
	case "KILL", "STOP":
		l.out = append(l.out, check.Finding{Rule: check.RuleCommand, Source: "STOPSIGNAL",
			Message: "SIG" + name + " cannot be handled: the service has no time to finish"})
	}
}

// drain checks the image's stop signal against the service's reaction to it.
func (l *linter) drain(line int, name string, argv []string) {
	sent := signal(l.image.StopSignal)
	if l.image.StopSignal == "" {
		if sent = "TERM"; slices.ContainsFunc(bases, func(b string) bool {
			return l.basedOn(b)
		}) || l.basedOn("php") && name == "php-fpm" {
			return // the base sets it
		}
	}
	if sent == "" || sent == "KILL" || sent == "STOP" || l.wrapped &&
		slices.Contains(rewrites, name) && (sent == "TERM" || sent == drains[name].signal) {
		return
	}
	key := name
	if name == "redis-server" {
		key = "redis"
	}
	if name == "uwsgi" && slices.Contains(argv, "--die-on-term") {
		return
	}
	if d, ok := drains[name]; ok && d.signal != sent {
		what := "cuts its requests off"
		if other, ok := not[key][sent]; ok {
			what = other
		}
		l.report(line, "%s %s at SIG%s and finishes its requests at SIG%s (%s): STOPSIGNAL "+
			"SIG%s, or envconfig --rewrite %s:%s", name, what, sent, d.signal, d.source, d.signal,
			sent, d.signal)
	} else if other, bad := not[key][sent]; bad && !(ok && d.signal == sent) {
		l.report(line, "%s %s at SIG%s: STOPSIGNAL %s, or envconfig --rewrite %s:%s", name, other,
			sent, stopOf(name), sent, strings.TrimPrefix(stopOf(name), "SIG"))
	}
}

// stopOf is the signal that stops a service as it should be.
func stopOf(name string) string {
	if d, ok := drains[name]; ok {
		return "SIG" + d.signal
	}
	switch name {
	case "uwsgi", "postgres":
		return "SIGINT"
	}
	return "SIGTERM"
}

func (l *linter) basedOn(name string) bool {
	base, _, _ := strings.Cut(l.image.Base, "@")
	last := path.Base(base)
	repository, tag, _ := strings.Cut(last, ":")
	return repository == name && (name != "php" || strings.Contains(tag, "fpm"))
}

func isWrapped(command []string) bool {
	return len(command) > 0 && path.Base(command[0]) == "envconfig"
}

// unwrap finds the service behind envconfig, which stays before a shell or a script unless it was
// told not to.
func unwrap(command []string) (service []string, wrapped, waits bool) {
	if !isWrapped(command) {
		return command, false, false
	}
	wrapped = true
	for i, arg := range command {
		if arg == "--" {
			return command[i+1:], wrapped, waits
		}
		name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !ok && i+1 < len(command) {
			value = command[i+1]
		}
		switch name { // the last counts
		case "init":
			wrapped = !ok || value != "false"
		case "on-main-exit":
			waits = value == "wait"
		}
	}
	return nil, wrapped, waits
}

func isShell(name string) bool {
	switch path.Base(name) {
	case "sh", "bash", "dash", "ash", "zsh", "ksh":
		return true
	}
	return false
}

// shellRuns is the script that a shell is given, or the line that it is given with -c.
func shellRuns(args []string) (what string, isLine bool) {
	for len(args) > 0 && len(args[0]) > 1 && strings.IndexByte("-+", args[0][0]) >= 0 {
		option := args[0]
		args = args[1:]
		if option == "--" {
			break
		}
		if strings.HasPrefix(option, "--") {
			continue
		}
		isLine = isLine || option[0] == '-' && strings.Contains(option, "c")
		if strings.HasSuffix(option, "o") && len(args) > 0 {
			args = args[1:] // pipefail and the like
		}
	}
	if len(args) == 0 {
		return "", false
	}
	return args[0], isLine
}
