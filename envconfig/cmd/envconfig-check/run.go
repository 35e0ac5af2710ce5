package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/check"
	"github.com/sluice-deploy/sluice/envconfig/check/schema"
	"github.com/sluice-deploy/sluice/envconfig/check/start"
	"github.com/sluice-deploy/sluice/internal/names"
)

const usage = `envconfig-check finds what is wrong with the configuration of all environments while an image is built.

usage:
  envconfig-check check [flags]             exit code 0: clean, 1: findings, 2: could not check
  envconfig-check diff [flags] ENV ENV      keys and files that differ: + only the second has, - only the first, ~ different
  envconfig-check explain [flags] KEY       which file and line gives a key in each environment
  envconfig-check manifest [flags]          write manifest.json with the names of all keys

No command ever shows a value. diff and explain exit with 0, and with 2 where they could not.

examples:
  RUN ["/sbin/envconfig", "check", "--format", "junit"]
  envconfig-check check --source build/etc/envconfig --dockerfile Dockerfile --image-root build
  envconfig-check diff sandbox production

flags, each also as a variable ENVCONFIG_<NAME>:
`

type command struct {
	source, state, format, dockerfile, imageRoot string
	baseline, writeBaseline                      string
	matrix, bake                                 bool
	args                                         []string
	env                                          []string
	stdout                                       io.Writer
}

// errFindings ends check with 1.
var errFindings = errors.New("findings")

func run(args, env []string, stdout, stderr io.Writer) int {
	c := &command{env: env, stdout: stdout}
	name := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	err := c.do(name, args)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errFindings):
		return 1
	}
	fmt.Fprintf(stderr, "envconfig-check: %v\n", err)
	return 2
}

func (c *command) do(name string, args []string) error {
	flags := flag.NewFlagSet("envconfig-check", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c.define(flags)
	if err := fromEnviron(flags, c.env); err != nil {
		return err
	}
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) || name == "" || name == "help" {
		fmt.Fprint(c.stdout, usage)
		flags.SetOutput(c.stdout)
		flags.PrintDefaults()
		return flag.ErrHelp
	}
	if err != nil {
		return err
	}
	if err := c.validate(name); err != nil {
		return err
	}
	c.args = flags.Args()
	switch {
	case name == "check" && len(c.args) == 0:
		return c.check()
	case name == "diff" && len(c.args) == 2:
		return c.diff(c.args[0], c.args[1])
	case name == "explain" && len(c.args) == 1:
		return c.explain(c.args[0])
	case name == "manifest" && len(c.args) == 0:
		return c.manifest()
	}
	return fmt.Errorf("%s with %d arguments is no command: see --help", name, len(c.args))
}

// validate returns a problem of a value that its flag took.
func (c *command) validate(name string) error {
	for _, f := range []struct{ name, value string }{{"source", c.source}, {"state", c.state}} {
		if f.value == "" {
			return fmt.Errorf("--%s must not be empty", f.name)
		}
	}
	formats := []string{"text", "json"}
	// manifest has no format, and may share check's variables
	if name != "diff" && name != "explain" {
		formats = append(formats, "junit", "sarif")
	}
	if !slices.Contains(formats, c.format) {
		return fmt.Errorf("--format %s is none of %s", names.Quote(c.format),
			strings.Join(formats, ", "))
	}
	return nil
}

func (c *command) define(flags *flag.FlagSet) {
	flags.StringVar(&c.source, "source", envconfig.DefaultSource, "`directory` that holds envs/")
	flags.StringVar(&c.state, "state", envconfig.DefaultState,
		"manifest: `directory` of the image "+
			"for the record of what is active, as the start has it")
	flags.StringVar(&c.format, "format", "text", "check, diff, explain: `text`, json or, for "+
		"check, junit or sarif")
	flags.StringVar(&c.dockerfile, "dockerfile", "", "check: `file` whose ENTRYPOINT and CMD are "+
		"looked at too; manifest: whose STOPSIGNAL is written down")
	flags.StringVar(&c.imageRoot, "image-root", "", "check: `directory` with the image's files, "+
		"for "+
		"start scripts; / in a RUN step")
	flags.StringVar(&c.baseline, "baseline", "", "check: `file` whose findings are passed over")
	flags.StringVar(&c.writeBaseline, "write-baseline", "", "check: `file` to write all findings "+
		"of now into, for --baseline; the exit code is 0")
	flags.BoolVar(&c.matrix, "matrix", false, "check: print which environment has which key, "+
		"with its type")
	flags.BoolVar(&c.bake, "bake", false, "manifest: make the links of the action pointer first, "+
		"below --image-root")
}

// fromEnviron sets the flags that ENVCONFIG_* variables name. A value is not repeated in an error:
// it may be a secret.
func fromEnviron(flags *flag.FlagSet, env []string) (err error) {
	flags.VisitAll(func(f *flag.Flag) {
		prefix := "ENVCONFIG_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + "="
		for _, kv := range env {
			value, ok := strings.CutPrefix(kv, prefix)
			if ok && f.Value.Set(value) != nil {
				err = fmt.Errorf("%snot a value for --%s: %s", strings.Replace(prefix, "=", ": ",
					1), f.Name, f.Usage)
			}
			if ok {
				return // the first counts, as the C library has it
			}
		}
	})
	return err
}

func (c *command) load() (*os.Root, *check.Set, error) {
	root, err := os.OpenRoot(c.source)
	if err != nil {
		return nil, nil, fmt.Errorf("--source: %w", err)
	}
	m, err := envconfig.Scan(root.FS())
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	set, err := check.Load(root.FS(), m)
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	return root, set, nil
}

