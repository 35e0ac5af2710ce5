//go:build linux

// Package services holds real services as images run them, each with a piece of work that takes it
// a second or more, for tests and measurements of the fate of the work when a container is
// stopped. The caller starts the command of a [Laid] service, in a container or without one, and
// calls [Laid.Begin].
package services

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Service is a service that many images have.
type Service struct {
	Name string
	// Needs are the programs or files that it runs, each with the Debian package that brings it, as
	// program=package.
	Needs []string
	// Files are written into the service's directory, by their names below it. In them and in
	// Command, Task and Flags, PORT stands for a free port of 127.0.0.1, DIR for the directory and
	// PHPFPM for the program of php-fpm.
	Files map[string]string
	// Command is the shell line that starts it in the foreground.
	Command string
	// Task is a shell line that gives it the work. By default the work is a request for /slow, or
	// none where Done is set: then the service begins it by itself.
	Task string
	// Suffix ends the paths that are requested.
	Suffix string
	// Flags are the flags that envconfig needs for it.
	Flags string
	// Works is in the output once the work has begun, and Done once it has ended. Without Done the
	// answer to the request shows the end.
	Works, Done string
}

// Way is how an image starts a service.
type Way struct {
	Name    string
	command string // %s is the service's command
}

// Ways are a command of its own, a script with a #! line that executes the command, and a script
// that a shell reads and that goes on after the command.
var Ways = []Way{
	{"binary", `%s`},
	{"script", `DIR/service`},
	{"behind sh", `sh DIR/start.sh`},
}

// WentOn is in the output of a service that is started "behind sh" when the shell has gone on to
// the next command of its script.
const WentOn = "the shell went on"

// Need ends the test where a program of the service is missing.
func (s Service) Need(t testing.TB) {
	t.Helper()
	for _, pair := range s.Needs {
		program, pkg, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(program, "/") {
			testbed.NeedFile(t, program, pkg)
		} else {
			testbed.NeedProgram(t, program, pkg)
		}
	}
}

// Laid is a service whose files are in a directory.
type Laid struct {
	Service
	dir  string
	port string
}

// Lay writes the files of a service into a directory, which is empty and which users other than
// root can reach. port is a free one of 127.0.0.1.
func (s Service) Lay(dir string, port int) (*Laid, error) {
	l := &Laid{Service: s, dir: dir, port: strconv.Itoa(port)}
	files := with(s.Files, "service", "#!/bin/sh\nexec "+s.Command+"\n", "start.sh",
		s.Command+"\necho "+WentOn+"\n")
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return nil, err
		}
		syscall.ForkLock.RLock() // a child of another test would hold it open: text file busy
		err := os.WriteFile(name, []byte(l.fill(text)), 0o755)
		syscall.ForkLock.RUnlock()
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(name, ".java") {
			out, err := exec.Command("javac", "-d", dir, name).CombinedOutput()
			if err != nil {
				return nil, fmt.Errorf("javac: %w: %s", err, out)
			}
		}
	}
	return l, nil
}

func (l *Laid) fill(text string) string {
	return strings.NewReplacer("DIR", l.dir, "PORT", l.port, "PHPFPM", phpFPM()).Replace(text)
}

// CommandLine returns the shell words that start the service in one of the ways.
func (l *Laid) CommandLine(w Way) string {
	return l.fill(strings.ReplaceAll(w.command, "%s", l.Command))
}

// EnvconfigFlags returns the flags that envconfig needs for the service, as shell words.
func (l *Laid) EnvconfigFlags() string { return l.fill(l.Flags) }

// SetUp is a shell line that prepares a root directory with a writable /run and /var/spool/cron
// for the service, and the PATH that its command needs.
func (l *Laid) SetUp() string {
	return l.fill(`set -e; mkdir -p /run/php /var/spool/cron/crontabs; if [ -e DIR/tab ]; ` +
		`then cp DIR/tab /var/spool/cron/crontabs/root; chmod 600 /var/spool/cron/crontabs/root; ` +
		`fi; PATH=$PATH:/usr/sbin:/sbin; PYTHONUNBUFFERED=1; export PATH PYTHONUNBUFFERED; set +e; `)
}

// Isolate is a shell line for a mount and PID namespace of its own on this machine: a /proc, a
// /run for PID files, and none of this machine's jobs for cron. SetUp goes after it.
func Isolate() string {
	return `set -e; mount --make-rprivate /; mount -t proc proc /proc; mount -t tmpfs none /run; ` +
		`mkdir -p /var/spool/cron; mount -t tmpfs none /var/spool/cron; ` +
		`for d in /etc/cron.d /etc/cron.hourly; do [ ! -d $d ] || mount -t tmpfs none $d; ` +
		`done; [ ! -f /etc/crontab ] || mount --bind /dev/null /etc/crontab; `
}

// Work is a piece of work that a service is at.
type Work struct {
	l      *Laid
	output func() string
	answer chan answer // nil where the output shows the end
}

type answer struct {
	body string
	err  error
}

// Begin waits until the service is ready, gives it the work, and returns when it is at it. output
// returns the service's output so far.
func (l *Laid) Begin(ctx context.Context, output func() string) (*Work, error) {
	w := &Work{l: l, output: output}
	base := "http://127.0.0.1:" + l.port
	switch {
	case l.Done == "":
		err := testbed.Wait(ctx, func() error {
			body, err := Get(ctx, base+"/ready"+l.Suffix)
			if err == nil && body != "whole" {
				err = fmt.Errorf("answers %.200q", body)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: ready: %w: %s", l.Name, err, w.Output())
		}
		w.answer = make(chan answer, 1)
		go func() {
			body, err := Get(ctx, base+"/slow"+l.Suffix)
			w.answer <- answer{body, err}
		}()
	case l.Task != "":
		out, err := exec.CommandContext(ctx, "sh", "-c", l.fill(l.Task)).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s: give it work: %w: %s", l.Name, err, out)
		}
	}
	err := testbed.Wait(ctx, func() error {
		if out := w.Output(); !strings.Contains(out, l.Works) {
			return fmt.Errorf("no %q in %q", l.Works, out)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: at work: %w", l.Name, err)
	}
	return w, nil
}

// Whole waits for the answer, or looks at the output of a service that has ended, and returns nil
// when the work was finished.
func (w *Work) Whole() error {
	if w.answer == nil {
		if out := w.Output(); !strings.Contains(out, w.l.Done) {
			return fmt.Errorf("%s: no %q in %q", w.l.Name, w.l.Done, out)
		}
		return nil
	}
	if a := <-w.answer; a.err != nil || a.body != "whole" {
		return fmt.Errorf("%s: answered %q: %v: %s", w.l.Name, a.body, a.err, w.Output())
	}
	return nil
}

// Output returns all output of the service so far.
func (w *Work) Output() string {
	log, _ := os.ReadFile(filepath.Join(w.l.dir, "log"))
	return w.output() + string(log)
}

// Get returns the body of an answer with status 200, over a connection of its own.
func Get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, strconv.Quote(response.Status))
	}
	return string(body), err
}
