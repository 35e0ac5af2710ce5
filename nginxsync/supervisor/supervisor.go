// Package supervisor starts an Nginx, takes over one that runs, and starts it again when it ends.
// Nginx outlives the program: the next one finds it by its pid file.
//
// Steps for the embedder:
//
//   - write the configuration, whose pid and error_log are those of Config;
//   - make a Supervisor with New; Config.Before removes what a crash leaves, such as the sockets of
//     luadriver.RemoveStaleSockets;
//   - call Run, or Ensure where the program has a loop of its own.
//
// An Nginx that starts has the routes of the state file that the agent has written last: see
// luadriver.SnippetConfig.StateFile. The package does not write configurations and does not test
// them: see packages transform and mirror.
package supervisor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
	"github.com/sluice-deploy/sluice/nginxsync/internal/retry"
)

// Config configures a Supervisor. Prefix is required.
type Config struct {
	// Prefix is the value of -p: an absolute path without symbolic links, of a directory that is
	// this Nginx's alone.
	Prefix string
	// Program is the nginx binary. The default is nginx, found on PATH, else /usr/sbin/nginx.
	Program string
	// Main is the main file of the configuration. The default is conf/nginx.conf below Prefix.
	Main string
	// PIDFile is that of the configuration. The default is nginx.pid below Prefix.
	PIDFile string
	// ErrorLog is the error log of the configuration's main context, a file that no other Nginx
	// writes. The default is logs/error.log below Prefix.
	ErrorLog string
	// Before is called before each start, when no process of this Nginx is left. Nil means that
	// there is none.
	Before func() error
	// CheckEvery is how often Run looks whether Nginx runs. The default is 200 ms.
	CheckEvery time.Duration
	// Logger logs starts and failures of Run. The default discards.
	Logger *slog.Logger
	// Now is the clock of Observe. The default is time.Now.
	Now func() time.Time
	// Observe is called after each start with "start", after each reload with "reload", and after
	// each stop with "stop", how long it took and its error. It must return soon. Nil means that
	// there is none.
	Observe func(op string, took time.Duration, err error)
}

// Supervisor controls one Nginx. Its methods must not be called at the same time.
type Supervisor struct{ cfg Config }

