package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// agent runs the agent, or drains and undrains the host of one that runs.
func agent(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && (args[0] == "drain" || args[0] == "undrain") {
		return drain(ctx, args[0], args[1:], stdout, stderr)
	}
	flags := flag.NewFlagSet("nginxsync agent", flag.ContinueOnError)
	flags.SetOutput(stderr)
	config := flags.String("config", defaultConfig, "`file` with the configuration")
	check := flags.Bool("check", false, "check the configuration file, and end")
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "nginxsync agent: unknown argument %q: want drain, undrain or flags\n",
			flags.Arg(0))
		return errUsage
	}
	load := func() (*assembly, error) {
		f, err := readAgentFile(*config)
		if err != nil {
			return nil, err
		}
		return assemble(ctx, f, stderr)
	}
	first, err := load()
	if err != nil {
		return err
	}
	if *check {
		fmt.Fprintf(stdout, "%s: valid: %d Nginx, %d sources\n", *config, len(first.agents),
			len(first.file.Sources))
		return nil
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	return (&daemon{load: load, reload: reload}).run(ctx, first)
}

// daemon runs one assembly after the other.
type daemon struct {
	load   func() (*assembly, error)
	reload <-chan os.Signal
	doors  doors

	mu      sync.Mutex
	current *assembly // for the watchdog
}

// run returns nil when ctx ends.
func (d *daemon) run(ctx context.Context, a *assembly) error {
	defer d.doors.close()
	if err := d.doors.open(a); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { d.watchdog(ctx) })
	state := "READY=1"
	for {
		next := d.serve(ctx, a, state)
		if next == nil {
			a.stop()
			return nil
		}
		a, state = next, "READY=1\nSTATUS=configuration read again"
	}
}

// serve runs an assembly until there is another configuration, which it returns; nil when ctx ends.
func (d *daemon) serve(ctx context.Context, a *assembly, state string) *assembly {
	d.doors.serve(a)
	d.mu.Lock()
	d.current = a
	d.mu.Unlock()
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { a.run(running) })
	a.log.Info("agent runs", "config", a.file.name, "listen", a.file.Listen, "nginx",
		len(a.agents), "sources", len(a.file.Sources))
	tell(a.log, state)
	for {
		select {
		case <-ctx.Done():
			a.log.Info("agent ends", "nginx", map[bool]string{true: "goes on with its routes",
				false: "ends, too"}[len(a.stops) == 0])
			tell(a.log, "STOPPING=1")
			return nil
		case <-d.reload:
			tell(a.log, reloading())
			next, err := d.load()
			if err == nil {
				err = d.doors.open(next)
			}
			if err == nil {
				return next
			}
			for _, e := range flatten(err) {
				a.log.Error("the configuration stays as it was", "err", e)
			}
			tell(a.log, "READY=1\nSTATUS=the configuration file is not valid; the one before is "+
				"in force")
		}
	}
}

func tell(log *slog.Logger, state string) {
	if err := notify(state); err != nil {
		log.Warn("systemd does not hear", "err", err)
	}
}

// watchdog tells systemd that the agents work, until one is stuck.
func (d *daemon) watchdog(ctx context.Context) {
	period := watchdogPeriod()
	if period == 0 {
		return
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	beats := map[*nginxsync.Agent]uint64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.mu.Lock()
		a := d.current
		d.mu.Unlock()
		if a.alive(beats) {
			tell(a.log, "WATCHDOG=1")
		} else {
			a.log.Error("an agent is stuck")
		}
	}
}

// errUnhealthy ends a command with exit code 1 after it has printed why.
var errUnhealthy = errors.New("the host must not get requests")
