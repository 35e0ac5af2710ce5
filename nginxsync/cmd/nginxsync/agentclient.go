package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// agentFlag declares the flag that says where the agent listens.
func agentFlag(flags *flag.FlagSet) *string {
	return flags.String("agent", defaultListen,
		"where the agent listens: unix:/`path` or a loopback address with a port")
}

// whoami is the name of the operator, for the agent's log.
func whoami() string {
	name := os.Getenv("SUDO_USER")
	if me, err := user.Current(); name == "" && err == nil {
		name = me.Username
	}
	return name
}

// status prints the state of the agent. Its exit code is that of /healthz.
func status(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync status", flag.ContinueOnError)
	flags.SetOutput(stderr)
	at := agentFlag(flags)
	asJSON := flags.Bool("json", false, "print the agent's answer as it is")
	c, err := client(flags, at, args, 0, stderr)
	if err != nil {
		return err
	}
	var s agenthttp.Status
	if *asJSON {
		var raw json.RawMessage
		if err := c.Get(ctx, "/v1/status", nil, &raw); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s\n", raw)
		return nil
	}
	if err := c.Get(ctx, "/v1/status", nil, &s); err != nil {
		return err
	}
	printStatus(stdout, s)
	if !s.Health.OK {
		return errUnhealthy
	}
	return nil
}

// client parses the flags and wants so many arguments behind them.
func client(flags *flag.FlagSet, at *string, args []string, arguments int,
	stderr io.Writer) (*agenthttp.Client, error) {
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	if flags.NArg() != arguments {
		fmt.Fprintf(stderr, "%s: want %d arguments behind the flags, found %d\n", flags.Name(),
			arguments, flags.NArg())
		return nil, errUsage
	}
	return agenthttp.NewClient(*at)
}

func printStatus(w io.Writer, s agenthttp.Status) {
	if s.Health.OK {
		fmt.Fprintln(w, "healthy")
	}
	for _, why := range s.Health.Reasons {
		fmt.Fprintf(w, "unhealthy: %s\n", why)
	}
	for _, source := range s.Sources {
		fmt.Fprintf(w, "source %s (%s)%s\n", source.Name, source.Kind, trouble(source.Detail))
	}
	if s.Checks != nil {
		fmt.Fprintf(w, "checks: %d instances, %d fail\n", s.Checks.Checked,
			len(s.Checks.Failing))
		for _, failing := range s.Checks.Failing {
			fmt.Fprintf(w, "  %s\n", failing)
		}
	}
	for _, n := range s.Nginx {
		a := n.Agent
		fmt.Fprintf(w, "nginx %s: %d workers, revision %d, verified %d, lag %.3f s, term %d\n",
			n.Name, len(a.Workers), a.Revision, a.VerifiedRevision, n.Lag, n.Term)
		fmt.Fprintf(w, "  desired %s\n  served  %s\n  saved   %s\n",
			cmp.Or(a.Desired.String(), "none"), cmp.Or(a.Verified.String(), "none"),
			cmp.Or(a.Saved.String(), "none"))
		for _, e := range []struct{ what, text string }{{"nginx", n.Unreachable},
			{"last error", a.LastError}, {"state file", a.SaveError}, {"source", a.SourceError},
			{"fenced", a.Fenced}} {
			if e.text != "" {
				fmt.Fprintf(w, "  %s: %s\n", e.what, e.text)
			}
		}
		if c := n.Cutoff; c != nil {
			fmt.Fprintf(w, "  connections to gone instances: %d ended, %d addresses wait\n",
				c.Ended, c.Waiting)
			for _, text := range []string{c.Error, c.FileError} {
				if text != "" {
					fmt.Fprintf(w, "  connections to gone instances: %s\n", text)
				}
			}
		}
		if a.Resumed {
			fmt.Fprintln(w, "  resumed: no source has spoken yet")
		}
		for _, held := range a.Held {
			fmt.Fprintf(w, "  held %s: %s\n", agenthttp.HeldID(held), held)
		}
		for _, aside := range a.SetAside {
			fmt.Fprintf(w, "  set aside: %s\n", aside)
		}
	}
}

// trouble is the part of a source's status that needs an operator.
func trouble(detail any) (text string) {
	fields, _ := detail.(map[string]any)
	for _, name := range []string{"away", "catalogue"} {
		if s, _ := fields[name].(string); s != "" {
			text += ": " + s
		}
	}
	services, _ := fields["services"].([]any)
	failed := 0
	for _, service := range services {
		if m, _ := service.(map[string]any); m["error"] != "" {
			failed++
		}
	}
	if services != nil {
		text += fmt.Sprintf(": %d services, %d not heard", len(services), failed)
	}
	return text
}

