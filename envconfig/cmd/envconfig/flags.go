//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/entry"
	"github.com/sluice-deploy/sluice/envconfig/internal/nearest"
	"github.com/sluice-deploy/sluice/internal/names"
)

const millisecond = time.Millisecond

// options are the flags; each can be given as ENVCONFIG_<NAME> as well.
type options struct {
	source, root, state, variable string
	environ                       entry.Environ
	init                          choice
	service                       entry.Init
	drainSignal                   syscall.Signal
	drainPorts                    []int
	drainTime                     time.Duration
	quiet, dryRun, label, bake    bool
	durable, inPlace              bool
}

const usage = `envconfig puts the configuration files of one environment in place and becomes the service.

usage:
  envconfig [flags] -- CMD [ARG…]   put the files in place, then start CMD
  envconfig activate [flags]        put the files in place
  envconfig status [flags]          what is active, as JSON
  envconfig verify [flags]          hold the files on disk to what was put in place; 1 if something differs
  envconfig drain [flags]           for a preStop hook: wait until no connection is left; 1 if one is after --drain-time
  envconfig probe URL               for HEALTHCHECK: ask the service at 127.0.0.1 or localhost; 1 without an answer below status 500
  envconfig list [flags]            the environments of the image and what each lacks
  envconfig manifest [flags]        write the source directory's manifest.json, or print the image's label (--label)
  envconfig check | diff ENV ENV | explain KEY     done by envconfig-check; see envconfig check --help

examples:
  ENTRYPOINT ["/sbin/envconfig", "--", "/opt/web/bin/server"]
  ENTRYPOINT ["/sbin/envconfig", "--map-exit", "143:0", "--", "sh", "/sbin/startup.sh"]
  ENTRYPOINT ["/sbin/envconfig", "--rewrite", "TERM:QUIT", "--", "unicorn"]
  RUN ["/sbin/envconfig", "manifest"]
  HEALTHCHECK CMD ["/sbin/envconfig", "probe", "http://127.0.0.1:$PORT/health"]
  docker run -e DEPLOY_ENV=sandbox -e ENVCONFIG_GRACE=8s IMAGE

envconfig stays in front of CMD as process 1: it passes every signal on to the service, reaps zombies, and waits until
all descendants have ended. The service is the first process below it that is neither a shell nor a wrapper. With
--init=false CMD becomes process 1 itself, as do other inits, such as systemd, tini and the /init of s6-overlay.

exit codes: the service's own, or 128+n if signal n ended it, or
  64 wrong use                     74 input/output error           126 the command cannot be run
  65 invalid configuration data    77 a target is not writable     127 the command is not found
  66 the environment lacks files   78 unknown, missing or malformed environment; nothing was changed
  73 a target cannot be created    128+n signal n came during the activation, which was rolled back

flags, each also as a variable ENVCONFIG_<NAME>, where lists are separated by line ends:
`

type usageError struct{ error }

// advice is an error that names the right form of a value and repeats nothing of the value.
type advice string

func (a advice) Error() string { return string(a) }

func (c *command) parse(args []string) error {
	fs := flag.NewFlagSet("envconfig", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c.define(fs)
	if err := fromEnviron(fs, c.env); err != nil {
		return err
	}
	c.replaced = nil // a flag counts before its variable
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(c.stdout, usage)
		fs.SetOutput(c.stdout)
		fs.PrintDefaults()
		return err
	} else if err != nil {
		return usageError{err}
	}
	c.args = fs.Args()
	return c.validate()
}

// validate returns a problem of a value that its flag took. It does not repeat values of --set,
// which may be secrets.
func (c *command) validate() error {
	for _, f := range []struct{ name, value string }{
		{"source", c.source}, {"root", c.root}, {"state", c.state}, {"var", c.variable},
	} {
		if f.value == "" || strings.ContainsRune(f.value, 0) {
			return usageError{fmt.Errorf("--%s must not be empty or hold a zero byte", f.name)}
		}
	}
	if strings.Contains(c.variable, "=") {
		return usageError{fmt.Errorf("--var %s cannot be the name of a variable",
			names.Quote(c.variable))}
	}
	unset, set := entry.Environ{Unset: c.environ.Unset}, entry.Environ{Set: c.environ.Set}
	switch {
	case unset.Validate() != nil:
		return usageError{errors.New("--unset takes a pattern such as AWS_*")}
	case set.Validate() != nil:
		return usageError{errors.New("--set takes NAME=VALUE")}
	case c.service.Grace <= 0:
		return usageError{errors.New("--grace must be longer than 0")}
	case c.drainTime <= 0:
		return usageError{errors.New("--drain-time must be longer than 0")}
	}
	return nil
}

