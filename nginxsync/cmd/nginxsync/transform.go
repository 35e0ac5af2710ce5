package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

func transformTree(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync transform", flag.ContinueOnError)
	flags.SetOutput(stderr)
	in := flags.String("in", "", "`directory` of the production tree")
	out := flags.String("out", "", "`directory` for the tree of the test Nginx: missing, empty or "+
		"of an earlier transform")
	main := flags.String("main", "nginx.conf", "main `file` of the tree, relative to its directory")
	where := rootFlags(flags)
	rulesFile := flags.String("rules", "", "`file` with the rules in JSON; without it only trees "+
		"that need none are accepted")
	socket := flags.String("socket", "/run/sluice/admin.sock",
		"`path` of the driver's admin socket")
	state := flags.String("state", "/var/lib/sluice/routes", "`path` of the agent's state file")
	builtIn := flags.Bool("lua-built-in", false, "the Lua module is compiled into Nginx, as in "+
		"OpenResty and Tengine: load none")
	quiet := flags.Bool("q", false, "print the summary only, not the diff")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *in == "" || *out == "" || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "nginxsync transform: -in and -out are required, and nothing "+
			"besides the flags")
		return errUsage
	}
	var rules transform.Rules
	if *rulesFile != "" {
		f, err := os.Open(*rulesFile)
		if err != nil {
			return err
		}
		defer f.Close()
		if rules, err = transform.ReadRules(f); err != nil {
			return fmt.Errorf("%s: %w", *rulesFile, err)
		}
	}
	tree, err := where.parse(*in, *main)
	if err != nil {
		return err
	}
	snippets := luadriver.SnippetConfig{Socket: *socket, StateFile: *state, BuiltIn: *builtIn}
	if err := snippets.Validate(); err != nil {
		return err
	}
	rules.Snippets = luadriver.Snippets(snippets)
	result, err := transform.Transform(tree, rules)
	if err != nil {
		return err
	}
	if err := result.WriteTo(*out); err != nil {
		return err
	}
	fmt.Fprint(stdout, result.Summary())
	if !*quiet {
		fmt.Fprint(stdout, "\n", result.Diff())
	}
	return nil
}

func roundtrip(_ context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("nginxsync roundtrip", flag.ContinueOnError)
	flags.SetOutput(stderr)
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(stderr, "nginxsync roundtrip: name at least one file")
		return errUsage
	}
	bytes, failed := 0, 0
	for _, name := range flags.Args() {
		n, err := roundtripFile(name)
		if err != nil {
			failed++
			fmt.Fprintf(stdout, "%s: %v\n", name, err)
		}
		bytes += n
	}
	fmt.Fprintf(stdout, "%d files, %d bytes, %d not byte-equal\n", flags.NArg(), bytes, failed)
	if failed > 0 {
		return fmt.Errorf("%d of %d files", failed, flags.NArg())
	}
	return nil
}

func roundtripFile(name string) (int, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	f, err := conf.ParseFile(name, string(text))
	if err != nil {
		return len(text), err
	}
	if f.Rebuild() != string(text) {
		return len(text), fmt.Errorf("put together again it differs")
	}
	return len(text), nil
}