// held lists the changes that the guards hold.
func held(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync held", flag.ContinueOnError)
	flags.SetOutput(stderr)
	at := agentFlag(flags)
	c, err := client(flags, at, args, 0, stderr)
	if err != nil {
		return err
	}
	var out struct {
		Held []agenthttp.Held `json:"held"`
	}
	if err := c.Get(ctx, "/v1/held", nil, &out); err != nil {
		return err
	}
	for _, h := range out.Held {
		alarm := ""
		if h.Alarm {
			alarm = "ALARM "
		}
		fmt.Fprintf(stdout, "%s\t%s%s, on nginx %s, since %s\n", h.ID, alarm, h.Held, h.Nginx,
			h.Since.UTC().Format(time.RFC3339))
	}
	return nil
}

// release lets a held change take effect.
func release(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync release", flag.ContinueOnError)
	flags.SetOutput(stderr)
	at := agentFlag(flags)
	by := flags.String("by", whoami(), "`name` for the agent's log")
	c, err := client(flags, at, args, 1, stderr)
	if err != nil {
		return err
	}
	var out struct {
		Released []string `json:"released"`
	}
	if err := c.Post(ctx, "/v1/release", map[string]string{"id": flags.Arg(0), "by": *by},
		&out); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "released %s on nginx %s\n", flags.Arg(0), strings.Join(out.Released, ", "))
	return nil
}

// drain takes the host out of the load balancer or puts it back.
func drain(ctx context.Context, verb string, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync agent "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	at := agentFlag(flags)
	by := flags.String("by", whoami(), "`name` for the agent's log")
	wait := new(time.Duration)
	if verb == "drain" {
		flags.DurationVar(wait, "wait", 0, "wait up to `duration` until no request has been in "+
			"flight for 2 seconds")
	}
	c, err := client(flags, at, args, 0, stderr)
	if err != nil {
		return err
	}
	var state agenthttp.Drain
	if err := c.Post(ctx, "/v1/"+verb, map[string]string{"by": *by}, &state); err != nil {
		return err
	}
	fmt.Fprintln(stdout, state)
	if *wait <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, *wait)
	defer cancel()
	return waitQuiet(ctx, c, stdout)
}

// waitQuiet waits until no request has been in flight for two seconds.
func waitQuiet(ctx context.Context, c *agenthttp.Client, stdout io.Writer) error {
	var quiet time.Duration
	const look = 200 * time.Millisecond
	last := "the agent has not answered yet"
	for quiet < 2*time.Second {
		var flight agenthttp.Flight
		err := c.Get(ctx, "/v1/inflight", nil, &flight)
		switch {
		case err != nil:
			quiet, last = 0, err.Error()
		case len(flight.Unknown) > 0:
			quiet, last = 0, strings.Join(flight.Unknown, "; ")
		case flight.Requests > 0:
			quiet, last = 0, fmt.Sprintf("%d requests in flight", flight.Requests)
		default:
			quiet += look
		}
		if err := retry.Sleep(ctx, look); err != nil {
			return fmt.Errorf("the host is drained, and still busy: %s: %w", last, err)
		}
	}
	fmt.Fprintln(stdout, "no request in flight")
	return nil
}

// explainVIP asks the agent for the instances that answer a URL on a VIP.
func explainVIP(ctx context.Context, at string, vip netip.Addr, target, method string,
	headers []string, nginx string, stdout io.Writer) error {
	c, err := agenthttp.NewClient(at)
	if err != nil {
		return err
	}
	query := url.Values{"vip": {vip.String()}, "url": {target}, "method": {method},
		"header": headers}
	if nginx != "" {
		query.Set("nginx", nginx)
	}
	var e agenthttp.Explanation
	if err := c.Get(ctx, "/v1/explain", query, &e); err != nil {
		return err
	}
	for _, why := range e.Why {
		fmt.Fprintln(stdout, why)
	}
	switch {
	case e.Status != 0:
		fmt.Fprintf(stdout, "answer: status %d\n", e.Status)
	case e.Cluster != "":
		fmt.Fprintf(stdout, "answer: cluster %s, version %s (%s, generation %s)\n", e.Cluster,
			cmp.Or(strings.Join(e.Versions, ", "), "not known"), e.Scope, e.Generation)
	}
	for _, in := range e.Instances {
		fmt.Fprintf(stdout, "  %s %s version %s weight %d%s\n", in.ID, in.Addr,
			cmp.Or(in.Version, "not known"), in.Weight, map[bool]string{true: " backup"}[in.Backup])
	}
	return nil
}