func (c *command) define(fs *flag.FlagSet) {
	fs.StringVar(&c.source, "source", envconfig.DefaultSource, "`directory` that holds envs/")
	fs.StringVar(&c.root, "root", envconfig.DefaultRoot, "`directory` that target paths are "+
		"relative to")
	fs.StringVar(&c.state, "state", envconfig.DefaultState,
		"`directory` for the record of what is "+
			"active")
	fs.StringVar(&c.variable, "var", envconfig.DefaultVariable, "`name` of the variable that "+
		"selects the environment")
	fs.BoolVar(&c.quiet, "quiet", false, "print no line about what was done")
	fs.BoolVar(&c.durable, "durable", false, "wait until the files are on the disk, for targets "+
		"on a volume that outlives the machine")
	fs.BoolVar(&c.inPlace, "in-place", false, "write into targets that are mounts of their own, "+
		"which cannot be replaced; a reader may see a part of them")
	fs.Var(&c.init, "init", "stay in front of the command: true, false or `auto`, which is true "+
		"but for other inits")
	c.service.Grace, c.drainTime = entry.DefaultGrace, 20*time.Second
	fs.Var((*duration)(&c.service.Grace), "grace", "with init: `time` from the signal to stop "+
		"until what is left is killed; keep it below the orchestrator's")
	fs.Func("scope", "with init: which processes get the signals: main, `service` or group "+
		"(default service)", c.setScope)
	fs.Func("rewrite", "with init: `from:to` replaces a signal, as TERM:QUIT; may be repeated",
		each(c.setRewrite))
	fs.Func("stop-signal", "with init: `signal` that stops the service, as the image's "+
		"STOPSIGNAL; TERM becomes it. manifest writes it down", c.setStopSignal)
	fs.Func("on-main-exit", "with init: stop or `wait` for descendants when the command ends by "+
		"itself (default stop)", c.setOnMainExit)
	fs.Func("pid-file", "with --on-main-exit=wait: `file` with the process id of the service, "+
		"whose exit code counts", c.setPIDFile)
	fs.Func("parent-death", "`signal` that the service gets when the process dies that started "+
		"envconfig (default none)", c.setParentDeath)
	fs.Func("map-exit", "with init: `from:to` replaces an exit code; may be repeated",
		each(c.setMapExit))
	fs.BoolVar(&c.environ.Pristine, "pristine", false, "give the command no variables but those "+
		"of --set")
	fs.Func("unset", "`pattern` of variables that the command does not get; may be repeated",
		each(func(s string) error {
			c.environ.Unset = append(c.environ.Unset, s)
			return nil
		}))
	fs.Func("set", "`NAME=VALUE` for the command; may be repeated", each(func(s string) error {
		c.environ.Set = append(c.environ.Set, s)
		return nil
	}))
	fs.Func("drain-signal", "drain: `signal` for the service first, on which it takes no more "+
		"work (default none)", func(s string) (err error) {
		c.drainSignal, err = parseSignal(s)
		return err
	})
	fs.Func("drain-port", "drain: `port` of the service; may be repeated (default all that are "+
		"listened to)", each(c.setDrainPort))
	fs.Var((*duration)(&c.drainTime), "drain-time", "drain: `time` to wait at most")
	fs.BoolVar(&c.dryRun, "dry-run", false, "activate: print what would be changed and change "+
		"nothing; 1 if something would be")
	fs.BoolVar(&c.label, "label", false, "manifest: print the image's label as KEY=VALUE, write "+
		"nothing")
	fs.BoolVar(&c.bake, "bake", false, "manifest: make the links of the action pointer first")
}

// variables is the prefix of the names of variables that stand for flags.
const variables = "ENVCONFIG_"

// fromEnviron sets the flags that ENVCONFIG_* variables name. One that is there twice counts as the
// C library has it: the first. A variable that names no flag is an error, unless Kubernetes may
// have set it. A value is not repeated in an error: it may be a secret.
func fromEnviron(fs *flag.FlagSet, env []string) error {
	for i, kv := range env {
		if len(kv) < len(variables) || !strings.EqualFold(kv[:len(variables)], variables) {
			continue
		}
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, variables) {
			return usageError{fmt.Errorf("%s stands for no flag%s", names.Quote(name),
				nearestVariable(fs, name))}
		}
		f := fs.Lookup(strings.ToLower(strings.ReplaceAll(name[len(variables):], "_", "-")))
		if _, before := entry.Lookup(env[:i], name); before {
			continue
		}
		if f == nil {
			if ofServiceLink(name) {
				continue
			}
			return usageError{fmt.Errorf("%s stands for no flag%s", names.Quote(name),
				nearestVariable(fs, name))}
		}
		if err := f.Value.Set(value); err != nil {
			why := f.Usage
			if a := advice(""); errors.As(err, &a) {
				why = string(a)
			}
			return usageError{fmt.Errorf("%s: not a value for --%s: %s", name, f.Name, why)}
		}
	}
	return nil
}

// ofServiceLink reports whether a variable has the form of the variables that Kubernetes gives to a
// container for each Service of its namespace, one of which may be called envconfig.
func ofServiceLink(name string) bool {
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") ||
		name == variables+"PORT" || strings.HasSuffix(name, "_PORT") &&
		strings.Count(name, "_") > 1 ||
		strings.Contains(name, "_PORT_")
}

