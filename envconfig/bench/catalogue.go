//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/services"
)

// dockerStop is the time after which "docker stop" kills.
const dockerStop = 10 * time.Second

// inits are the entrypoints that catalogue compares: name, and the shell words before the command.
// S6 stands for s6-svscan, which finds the command in a directory.
func (b *bench) inits(flags []string) [][2]string {
	return [][2]string{
		{"tini", "tini -s --"}, {"tini -g", "tini -g -s --"}, {"dumb-init", "dumb-init --"},
		{"dumb-init -r 15:3", "dumb-init --rewrite 15:3 --"}, {"catatonit", "catatonit --"},
		{"s6-svscan", "S6"},
		{"envconfig", b.envconfig + " " + strings.Join(flags, " ") + " "},
	}
}

// catalogue stops each service of the catalogue whose name only matches, behind sh, as a binary and
// as a script, behind each entrypoint, while it is at work, as docker stop does, and prints what
// became of the work.
func (b *bench) catalogue(only *regexp.Regexp) error {
	if os.Getuid() != 0 {
		fmt.Print("the catalogue needs root: mounts and users of services\n\n")
		return nil
	}
	_, flags, err := b.tree("catalogue", 1, 2000, "")
	if err != nil {
		return err
	}
	inits := b.inits(flags)
	fmt.Printf("services that are stopped at work, %s, by docker stop's signals: f finished, c "+
		"cut, + k killed after %v, e ended with its script; behind sh, as a binary, as a script\n%s\n\n| service |",
		time.Now().Format(time.DateOnly), dockerStop, versions("tini", "dumb-init", "catatonit",
			"s6", "nginx", "haproxy", "apache2", "tomcat10", "celery"))
	for _, i := range inits {
		fmt.Printf(" %s |", i[0])
	}
	fmt.Printf("\n| --- |%s\n", strings.Repeat(" --- |", len(inits)))
	for _, s := range services.All {
		if !only.MatchString(s.Name) {
			continue
		}
		cells := make([]string, len(inits))
		var running sync.WaitGroup
		for i, init := range inits {
			running.Go(func() {
				for _, w := range []int{2, 0, 1} {
					cells[i] += " " + b.stopAtWork(s, services.Ways[w], init[1])
				}
			})
		}
		running.Wait()
		fmt.Printf("| %s |%s |\n", s.Name, strings.Join(cells, " |"))
	}
	fmt.Println()
	return nil
}

// versions are those of Debian packages.
func versions(packages ...string) string {
	out, _ := exec.Command("dpkg-query", append([]string{"-W", "-f", "${Package} ${Version}, "},
		packages...)...).Output()
	return strings.TrimSuffix(string(out), ", ")
}

// stopAtWork returns the mark of one stop, "e" where the container ended before the service had
// begun, or "?" for an error that kept the service from its work.
func (b *bench) stopAtWork(s services.Service, w services.Way, init string) string {
	fail := func(err error) string {
		fmt.Fprintf(os.Stderr, "%s, %s, %s: %v\n", s.Name, w.Name, init, err)
		return "?"
	}
	dir, err := os.MkdirTemp(b.dir, "service")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		return fail(err)
	}
	port, err := testbed.FreePort()
	if err != nil {
		return fail(err)
	}
	l, err := s.Lay(dir, port)
	if err != nil {
		return fail(err)
	}
	command := l.CommandLine(w)
	line := services.Isolate() + l.SetUp() + "exec " + init + " "
	switch {
	case init == "S6":
		run := "#!/bin/sh\nexec " + command + "\n"
		scan := filepath.Join(dir, "s6", "service")
		if err = os.MkdirAll(scan, 0o755); err == nil {
			err = os.WriteFile(filepath.Join(scan, "run"), []byte(run), 0o755)
		}
		if err != nil {
			return fail(err)
		}
		line = services.Isolate() + l.SetUp() + "exec s6-svscan " + filepath.Dir(scan)
	case strings.HasPrefix(init, b.envconfig):
		line += l.EnvconfigFlags() + "-- " + command
	default:
		line += command
	}
	var out syncBuffer
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env(), &out, &out
	cmd.WaitDelay = time.Minute
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	defer func() {
		_ = cmd.Process.Kill()
		<-ended
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	go func() {
		<-ended
		cancel()
	}()
	work, err := l.Begin(ctx, out.String)
	if err != nil {
		select {
		case <-ended:
			return "e"
		default:
			return fail(err)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	killed := ""
	select {
	case <-ended:
	case <-time.After(dockerStop):
		killed = "k"
		_ = cmd.Process.Kill()
		<-ended
	}
	if work.Whole() != nil {
		return "c" + killed
	}
	return "f" + killed
}

// syncBuffer is a buffer that can be looked at while it grows.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(slices.Clone(b.buf.Bytes()))
}