// New checks the configuration. One that is not valid is an error with all its problems and
// nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Supervisor, error) {
	p := check.Problems{Package: "supervisor", Sentinel: nginxsync.ErrInvalid}
	p.Require("Prefix", cfg.Prefix != "")
	cfg.Main = cmp.Or(cfg.Main, filepath.Join(cfg.Prefix, "conf", "nginx.conf"))
	cfg.PIDFile = cmp.Or(cfg.PIDFile, filepath.Join(cfg.Prefix, "nginx.pid"))
	cfg.ErrorLog = cmp.Or(cfg.ErrorLog, filepath.Join(cfg.Prefix, "logs", "error.log"))
	for _, f := range []struct{ field, path string }{{"Prefix", cmp.Or(cfg.Prefix, "/")},
		{"Main", cmp.Or(cfg.Main, "/")}, {"PIDFile", cfg.PIDFile}, {"ErrorLog", cfg.ErrorLog}} {
		if cfg.Prefix != "" && !filepath.IsAbs(f.path) {
			p.Add(f.field, "%q: want an absolute path", f.path)
		}
	}
	p.Duration("CheckEvery", &cfg.CheckEvery, 200*time.Millisecond)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Program == "" {
		cfg.Program = "nginx"
		if _, err := exec.LookPath("nginx"); err != nil {
			cfg.Program = "/usr/sbin/nginx" // Debian keeps it out of a user's PATH
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	return &Supervisor{cfg: cfg}, nil
}

// Run keeps Nginx running until ctx ends, and returns its cause; Nginx goes on. A start that fails
// is tried again without limit, ever more slowly up to every 10 seconds.
func (s *Supervisor) Run(ctx context.Context) error {
	tries := retry.Backoff{}
	var last string
	for {
		ran := s.master() != 0
		err := s.Ensure(ctx)
		wait := s.cfg.CheckEvery
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			wait = tries.Next(s.cfg.CheckEvery, 10*time.Second)
			if last != err.Error() {
				s.cfg.Logger.Error("nginx does not start", "err", err, "retry", wait)
			}
			last = err.Error()
		case !ran:
			s.cfg.Logger.Warn("nginx started", "pid", s.master())
			// one that ends at once is not started in a tight loop
			wait = tries.Next(s.cfg.CheckEvery, 10*time.Second)
		default:
			tries, last = retry.Backoff{}, ""
		}
		if err := retry.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// command is nginx with arguments.
func (s *Supervisor) command(ctx context.Context, args ...string) *exec.Cmd {
	base := []string{"-p", s.cfg.Prefix + "/", "-e", s.cfg.ErrorLog, "-c", s.cfg.Main}
	return exec.CommandContext(ctx, s.cfg.Program, append(base, args...)...)
}

// observe is deferred with the start of an operation.
func (s *Supervisor) observe(op string, start time.Time, err *error) {
	s.cfg.Observe(op, s.cfg.Now().Sub(start), *err)
}

// Ensure starts Nginx if it does not run, and returns when it accepts requests. Workers whose
// master has been killed, which would keep the ports, end before. An Nginx whose program is being
// upgraded (USR2) runs, also while its pid file is missing or empty.
func (s *Supervisor) Ensure(ctx context.Context) (err error) {
	if s.master() != 0 {
		return nil
	}
	defer s.observe("start", s.cfg.Now(), &err)
	if err := s.kill(ctx); err != nil {
		return err
	}
	if s.cfg.Before != nil {
		if err := s.cfg.Before(); err != nil {
			return fmt.Errorf("start nginx: %w", err)
		}
	}
	cmd := s.command(context.WithoutCancel(ctx)) // it outlives the program
	detach(cmd)
	log, err := os.CreateTemp(s.cfg.Prefix, ".start-*") // a pipe would be held open by the daemon
	if err != nil {
		return fmt.Errorf("start nginx: %w", err)
	}
	defer func() { _, _ = log.Close(), os.Remove(log.Name()) }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start nginx: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // at once, unless the configuration says "daemon off"
	return s.started(ctx, ended, log.Name())
}

// started waits until Nginx has written its pid file, which it does when its sockets are open.
func (s *Supervisor) started(ctx context.Context, ended chan error, log string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second,
		errors.New("it has written no pid file after 15 s: look at its error log"))
	defer cancel()
	for s.masterIn(s.cfg.PIDFile) == 0 {
		select {
		case err := <-ended:
			if err != nil {
				out, _ := os.ReadFile(log)
				return fmt.Errorf("start nginx: %w: %s", err, bytes.TrimSpace(out))
			}
			ended = nil // it is a daemon now
		case <-ctx.Done():
			return fmt.Errorf("start nginx: %w", context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// Reload has the Nginx that runs take the configuration, or starts it, and returns when it serves
// with it. A configuration that Nginx refuses then (nginx -t cannot find every fault: a port may be
// taken) is an error with Nginx's message, and the old one goes on.
func (s *Supervisor) Reload(ctx context.Context) (err error) {
	if s.master() == 0 {
		return s.Ensure(ctx)
	}
	defer s.observe("reload", s.cfg.Now(), &err)
	log, err := os.Open(s.cfg.ErrorLog)
	if err != nil {
		return fmt.Errorf("reload nginx: %w", err)
	}
	defer log.Close()
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("reload nginx: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("it has no pid file, or "+
		"has not changed its workers, after a minute: look at its error log"))
	defer cancel()
	// it is only just starting, or its program is being upgraded
	for s.masterIn(s.cfg.PIDFile) == 0 || len(s.workers()) == 0 {
		if err := pause(ctx); err != nil {
			return err
		}
	}
	// a worker that was made a moment ago still has its master's title
	before := s.processes()
	if out, err := s.command(ctx, "-s", "reload").CombinedOutput(); err != nil {
		return fmt.Errorf("reload nginx: %w: %s", err, bytes.TrimSpace(out))
	}
	var said []byte
	for !renewed(before, s.workers()) {
		more, err := io.ReadAll(log)
		if err != nil {
			return fmt.Errorf("reload nginx: %w", err)
		}
		said = append(said, more...)
		if refused(said) {
			return fmt.Errorf("reload nginx: it refuses the new configuration and goes on with "+
				"the old one: %s", bytes.TrimSpace(said))
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// refused reports whether the lines of the error log say that a reload has failed. Nginx tries a
// busy address five times and then reports that it is still busy.
func refused(said []byte) bool {
	for line := range bytes.Lines(said) {
		if bytes.Contains(line, []byte("[emerg]")) && bytes.HasSuffix(line, []byte("\n")) &&
			!bytes.Contains(line, []byte("bind() to")) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context) error {
	if err := retry.Sleep(ctx, 10*time.Millisecond); err != nil {
		return fmt.Errorf("reload nginx: %w", err)
	}
	return nil
}

// renewed reports whether there are workers now, and none from before.
func renewed(before, now []int) bool {
	return len(now) > 0 && !slices.ContainsFunc(now, func(pid int) bool {
		return slices.Contains(before, pid)
	})
}
