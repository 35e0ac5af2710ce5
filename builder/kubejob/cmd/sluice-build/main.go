// Command sluice-build is the work of a build's pod, started by package kubejob.
//
//	sluice-build install FILE      copies itself to FILE, for an init container
//	sluice-build run [flags] ORDER carries out the order repository@digest
//
// It needs buildkitd, buildctl and runc in PATH. Its exit code is 0 when the image is in the
// registry, 42 when the request is at fault, 75 when another try may help, and 2 for wrong
// arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/kubejob/internal/pod"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "sluice-build:", err)
	}
	os.Exit(code)
}

const exitUsage = 2

func run(args []string) (int, error) {
	if len(args) == 2 && args[0] == "install" {
		if err := install(args[1]); err != nil {
			return 1, err
		}
		return 0, nil
	}
	if len(args) == 0 || args[0] != "run" {
		return exitUsage, errors.New("want install FILE, or run [flags] ORDER")
	}
	r := pod.Run{Out: os.Stdout}
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	list := func(to *[]string) func(string) error {
		return func(v string) error { *to = append(*to, v); return nil }
	}
	flags.StringVar(&r.Cache, "cache", "", "image of the layers' cache, repository:tag")
	flags.StringVar(&r.Cgroup, "cgroup", "/sys/fs/cgroup", "directory of the container's cgroup")
	flags.StringVar(&r.Daemon, "daemon", "", "address of a BuildKit daemon that runs elsewhere")
	deadline := flags.Duration("deadline", time.Hour, "time for the build")
	flags.Func("insecure", "registry that speaks plain HTTP, host:port; may be repeated",
		list(&r.Insecure))
	flags.Int64Var(&r.Limit, "log-limit", 64<<20, "bytes of the log")
	flags.Func("buildkitd-flag", "flag for buildkitd; may be repeated", list(&r.Flags))
	flags.StringVar(&r.Message, "message", "/dev/termination-log", "file for the verdict")
	flags.StringVar(&r.Secrets, "secrets", "", "directory of files that RUN may mount")
	flags.StringVar(&r.State, "state", "/var/lib/buildkit", "directory of BuildKit")
	flags.StringVar(&r.Work, "work", "/tmp/sluice-build", "directory for files of this run")
	if err := flags.Parse(args[1:]); err != nil {
		return exitUsage, err
	}
	if flags.NArg() != 1 {
		return exitUsage, fmt.Errorf("%d orders: want one", flags.NArg())
	}
	r.Reference = flags.Arg(0)
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	ctx, done := context.WithTimeoutCause(ctx, *deadline, &builder.Failure{
		Reason: builder.ReasonDeadline, Hint: "allow more time, or make the build smaller",
		Message: fmt.Sprintf("the build took longer than %s", *deadline)})
	defer done()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		stop(&builder.Failure{Reason: builder.ReasonEvicted, Retryable: true,
			Message: "the pod was told to end", Hint: "try again"})
	}()
	return r.Do(ctx), nil
}

// install copies this program to a file.
func install(file string) (err error) {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
