// Command demo starts the example server on a fresh directory and runs the story of package story
// against it. It stays until Ctrl-C, so that one can look around; with -once it ends after the
// story, with status 1 if a step had an unexpected result. Either way nothing is left running.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/examples/server/edge"
	"github.com/sluice-deploy/sluice/examples/story"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

const base = "http://127.0.0.1:8800"

type options struct {
	once                   bool
	server, data, examples string
}

func (o *options) define(f *flag.FlagSet) {
	f.BoolVar(&o.once, "once", false, "end after the story")
	f.StringVar(&o.server, "server", "bin/server", "`path` of the server's binary")
	f.StringVar(&o.data, "data", "", "`directory` of the server, which must be empty, missing or "+
		"that of an earlier demo, and is "+
		"emptied (default .cache/demo, or one below "+os.TempDir()+" where Nginx cannot take "+
		"that path)")
	f.StringVar(&o.examples, "examples", ".", "`directory` of the examples module")
}

// check returns all problems of the options at once, each with the name of its flag.
func (o *options) check() error {
	var errs []error
	if _, err := exec.LookPath(o.server); err != nil {
		errs = append(errs, fmt.Errorf("-server: %w: build it with: make binaries", err))
	}
	if _, err := os.Stat(filepath.Join(o.examples, "hello")); err != nil {
		errs = append(errs, fmt.Errorf("-examples: %w: want the directory of the examples module",
			err))
	}
	if o.data == "" {
		o.data = defaultData()
	}
	entries, err := os.ReadDir(o.data)
	isData := func(e os.DirEntry) bool { return e.Name() == "server.log" || e.Name() == "state.db" }
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		errs = append(errs, fmt.Errorf("-data: %w", err))
	case len(entries) > 0 && !slices.ContainsFunc(entries, isData):
		errs = append(errs, fmt.Errorf("-data: %s holds something else than an earlier demo, "+
			"which would be deleted: choose another", o.data))
	}
	return errors.Join(errs...)
}

// defaultData is below the working directory, unless its path has characters that the Nginx
// configuration cannot take.
func defaultData() string {
	data := filepath.Join(".cache", "demo")
	if abs, err := filepath.Abs(data); err == nil &&
		edge.CheckPath(filepath.Join(abs, "nginx")) == nil {
		return data
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("sluice-demo-%d", os.Getuid()))
}

func run(ctx context.Context, args []string, stderr io.Writer) (err error) {
	start := time.Now()
	var o options
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.SetOutput(stderr)
	o.define(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: see -help", f.Arg(0))
	}
	if err := o.check(); err != nil {
		return err
	}
	server, data := o.server, o.data
	if conn, err := net.DialTimeout("tcp", strings.TrimPrefix(base, "http://"),
		time.Second); err == nil {
		_ = conn.Close()
		return fmt.Errorf("something answers at %s already: end it first (an earlier demo?)", base)
	}
	if out, err := exec.CommandContext(ctx, server, "-data", data, "-stop").CombinedOutput(); err != nil {
		return fmt.Errorf("end what an earlier demo has left: %w: %s", err, out)
	}
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(data), 0o755); err != nil {
		return err
	}
	// that it is there by now is an error: below /tmp others could have made it
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(data, "server.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(server, "-data", data)
	cmd.Stdout, cmd.Stderr = log, log
	// Ctrl-C is for the demo, which then ends the server
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1) // one result, read by the first reader
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if waitErr := <-ended; waitErr != nil {
			err = errors.Join(err, fmt.Errorf("server: %w: its log is %s", waitErr, log.Name()))
		}
		fmt.Println("demo: everything is stopped")
	}()

	ready, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("30 s have passed"))
	defer cancel()
	ready, died := context.WithCancelCause(ready)
	go func() {
		waitErr := <-ended
		ended <- waitErr
		died(fmt.Errorf("it has ended (%v): see %s", waitErr, log.Name()))
	}()
	if err := story.WaitReady(ready, base); err != nil {
		return errors.Join(err, tail(log.Name()))
	}
	fmt.Printf("The server is up: page and API at %s, registry at 127.0.0.1:5800, Nginx on port "+
		"8880, VIPs out of 127.58.0.0/24.\n", base)
	result, err := story.Run(ctx, story.Config{Server: base, Examples: o.examples, Out: os.Stdout})
	if err == nil && result.Failed > 0 {
		err = fmt.Errorf("%d steps saw something else than they should: the server's log is %s",
			result.Failed, log.Name())
	}
	if o.once || ctx.Err() != nil {
		return err
	}
	fmt.Printf("%.0f s. Look around: the page is at %s; a tester would open a browser "+
		"with: %s browse search-redesign\nor say: curl -x http://search-redesign@127.0.0.1:8801 "+
		"http://%s/\nCtrl-C ends everything.\n",
		time.Since(start).Seconds(), base, o.server, story.Host)
	select {
	case <-ctx.Done():
	case waitErr := <-ended:
		ended <- nil // told here
		err = errors.Join(err, fmt.Errorf("the server has ended (%v): see %s", waitErr, log.Name()))
	}
	return err
}

// tail is the end of the server's log as an error, which is where the reason stands.
func tail(name string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return errors.New(string(data[max(0, len(data)-1000):]))
}
