//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/entry"
)

// command is one call of the binary.
type command struct {
	options
	args           []string // after the flags
	replaced       []string // signals and exit codes that the flags, or the variables, have replaced
	env            []string
	stdout, stderr io.Writer
}

func run(args, env []string, stdout, stderr io.Writer) int {
	c := &command{env: env, stdout: stdout, stderr: stderr}
	name := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	err := c.dispatch(name, args)
	var ended serviceEnded
	if err != nil && !errors.As(err, &ended) && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stderr, "envconfig: %v\n", err)
	}
	return exitCode(err)
}

func (c *command) dispatch(name string, args []string) error {
	commands := map[string]func() error{
		"run": c.run, "activate": c.activate, "manifest": c.manifest, "list": c.list,
		"status": c.status, "verify": c.verify,
		"drain": c.drain, "probe": c.probe,
	}
	do, known := commands[name]
	switch {
	case isDelegated(name):
		return c.delegate(append([]string{name}, args...))
	case name == "help":
		return c.parse([]string{"--help"})
	case !known:
		return usageError{fmt.Errorf("unknown command %q; the service's command goes after --",
			name)}
	}
	if err := c.parse(args); err != nil {
		return err
	}
	if name != "run" && name != "probe" && len(c.args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", name, c.args[0])}
	}
	return do()
}

// run puts the files in place and starts the service.
func (c *command) run() error {
	if len(c.args) == 0 {
		return usageError{errors.New("no command after --")}
	}
	if c.dryRun {
		return usageError{errors.New("--dry-run is for activate")}
	}
	signals := watchSignals() // first: until then, SIGTERM ends process 1 with 2
	service, err := entry.Resolve(c.args, c.env)
	if err != nil {
		return err
	}
	if err := c.place(signals); err != nil {
		return err
	}
	env := c.environ.Apply(c.env)
	if err := signals.Err(); err != nil {
		return err
	}
	if c.init.is(!service.IsInit()) {
		return c.supervise(service, env, watchAll())
	}
	if c.service.ParentDeath != 0 {
		if err := entry.EndWithParent(c.service.ParentDeath); err != nil {
			return err
		}
	}
	return entry.Exec(service, env)
}

// serviceEnded carries the service's exit code to the end of the program.
type serviceEnded int

func (e serviceEnded) Error() string { return fmt.Sprintf("the service ended with %d", int(e)) }

func (c *command) supervise(service *entry.Command, env []string, signals <-chan os.Signal) error {
	report, err := c.service.Run(service, env, signals)
	if err != nil {
		return err
	}
	if len(report.Killed) > 0 {
		var names []string
		for _, p := range report.Killed {
			names = append(names, strings.TrimSpace(fmt.Sprintf("%d %s", p.PID, p.Name)))
		}
		fmt.Fprintf(c.stderr, "envconfig: grace time over after %v, killed: %s\n",
			report.Drain.Round(millisecond), strings.Join(names, ", "))
	} else if report.Drained > 0 {
		fmt.Fprintf(c.stderr, "envconfig: drained processes=%d ms=%d\n", report.Drained,
			report.Drain.Milliseconds())
	}
	return serviceEnded(report.Code)
}

// activate puts the files in place.
func (c *command) activate() error { return c.place(watchSignals()) }

func (c *command) place(ctx context.Context) error {
	a := c.activator()
	environment, err := a.Choose(entry.Lookup(c.env, c.variable))
	if err != nil {
		return fmt.Errorf("%s: %w", c.variable, err)
	}
	if c.dryRun {
		changes, err := a.Preview(ctx, environment)
		if err != nil {
			return fmt.Errorf("activate %s: %w", environment, err)
		}
		return c.printChanges(changes)
	}
	r, err := a.Activate(ctx, environment)
	if err != nil {
		return fmt.Errorf("activate %s: %w", environment, err)
	}
	if c.service.StopSignal == 0 && r.StopSignal != "" {
		if c.service.StopSignal, err = entry.ParseSignal(r.StopSignal); err != nil {
			return err
		}
	}
	if !c.quiet {
		fmt.Fprintf(c.stderr, "envconfig: environment=%s digest=%s created=%d replaced=%d "+
			"removed=%d kept=%d bytes=%d\n",
			r.Environment, r.Digest, r.Created, r.Replaced, r.Removed, r.Kept, r.Bytes)
	}
	return nil
}

// errChanges ends a dry run with 1 where there is something to do.
var errChanges = errors.New("would be changed")

func (c *command) printChanges(changes []envconfig.Change) error {
	for _, change := range changes {
		if _, err := fmt.Fprintf(c.stdout, "%s /%s\n", change.Kind, change.Path); err != nil {
			return err
		}
	}
	if len(changes) > 0 {
		return fmt.Errorf("%d targets: %w", len(changes), errChanges)
	}
	return nil
}

func (c *command) activator() *envconfig.Activator {
	return &envconfig.Activator{Source: c.source, Root: c.root, State: c.state, Durable: c.durable,
		InPlace: c.inPlace,
		Lookup: func(name string) (string, bool) {
			return entry.Lookup(c.env, name)
		}}
}
