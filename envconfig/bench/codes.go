//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// codes shows the entrypoints' exit codes when a service cannot be run, or ends in one way or
// another.
func (b *bench) codes(peers []peer) error {
	_, flags, err := b.tree("codes", 1, 2000, "")
	if err != nil {
		return err
	}
	plain := filepath.Join(b.dir, "plain")
	if err := os.WriteFile(plain, []byte("not a program\n"), 0o644); err != nil {
		return err
	}
	fmt.Print("exit codes\n\n| entrypoint | not found | not executable | exit 42 | killed by " +
		"SIGTERM |\n| --- | --- | --- | --- | --- |\n")
	for _, p := range append(slices.Clone(peers),
		peer{"envconfig init", append(append([]string{b.envconfig}, flags...), "--init", "--")}) {
		fmt.Printf("| %s |", p.name)
		for _, service := range [][]string{{"/no/such/command"}, {plain}, {"sh", "-c", "exit 42"},
			{"sh", "-c", "kill -TERM $$"}} {
			cmd := exec.Command(p.command[0], append(slices.Clone(p.command[1:]), service...)...)
			cmd.Env = b.env()
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return err
			}
			fmt.Printf(" %d |", cmd.ProcessState.ExitCode())
		}
		fmt.Println()
	}
	fmt.Println()
	return nil
}
