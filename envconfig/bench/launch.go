//go:build linux

package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// goFloor is the Go program that only calls execve.
const goFloor = "nothing but exec, in Go"

//go:embed launcher/launcher.c
var launcherSource []byte

// launched compares the same starts by a launcher in C, which copies nothing before it starts a
// command: the smallest time, the median and the smallest number of page faults.
func (b *bench) launched(rounds int, peers []peer) error {
	source, launcher := filepath.Join(b.dir, "launcher.c"), filepath.Join(b.dir, "launcher")
	if err := os.WriteFile(source, launcherSource, 0o644); err != nil {
		return err
	}
	if out, err := exec.Command("gcc", "-O2", "-o", launcher, source).CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %w: %s", err, out)
	}
	_, flags, err := b.tree("launched", 1, 2000, "")
	if err != nil {
		return err
	}
	floor, err := b.copied("floor")
	if err != nil {
		return err
	}
	own, err := b.copied("envconfig")
	if err != nil {
		return err
	}
	run := append([]string{own}, flags...)
	all := append([]peer{{"bare exec", nil}}, peers...)
	all = append(all, peer{goFloor, []string{floor}},
		peer{"envconfig exec", append(slices.Clone(run), "--init=false", "--")},
		peer{"envconfig init", append(slices.Clone(run), "--init=true", "--")})
	args := []string{strconv.Itoa(rounds)}
	for _, p := range all {
		args = append(append(append(args, p.name), p.command...), "/bin/true", ";")
		if found, err := exec.LookPath(args[len(args)-2-len(p.command)]); err == nil {
			args[len(args)-2-len(p.command)] = found // execve looks for nothing
		}
	}
	cmd := exec.Command(launcher, args...)
	cmd.Env, cmd.Stderr = b.env(), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("launcher: %w", err)
	}
	type start struct {
		name          string
		least, median float64
		faults        int
	}
	var starts []start
	base := map[string]start{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) != 4 {
			return fmt.Errorf("launcher: wrote %q", line)
		}
		s := start{name: fields[0]}
		s.least, _ = strconv.ParseFloat(fields[1], 64)
		s.median, _ = strconv.ParseFloat(fields[2], 64)
		s.faults, _ = strconv.Atoi(fields[3])
		starts = append(starts, s)
		base[s.name] = s
	}
	fmt.Printf("start of /bin/true by vfork, %d rounds, load %s\n\n| entrypoint | least | of the "+
		"Go program | of tini | median | of the Go program | of tini | page faults |\n"+
		"| --- | --- | --- | --- | --- | --- | --- | --- |\n", rounds, load())
	for _, s := range starts {
		fmt.Printf("| %s | %.2f ms | %.2f | %.2f | %.2f ms | %.2f | %.2f | %d |\n", s.name,
			s.least/1000, s.least/base[goFloor].least, s.least/base["tini"].least,
			s.median/1000, s.median/base[goFloor].median, s.median/base["tini"].median, s.faults)
	}
	fmt.Println()
	return nil
}

// copied returns a copy of a binary. The linker writes its output through a mapping, which leaves
// it in small pieces in the kernel's cache: its starts would take a tenth longer than those of a
// file of an image.
func (b *bench) copied(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		return "", err
	}
	to := filepath.Join(b.dir, name+"-copied")
	return to, os.WriteFile(to, data, 0o755)
}