func (c *command) check() error {
	root, set, err := c.load()
	if errors.Is(err, envconfig.ErrInvalid) {
		return c.report(check.Refused(err))
	}
	if err != nil {
		return err
	}
	defer root.Close()
	var config check.Config
	data, err := fs.ReadFile(root.FS(), check.ConfigName)
	if err == nil {
		config, err = check.ParseConfig(data)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	more, err := c.entrypoint()
	if err != nil {
		return err
	}
	broken, err := schema.Check(root.FS(), set, config.Schemas)
	if err != nil {
		return err
	}
	more = append(more, broken...)
	report := set.Check(config, time.Now(), more)
	if c.writeBaseline != "" {
		return c.keep(report)
	}
	if c.baseline != "" {
		known, err := readBaseline(c.baseline)
		if err != nil {
			return err
		}
		report = known.Apply(report)
	}
	if c.matrix {
		if err := c.printMatrix(set); err != nil {
			return err
		}
	}
	return c.report(report)
}

// readBaseline reads the file of --baseline.
func readBaseline(name string) (check.Baseline, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return check.Baseline{}, fmt.Errorf("--baseline: %w", err)
	}
	known, err := check.ParseBaseline(data)
	if err != nil {
		return check.Baseline{}, fmt.Errorf("--baseline: %s: %w", name, err)
	}
	return known, nil
}

// keep writes the findings of now into the file of --write-baseline.
func (c *command) keep(r check.Report) error {
	var b bytes.Buffer
	known := check.NewBaseline(r)
	if err := known.Write(&b); err != nil {
		return err
	}
	if err := os.WriteFile(c.writeBaseline, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("--write-baseline: %w", err)
	}
	_, err := fmt.Fprintf(c.stdout, "check: %d findings are in %s: pass it as --baseline\n",
		len(known.Findings), c.writeBaseline)
	return err
}

// report prints the findings; it returns an error if there are any.
func (c *command) report(r check.Report) (err error) {
	switch c.format {
	case "text":
		err = r.WriteText(c.stdout)
	case "json":
		err = r.WriteJSON(c.stdout)
	case "junit":
		err = r.WriteJUnit(c.stdout)
	case "sarif":
		err = r.WriteSARIF(c.stdout, filepath.ToSlash(c.source))
	}
	if err == nil && len(r.Findings) > 0 {
		err = errFindings
	}
	return err
}

func (c *command) entrypoint() ([]check.Finding, error) {
	if c.dockerfile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.dockerfile)
	if err != nil {
		return nil, fmt.Errorf("--dockerfile: %w", err)
	}
	how := start.Dockerfile(string(text))
	var image fs.FS
	if c.imageRoot != "" {
		root, err := os.OpenRoot(c.imageRoot)
		if err != nil {
			return nil, fmt.Errorf("--image-root: %w", err)
		}
		defer root.Close()
		if image = root.FS(); root.Name() == "/" {
			image = os.DirFS("/") // follows links that begin with a slash
		}
	}
	return start.Entrypoint(how, image), nil
}

func (c *command) printMatrix(set *check.Set) error {
	environments, rows := set.Matrix()
	if _, err := fmt.Fprintf(c.stdout, "%s\tpath\tkey\n", strings.Join(environments,
		"\t")); err != nil {
		return err
	}
	for _, row := range rows {
		for _, kind := range row.Kinds {
			if _, err := fmt.Fprintf(c.stdout, "%s\t", cmp.Or(kind, "-")); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(c.stdout, "%s\t%s\n", row.Path, row.Key); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) diff(a, b string) error {
	root, set, err := c.load()
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range []string{a, b} {
		if _, err := set.Manifest().Select(name); err != nil {
			return err
		}
	}
	changes := set.Diff(a, b)
	if c.format == "json" {
		return c.printJSON(changes)
	}
	for _, d := range changes {
		if _, err := fmt.Fprintln(c.stdout, strings.TrimSpace(d.Sign+" "+d.Path+" "+
			d.Key)); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) explain(key string) error {
	root, set, err := c.load()
	if err != nil {
		return err
	}
	defer root.Close()
	places := set.Explain(key, func(source string) bool {
		_, err := root.Lstat(source)
		return err == nil
	})
	if len(places) == 0 {
		return fmt.Errorf("no file that can be read has the key %q", key)
	}
	if c.format == "json" {
		return c.printJSON(places)
	}
	for _, p := range places {
		line := fmt.Sprintf("%s: /%s: %s:%d: %s", p.Environment, p.Path, p.Source, p.Line, p.Kind)
		if p.Hides != "" {
			line += ", in place of " + p.Hides
		}
		if len(p.Same) > 0 {
			line += ", same value in " + strings.Join(p.Same, ", ")
		}
		if _, err := fmt.Fprintln(c.stdout, line); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) manifest() error {
	if c.bake {
		root := cmp.Or(c.imageRoot, envconfig.DefaultRoot)
		a := envconfig.Activator{Source: c.source, Root: root, State: filepath.Join(root, c.state)}
		if _, err := a.Bake(); err != nil {
			return fmt.Errorf("bake: %w", err)
		}
	}
	root, set, err := c.load()
	if err != nil {
		return err
	}
	defer root.Close()
	m := set.AddKeys()
	if c.dockerfile != "" {
		text, err := os.ReadFile(c.dockerfile)
		if err != nil {
			return fmt.Errorf("--dockerfile: %w", err)
		}
		if signal := start.Dockerfile(string(text)).StopSignal; signal != "" {
			if err := m.SetStopSignal(signal); err != nil {
				return fmt.Errorf("%s: %w", c.dockerfile, err)
			}
		}
	}
	return envconfig.WriteManifest(root, m)
}

func (c *command) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
