//go:build linux

// Command install builds the tools of package tools into the user's cache directory, unless they
// are there already:
//
//	go run ./internal/testbed/tools/install              all of them
//	go run ./internal/testbed/tools/install consul       one
//	go run ./internal/testbed/tools/install -for ./vip/... the tools of these tests
//	go run ./internal/testbed/tools/install nginx        the Nginx of other releases of Debian
//	go run ./internal/testbed/tools/install -nginx       says which Nginx is there for tests
//	go run ./internal/testbed/tools/install -packages ./vip/... prints the Debian packages of these tests
//	go run ./internal/testbed/tools/install -early ./vip/... prints the directories of tests that can run while tools are built
//
// It may be stopped at any time: Go's build cache keeps the compiled packages, and a program is
// there whole or not at all.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/sluice-deploy/sluice/internal/testbed/tools"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	forTests := flag.Bool("for", false, "the arguments are directories, whose tests say which "+
		"tools "+
		"are meant")
	told := flag.Bool("nginx", false, "print which Nginx the tests in the directories ran on, and "+
		"which not and why")
	packages := flag.Bool("packages", false, "print the Debian packages that the tests in the "+
		"directories need, install nothing")
	early := flag.Bool("early", false, "if the tests in the directories need tools that are not "+
		"there yet, print the directories of tests that need none, install nothing")
	flag.Parse()
	if *told {
		report(os.Stderr, flag.Args())
		return
	}
	do := func() error { return run(ctx, *forTests, *packages, flag.Args()) }
	if *early {
		do = func() error { return printEarly(os.Stdout, flag.Args()) }
	}
	if err := do(); err != nil {
		command := "make tools:"
		if *forTests || *packages || *early {
			command = "make test:"
		}
		fmt.Fprintln(os.Stderr, command, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, forTests, packages bool, args []string) error {
	wanted := tools.All
	switch {
	case forTests || packages:
		needs, err := neededBy(args)
		if err != nil {
			return err
		}
		if err := allowed(needs, os.Geteuid()); err != nil {
			return err
		}
		if packages {
			fmt.Println(strings.Join(packagesOf(needs), " "))
			return nil
		}
		if onOthers(needs) {
			fetch(ctx, os.Stderr)
		}
		wanted = toolsOf(needs)
	case slices.Equal(args, []string{"nginx"}):
		fetch(ctx, os.Stderr)
		return nil
	case len(args) > 0:
		var err error
		if wanted, err = named(args); err != nil {
			return err
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	// Another install may run for an hour: tools that are there need not wait for it.
	if missing, err := missingOf(wanted, asBuilt); err != nil || len(missing) == 0 {
		return err
	}
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	missing, err := missingOf(wanted, whole)
	if err != nil || len(missing) == 0 {
		return err
	}
	p := newProgress(os.Stderr, missing)
	defer p.stop()
	for _, t := range missing {
		if err := build(ctx, t, p); err != nil {
			return fmt.Errorf("%s %s: %w", t.Name, t.Version, err)
		}
	}
	return nil
}

// missingOf are the wanted tools that are not there.
func missingOf(wanted []tools.Tool, there func(tools.Tool) (bool, error)) ([]tools.Tool, error) {
	var missing []tools.Tool
	for _, t := range wanted {
		ok, err := there(t)
		if err != nil {
			return nil, err
		}
		if !ok {
			missing = append(missing, t)
		}
	}
	return missing, nil
}

func named(names []string) ([]tools.Tool, error) {
	var found []tools.Tool
	for _, name := range names {
		i := slices.IndexFunc(tools.All, func(t tools.Tool) bool { return t.Name == name })
		if i < 0 {
			var known []string
			for _, t := range tools.All {
				known = append(known, t.Name)
			}
			return nil, fmt.Errorf("no tool %q: there are %v", name, known)
		}
		found = append(found, tools.All[i])
	}
	return found, nil
}
