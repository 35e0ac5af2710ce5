package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

// errDiffers and errUndecided end diff: they are results, not mistakes.
var (
	errDiffers   = errors.New("the trees differ")
	errUndecided = errors.New("the trees may differ")
)

func diff(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync diff", flag.ContinueOnError)
	flags.SetOutput(stderr)
	main := flags.String("main", "nginx.conf", "main `file` of both trees, relative to the "+
		"directory")
	asJSON := flags.Bool("json", false, "print one JSON document")
	limit := flags.Int("limit", 1000,
		"`number` of changes that are printed; the others are counted")
	where := rootFlags(flags)
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() != 2 || *limit < 1 {
		fmt.Fprintln(stderr, "nginxsync diff: want two directories, OLD and NEW, and a -limit of "+
			"1 or more")
		return errUsage
	}
	var trees [2]*conf.Tree
	for i := range trees {
		var err error
		if trees[i], err = where.parse(flags.Arg(i), *main); err != nil {
			return fmt.Errorf("%s: %w", flags.Arg(i), err)
		}
	}
	c := route.Compare(trees[0], trees[1], *limit)
	out := bufio.NewWriter(stdout)
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(c); err != nil {
			return err
		}
	} else {
		for _, change := range c.Changes {
			writeChange(out, change)
		}
		if left := c.Changed + c.Undecided - len(c.Changes); left > 0 {
			fmt.Fprintf(out, "… and %d more: see -limit\n", left)
		}
		fmt.Fprintf(out, "%d pairs of host and location, %d changed, %d undecided\n", c.Pairs,
			c.Changed, c.Undecided)
	}
	switch err := out.Flush(); {
	case err != nil:
		return err
	case c.Changed > 0:
		return errDiffers
	case c.Undecided > 0:
		return errUndecided
	}
	return nil
}

func writeChange(out io.Writer, c route.PairChange) {
	hosts := strings.Join(c.Hosts, " ")
	if more := c.HostCount - len(c.Hosts); more > 0 {
		hosts += fmt.Sprintf(" and %d more", more)
	}
	fmt.Fprintf(out, "%s (%s) %s: %s", hosts, strings.Join(c.Listen, " "), c.Location, c.Kind)
	if c.Kind == route.Changed {
		fmt.Fprintf(out, ": %s\n  for %s\n", strings.Join(c.What, ", "), c.Request)
	} else {
		fmt.Fprintf(out, ": %s\n", c.Reason)
	}
	for i, s := range []route.Side{c.Old, c.New} {
		fmt.Fprintf(out, "  %s %s\n", []string{"old", "new"}[i], s)
	}
}
