//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/entry"
)

func (c *command) openSource() (*os.Root, error) {
	root, err := os.OpenRoot(c.source)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("source directory: %w: %w", err, envconfig.ErrIncomplete)
	}
	return root, err
}

func (c *command) load() (*envconfig.Manifest, error) {
	root, err := c.openSource()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return envconfig.Load(root.FS())
}

// manifest writes manifest.json or prints the label.
func (c *command) manifest() error {
	if c.bake && !c.label {
		if _, err := c.activator().Bake(); err != nil {
			return fmt.Errorf("bake: %w", err)
		}
	}
	root, err := c.openSource()
	if err != nil {
		return err
	}
	defer root.Close()
	m, err := envconfig.Scan(root.FS())
	if err != nil {
		return err
	}
	if c.service.StopSignal != 0 {
		if err := m.SetStopSignal(strconv.Itoa(int(c.service.StopSignal))); err != nil {
			return err
		}
	}
	if c.label {
		key, value := m.Label()
		_, err := fmt.Fprintf(c.stdout, "%s=%s\n", key, value)
		return err
	}
	return envconfig.WriteManifest(root, m)
}

// list prints the environments and the missing parts of each.
func (c *command) list() error {
	m, err := c.load()
	if err != nil {
		return err
	}
	for _, name := range m.Names() {
		state := "complete"
		if missing := m.Missing(name); len(missing) > 0 {
			state = "lacks " + strings.Join(missing, ", ")
		}
		if _, err := fmt.Fprintf(c.stdout, "%s\t%d files\t%s\t%s\n", name,
			len(m.Environments[name].Files), m.Environments[name].Digest(), state); err != nil {
			return err
		}
	}
	return nil
}

// status prints the active environment.
func (c *command) status() error {
	s, err := c.activator().Status()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.stdout, "%s\n", data)
	return err
}

// errDrift ends verify with 1.
var errDrift = errors.New("not as they were put in place")

// verify prints every file that is not as it was put in place.
func (c *command) verify() error {
	drift, err := c.activator().Verify()
	if err != nil {
		return err
	}
	for _, d := range drift {
		if _, err := fmt.Fprintf(c.stdout, "/%s: %s\n", d.Path, d.Reason); err != nil {
			return err
		}
	}
	if len(drift) > 0 {
		return fmt.Errorf("%d files: %w", len(drift), errDrift)
	}
	return nil
}

// isDelegated names the commands that need the parsers of all formats, which the entrypoint does
// without.
func isDelegated(name string) bool { return name == "check" || name == "diff" || name == "explain" }

// delegate becomes envconfig-check, which stands beside this binary or in PATH.
func (c *command) delegate(args []string) error {
	places := []string{"/sbin", "/usr/local/bin", "/usr/bin", "/bin"}
	if self, err := os.Executable(); err == nil {
		places = append([]string{filepath.Dir(self)}, places...)
	}
	if search, ok := entry.Lookup(c.env, "PATH"); ok {
		places = append(places, filepath.SplitList(search)...)
	}
	for _, dir := range places {
		name := filepath.Join(dir, "envconfig-check")
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
			return syscall.Exec(name, append([]string{name}, args...), c.env)
		}
	}
	return fmt.Errorf("%s: it is done by the binary envconfig-check, which is neither beside "+
		"envconfig nor in PATH; "+
		"it is needed when the image is built, not in it: %w", args[0], errNoCheck)
}

var errNoCheck = errors.New("could not check")
