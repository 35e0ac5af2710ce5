package start

import (
	"path"
	"slices"
	"strings"
)

// wrapper is a program that executes another one in its own place.
type wrapper struct {
	valued     string // options that take the next argument, parted by blanks
	positional int    // arguments before the command
	variables  bool   // NAME=VALUE may stand before it
}

var wrappers = map[string]wrapper{
	"env": {"-u --unset -C --chdir", 0, true}, "nice": {"-n --adjustment", 0, false}, "nohup": {},
	"setsid": {}, "stdbuf": {"-i -o -e --input --output --error", 0, false},
	"ionice": {"-c -n --class --classdata", 0, false}, "taskset": {"", 1, false},
	"chrt": {"", 1, false}, "timeout": {"-s -k --signal --kill-after", 1, false},
	"gosu": {"", 1, false}, "su-exec": {"", 1, false}, "setuidgid": {"", 1, false},
	"chpst": {"-u -U -e -b -/ -n -m -d -o -p -f -c -t", 0, false},
	"setpriv": {"--reuid --regid --groups --inh-caps --ambient-caps --bounding-set --securebits " +
		"--pdeathsig --selinux-label --apparmor-profile", 0, false},
	"chroot": {"", 1, false}, "unshare": {}, "numactl": {"-N -C -m -l -i -p", 0, false},
	"flock": {"-w -E --timeout", 1, false}, "prlimit": {}, "exec": {"-a", 0, false},
	"setarch": {"", 1, false}, "linux64": {}, "jemalloc.sh": {}, "with-contenv": {},
	"catchsegv": {}, "command": {}, "busybox": {}, "authbind": {"--depth", 0, false},
}

// inits stay in front as process 1 and pass signals on to their child.
var inits = map[string]wrapper{
	"tini": {"-p -e", 0, false}, "tini-static": {"-p -e", 0, false}, "docker-init": {"-p -e", 0,
		false}, "dumb-init": {"-r --rewrite", 0, false}, "catatonit": {},
	"pid1": {}, "my_init": {}, "su": {}, "sudo": {"-u -g", 0, false},
	"runuser": {"-u -g", 0, false},
}

// peel takes the wrappers off a command. init is the one that stays in front, if there is one.
func peel(argv []string) (service []string, init string) {
	for range 16 {
		if len(argv) == 0 {
			return nil, init
		}
		name := path.Base(argv[0])
		w, ok := wrappers[name]
		if !ok {
			if w, ok = inits[name]; !ok {
				return argv, init
			}
			init = name
		}
		argv = w.rest(argv[1:])
	}
	return argv, init
}

// rest returns the arguments after the wrapper's own.
func (w wrapper) rest(args []string) []string {
	valued := strings.Fields(w.valued)
	for len(args) > 0 {
		switch a := args[0]; {
		case a == "--":
			args = args[1:]
			return args[min(w.positional, len(args)):]
		case a == "-S" || a == "--split-string":
			if len(args) > 1 {
				return append(strings.Fields(args[1]), args[2:]...)
			}
			return nil
		case len(a) > 1 && a[0] == '-':
			if slices.Contains(valued, a) && len(args) > 1 {
				args = args[1:]
			}
		case w.variables && strings.Contains(a, "="):
		default:
			return args[min(w.positional, len(args)):]
		}
		args = args[1:]
	}
	return nil
}
