package main

import (
	"cmp"
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

// options are the flags; each can be given as ENVCONFIG_<NAME> as well.
type options struct {
	source, root, state, variable string
	label                         bool
}

// command is what a call of the binary works with.
type command struct {
	options
	args           []string
	env            []string
	stdout, stderr io.Writer
}

const usage = `usage: envconfig [flags] -- CMD [ARG…]   put the environment's files in place, then become CMD
       envconfig activate [flags]        put the environment's files in place
       envconfig manifest [flags]        write manifest.json into the source folder; with --label print the image's label
       envconfig list [flags]            the environments and how many files each has

The environment is the value of DEPLOY_ENV, exactly as it is written.

flags, each also as a variable ENVCONFIG_<NAME>:
`

func run(args, env []string, stdout, stderr io.Writer) int {
	c := &command{env: env, stdout: stdout, stderr: stderr}
	name := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	err := c.parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err == nil {
		err = c.dispatch(name)
	}
	if err != nil {
		fmt.Fprintf(stderr, "envconfig: %v\n", err)
	}
	return exitCode(err)
}

func (c *command) parse(args []string) error {
	fs := flag.NewFlagSet("envconfig", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&c.source, "source", envconfig.DefaultSource, "`folder` that holds envs/")
	fs.StringVar(&c.root, "root", envconfig.DefaultRoot, "`folder` that target paths are relative to")
	fs.StringVar(&c.state, "state", envconfig.DefaultState, "`folder` for the record of what is active")
	fs.StringVar(&c.variable, "var", envconfig.DefaultVariable, "`name` of the variable that selects the environment")
	fs.BoolVar(&c.label, "label", false, "manifest: print the image's label as KEY=VALUE, write no file")
	var err error
	fs.VisitAll(func(f *flag.Flag) {
		name := "ENVCONFIG_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := lookup(c.env, name); ok && err == nil {
			if setErr := fs.Set(f.Name, value); setErr != nil {
				err = usageError{fmt.Errorf("%s: %w", name, setErr)}
			}
		}
	})
	if err != nil {
		return err
	}
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(c.stdout, usage)
		fs.SetOutput(c.stdout)
		fs.PrintDefaults()
		return err
	} else if err != nil {
		return usageError{err}
	}
	c.args = fs.Args()
	return nil
}

func (c *command) dispatch(name string) error {
	if name != "run" && len(c.args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", name, c.args[0])}
	}
	switch name {
	case "run":
		return c.run()
	case "activate":
		return c.activate()
	case "manifest":
		return c.manifest()
	case "list":
		return c.list()
	}
	return usageError{fmt.Errorf("unknown command %q; the service's command goes after --", name)}
}

func (c *command) run() error {
	if len(c.args) == 0 {
		return usageError{errors.New("no command after --")}
	}
	service, err := entry.Resolve(c.args, c.env)
	if err != nil {
		return err
	}
	signals := watchSignals()
	if err := c.activateContext(signals.ctx); err != nil {
		return err
	}
	if err := signals.pending(); err != nil {
		return err
	}
	return entry.Exec(service, c.env)
}

func (c *command) activate() error {
	return c.activateContext(watchSignals().ctx)
}

func (c *command) activateContext(ctx context.Context) error {
	m, err := c.load()
	if err != nil {
		return err
	}
	value, set := lookup(c.env, c.variable)
	env, err := m.Choose(value, set)
	if err != nil {
		return fmt.Errorf("%s: %w", c.variable, err)
	}
	a := envconfig.Activator{Source: c.source, Root: c.root, State: c.state, Manifest: m}
	r, err := a.Activate(ctx, env.Name)
	if err != nil {
		return fmt.Errorf("activate %s: %w", env.Name, err)
	}
	fmt.Fprintf(c.stderr, "envconfig: environment=%s digest=%s created=%d replaced=%d removed=%d kept=%d bytes=%d\n",
		r.Environment, r.Digest, r.Created, r.Replaced, r.Removed, r.Kept, r.Bytes)
	return nil
}

func (c *command) load() (*envconfig.Manifest, error) {
	root, err := c.openSource()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return envconfig.Load(root.FS())
}

func (c *command) openSource() (*os.Root, error) {
	root, err := os.OpenRoot(c.source)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("source folder: %w: %w", envconfig.ErrIncomplete, err)
	}
	return root, err
}

func (c *command) manifest() error {
	root, err := c.openSource()
	if err != nil {
		return err
	}
	defer root.Close()
	m, err := envconfig.Scan(root.FS())
	if err != nil {
		return err
	}
	if c.label {
		key, value := m.Label()
		_, err := fmt.Fprintf(c.stdout, "%s=%s\n", key, value)
		return err
	}
	return root.WriteFile(envconfig.ManifestName, m.JSON(), 0o644)
}

func (c *command) list() error {
	m, err := c.load()
	if err != nil {
		return err
	}
	for _, name := range m.Names() {
		fmt.Fprintf(c.stdout, "%s\t%d files\t%s\n", name, len(m.Environments[name].Files), cmp.Or(list(m.Missing(name)), "complete"))
	}
	return nil
}

func list(missing []string) string {
	if len(missing) == 0 {
		return ""
	}
	return "lacks " + strings.Join(missing, ", ")
}

func lookup(env []string, name string) (string, bool) {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value, true
		}
	}
	return "", false
}
