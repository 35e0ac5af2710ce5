//go:build linux

// Command bench measures the entrypoint against its peers in the same run and prints the table of
// envconfig/README.md. The peers are Debian's, apt-get install tini dumb-init catatonit s6, and
// dockerize, which is built from the module in peers. The launcher in C is compiled with gcc.
// Rounds are interleaved, so that the machine's other load falls on all alike; figures are medians.
// A test of time would fail on a busy machine, so it judges nothing.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == peakCommand {
		peakHelper(os.Args[2:])
	}
	rounds := flag.Int("rounds", 100, "starts of each command")
	files := flag.Int("files", 10_000, "files of the large activation")
	drains := flag.Int("drains", 50,
		"stops behind a start script, for envconfig; peers get a tenth")
	only := flag.String("only", "", "start, launch, memory, activate, big, codes, drain, "+
		"catalogue or check; the default is all")
	which := flag.String("services", "", "services of the catalogue: a regular `expression`; "+
		"the default is all")
	flag.Parse()
	services, err := regexp.Compile(*which)
	if err == nil {
		err = run(*only, services, *rounds, *files, *drains)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(only string, services *regexp.Regexp, rounds, files, drains int) error {
	dir, err := os.MkdirTemp("", "envconfig-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for services with users of their own
		return err
	}
	b := &bench{dir: dir, envconfig: filepath.Join(dir, "envconfig"), check: filepath.Join(dir,
		"envconfig-check")}
	for _, name := range []string{"cmd/envconfig", "cmd/envconfig-check", "bench/floor"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o",
			filepath.Join(dir, filepath.Base(name)), "github.com/sluice-deploy/sluice/envconfig/"+
				name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	dockerize := filepath.Join(dir, "dockerize")
	if err := buildPeer(dockerize, "github.com/jwilder/dockerize"); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%s, %d processors, load %s\n\n", runtime.Version(), runtime.NumCPU(), load())
	peers := []peer{
		{"tini", []string{"tini", "-s", "--"}},
		{"tini-static", []string{"tini-static", "-s", "--"}},
		{"dumb-init", []string{"dumb-init", "--"}}, {"catatonit", []string{"catatonit", "--"}},
		{"dockerize", []string{dockerize}},
	}
	var found []peer
	for _, p := range peers {
		if _, err := exec.LookPath(p.command[0]); err != nil {
			fmt.Printf("%s is missing: see the comment at the head of bench/main.go\n", p.name)
			continue
		}
		found = append(found, p)
	}
	fmt.Println()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"start", func() error { return b.starts(rounds, found) }},
		{"launch", func() error { return b.launched(2*rounds, found) }},
		{"memory", func() error { return b.resident(found) }},
		{"activate", func() error { return b.activations(1000, 20) }},
		{"activate", func() error { return b.activations(files, 5) }},
		{"big", b.bigFile},
		{"codes", func() error { return b.codes(found) }},
		{"drain", func() error { return b.drain(drains, found) }},
		{"catalogue", func() error { return b.catalogue(services) }},
		{"check", b.checkLarge},
	} {
		if only != "" && only != step.name {
			continue
		}
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// buildPeer builds a program of the module in peers.
func buildPeer(to, pkg string) error {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}",
		"github.com/sluice-deploy/sluice/envconfig/bench").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", pkg, err)
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", to, pkg)
	build.Dir = filepath.Join(strings.TrimSpace(string(dir)), "peers")
	// the module in peers is not one of go.work
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}