// nearestVariable suggests the variable that was most likely meant, or nothing.
func nearestVariable(fs *flag.FlagSet, name string) string {
	var all []string
	fs.VisitAll(func(f *flag.Flag) { all = append(all, f.Name) })
	typed := strings.ToLower(strings.ReplaceAll(name[len(variables):], "_", "-"))
	if near := nearest.Of(typed, all); near != "" {
		return ": did you mean " + variables + strings.ToUpper(strings.ReplaceAll(near, "-", "_"))
	}
	return ": see envconfig --help"
}

// each lets a variable hold several values, one a line.
func each(set func(string) error) func(string) error {
	return func(s string) error {
		for line := range strings.Lines(s) {
			if line = strings.TrimRight(line, "\r\n"); line == "" {
				continue
			}
			if err := set(line); err != nil {
				return err
			}
		}
		return nil
	}
}

func (c *command) setOnMainExit(s string) error {
	switch s {
	case "stop":
		c.service.OnMainExit = entry.Stop
	case "wait":
		c.service.OnMainExit = entry.Wait
	default:
		return errors.New("must be stop or wait")
	}
	return nil
}

func (c *command) setDrainPort(s string) error {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		return errors.New("must be a port from 1 to 65535")
	}
	c.drainPorts = append(c.drainPorts, int(port))
	return nil
}

func (c *command) setScope(s string) error {
	scopes := map[string]entry.Scope{"service": entry.Service, "main": entry.Main,
		"group": entry.Group}
	scope, ok := scopes[s]
	if !ok {
		return errors.New("must be main, service or group")
	}
	c.service.Scope = scope
	return nil
}

func (c *command) setRewrite(s string) error {
	from, to, _ := strings.Cut(s, ":")
	a, err1 := parseSignal(from)
	b, err2 := parseSignal(to)
	if err1 != nil || err2 != nil {
		return errors.New("must be two signals that can be caught, such as TERM:QUIT")
	}
	if c.service.Rewrite == nil {
		c.service.Rewrite = map[syscall.Signal]syscall.Signal{}
	}
	if err := c.replacesOnce("signal", int(a)); err != nil {
		return err
	}
	c.service.Rewrite[a] = b
	return nil
}

// replacesOnce refuses a signal or an exit code that is replaced twice, by flags or in a variable:
// only one of the two could count.
func (c *command) replacesOnce(what string, from int) error {
	what = fmt.Sprintf("%s %d", what, from)
	if slices.Contains(c.replaced, what) {
		return advice("must replace " + what + " once only")
	}
	c.replaced = append(c.replaced, what)
	return nil
}

func (c *command) setStopSignal(s string) (err error) {
	c.service.StopSignal, err = parseSignal(s)
	return err
}

func (c *command) setParentDeath(s string) (err error) {
	c.service.ParentDeath, err = parseSignal(s)
	return err
}

func (c *command) setPIDFile(s string) error {
	if s == "" || strings.ContainsRune(s, 0) {
		return errors.New("must be the name of a file")
	}
	c.service.PIDFile = s
	return nil
}

// parseSignal returns a signal that can be caught.
func parseSignal(s string) (syscall.Signal, error) {
	n, err := entry.ParseSignal(s)
	if err == nil && (n == syscall.SIGKILL || n == syscall.SIGSTOP) {
		err = errors.New("must be a signal that can be caught")
	}
	return n, err
}

func (c *command) setMapExit(s string) error {
	from, to, _ := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(from, 10, 8)
	b, err2 := strconv.ParseUint(to, 10, 8)
	if err1 != nil || err2 != nil {
		return errors.New("must be two exit codes, such as 143:0")
	}
	if c.service.MapExit == nil {
		c.service.MapExit = map[int]int{}
	}
	if err := c.replacesOnce("exit code", int(a)); err != nil {
		return err
	}
	c.service.MapExit[int(a)] = int(b)
	return nil
}

// duration is a time with its unit, such as 5s.
type duration time.Duration

func (d *duration) String() string { return time.Duration(*d).String() }

// Set takes a time in the form of [time.ParseDuration].
func (d *duration) Set(s string) error {
	t, err := time.ParseDuration(s)
	if err != nil {
		return advice("must be a time with its unit, such as 5s")
	}
	*d = duration(t)
	return nil
}

// choice is true, false or automatic, by the kind of the command.
type choice string

func (c *choice) String() string   { return "auto" }
func (c *choice) IsBoolFlag() bool { return true }

// Set takes true, false or auto.
func (c *choice) Set(s string) error {
	if s == "auto" {
		*c = ""
		return nil
	}
	b, err := strconv.ParseBool(s)
	*c = choice(strconv.FormatBool(b))
	return err
}

func (c choice) is(otherwise bool) bool {
	if c == "" {
		return otherwise
	}
	return c == "true"
}
