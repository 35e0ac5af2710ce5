// Command server is the example deploy platform: all five packages of Sluice wired together for one machine, with an OCI
// registry, a private Nginx and a web page. Its runtime is for a trial; platform.Open is the place to look at for how the
// packages meet.
//
// It ends with everything that it started on SIGINT and SIGTERM; -keep leaves instances and Nginx running. After a crash a
// new start on the same -data finds images, versions, journal and leases, and finds or restarts the instances.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/registry"
	"github.com/sluice-deploy/sluice/examples/server/web"
)

//go:embed nginx
var sampleNginx embed.FS

func main() {
	instance.Init()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Getenv, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

type options struct {
	data, listen, registry, pool, nginx, envconfig string
	nginxPort                                      int
	coolDown, taskTTL                              time.Duration
	keep, stop                                     bool
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("server", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.data, "data", "sluice-data", "`folder` for everything that outlives the process")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8800", "`address` of the API and the page; other than loopback needs SLUICE_TOKEN, and a TLS proxy in front")
	f.StringVar(&o.registry, "registry", "127.0.0.1:5800", "loopback `address` of the OCI registry")
	f.StringVar(&o.pool, "pool", "127.58.0.0/24", "`range` of virtual IPs")
	f.StringVar(&o.nginx, "nginx", "", "`folder` with the production Nginx configuration; its main file is nginx.conf (default: the embedded sample)")
	f.IntVar(&o.nginxPort, "nginx-port", 8880, "`port` of the private Nginx, in place of production's port 80")
	f.StringVar(&o.envconfig, "envconfig", "", "`path` of the envconfig binary for images (default: beside this program)")
	f.DurationVar(&o.coolDown, "cool-down", 0, "how long a returned VIP rests before the next task gets it (default 130s)")
	f.DurationVar(&o.taskTTL, "task-ttl", 0, "how long a task lives after it was served when last asked for (default 24h)")
	f.BoolVar(&o.keep, "keep", false, "leave instances and Nginx running at the end")
	f.BoolVar(&o.stop, "stop", false, "end what a killed server has left running on -data, and exit")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: see -help", f.Arg(0))
	}
	if o.stop {
		return o, nil
	}
	if !web.IsLoopback(o.registry) {
		return o, fmt.Errorf("-registry %s: the registry asks nobody who he is, so it listens on a loopback address only", o.registry)
	}
	if o.envconfig == "" {
		self, err := os.Executable()
		if err != nil {
			return o, err
		}
		o.envconfig = filepath.Join(filepath.Dir(self), "envconfig")
	}
	if _, err := os.Stat(o.envconfig); err != nil {
		return o, fmt.Errorf("envconfig binary: %w: build it with: CGO_ENABLED=0 go build -o %s ./envconfig/cmd/envconfig", err, o.envconfig)
	}
	return o, nil
}

func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.stop {
		stopping, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return platform.StopAll(stopping, o.data)
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	images, err := registry.New(ctx, filepath.Join(o.data, "registry"))
	if err != nil {
		return err
	}
	defer images.Close()
	registryListener, err := net.Listen("tcp", o.registry)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	defer registryListener.Close()
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	p, err := platform.Open(ctx, platform.Config{
		Dir: o.data, Registry: registryListener.Addr().String(), Nginx: o.tree(), NginxPort: o.nginxPort, Pool: o.pool,
		CoolDown: o.coolDown, TaskTTL: o.taskTTL, Envconfig: o.envconfig, Instances: map[string]int{"stable": 2}, Logger: logger,
	})
	if err != nil {
		return err
	}
	defer p.Close()
	site, err := web.New(web.Config{Platform: p, Listen: o.listen, Token: getenv("SLUICE_TOKEN"), Logger: logger})
	if err != nil {
		return err
	}
	group, running := errgroup.WithContext(ctx)
	registryInUse, endRegistry := context.WithCancel(context.WithoutCancel(ctx))
	defer endRegistry()
	group.Go(func() error { return serve(registryInUse, registryListener, web.LoopbackOnly(images)) })
	group.Go(func() error { return serve(running, listener, site) })
	group.Go(func() error {
		defer endRegistry() // changes under way pull from it until Run returns
		return p.Run(running)
	})
	logger.Info("the page is at http://" + listener.Addr().String())
	err = group.Wait()
	if ctx.Err() != nil {
		err = nil // asked to end
	}
	if o.keep {
		return err
	}
	stopping, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return errors.Join(err, p.Stop(stopping))
}

func (o options) tree() fs.FS {
	if o.nginx != "" {
		return os.DirFS(o.nginx)
	}
	tree, err := fs.Sub(sampleNginx, "nginx")
	if err != nil {
		panic(err) // the name is a constant
	}
	return tree
}

// serve serves until ctx is done, lets requests end and returns nil.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }, // streams end with the server
	}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
