// Command embed is the smallest use of Sluice in a platform of one's own: only vip and nginxsync.
// It takes one VIP for one instance that runs already, routes it in the Nginx whose admin socket is
// given, and gives it back on Ctrl-C. platform.go holds the two hooks that a deploy platform would
// call.
//
// The Nginx serves a tree that "nginxsync transform" or transform.Transform has made.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/luadriver"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/boltstore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("embed", flag.ContinueOnError)
	socket := flags.String("socket", "", "`path` of the admin socket of Nginx")
	data := flags.String("data", "embed-data", "`directory` for leases and routes")
	task := flags.String("task", "search-redesign", "the test `task`")
	cluster := flags.String("cluster", "hello_web", "the `cluster` that it overrides")
	version := flags.String("version", "v2", "with this `version`")
	instance := flags.String("instance", "127.0.0.1:9000", "which runs at this `address`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	addr, err := netip.ParseAddrPort(*instance)
	if err != nil {
		return fmt.Errorf("-instance: %w", err)
	}
	if err := os.MkdirAll(*data, 0o755); err != nil {
		return err
	}
	store, err := boltstore.Open(filepath.Join(*data, "leases.db"))
	if err != nil {
		return err
	}
	defer store.Close()
	pool, err := vip.ParsePool("trial", "127.58.1.0/24")
	if err != nil {
		return err
	}
	driver, err := luadriver.New(luadriver.Config{Socket: *socket})
	if err != nil {
		return err
	}
	hooks, err := Open(ctx, Config{
		// a real platform has a Baseline
		Pool: pool, Store: store, Driver: driver, StateFile: filepath.Join(*data, "routes.state"),
	})
	if err != nil {
		return err
	}
	// outlives ctx: the task is finished after it
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = hooks.Run(background) })

	lease, err := hooks.Deployed(ctx, *task, *cluster, *version, addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s serves %s %s for the task %s; Ctrl-C finishes it\n", lease.Addr, *cluster,
		*version, *task)
	<-ctx.Done()
	finishing, cancel := context.WithTimeout(background, 10*time.Second) // Nginx may be away
	defer cancel()
	return hooks.Finished(finishing, *task)
}
