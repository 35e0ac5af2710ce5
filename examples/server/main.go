// Command server is the example deploy platform: all five packages of Sluice wired together for one
// machine, with an OCI registry, a private Nginx and a web page. Its runtime is for a trial;
// platform.Open is the place to look at for how the packages meet.
//
// It ends with everything that it started on SIGINT and SIGTERM; -keep leaves instances and Nginx
// running. After a crash a new start on the same -data finds images, versions, journal and leases,
// and finds or restarts the instances.
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
	"strings"
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
	rules, templates                               string
	breakers, adopters                             string
	door                                           platform.DoorConfig
	token                                          string // from the environment
	nginxPort, nginxTLSPort, builds                int
	buildPolicy, fetch                             string
	coolDown, taskTTL, drain                       time.Duration
	keep, keepBaseline, stop, tlsProxy             bool
}

func (o *options) define(f *flag.FlagSet) {
	f.StringVar(&o.data, "data", "sluice-data", "`directory` for everything that outlives the "+
		"process")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8800", "`address` of the API and the page; other "+
		"than loopback needs SLUICE_TOKEN, and a TLS proxy in front")
	f.StringVar(&o.registry, "registry", "127.0.0.1:5800", "loopback `address` of the OCI registry")
	f.StringVar(&o.pool, "pool", "127.58.0.0/24", "`range` of virtual IPs")
	f.StringVar(&o.nginx, "nginx", "", "`directory` with the production Nginx configuration; its "+
		"main file is nginx.conf (default: the embedded sample)")
	f.IntVar(&o.nginxPort, "nginx-port", 8880, "`port` of the private Nginx, in place of "+
		"production's port 80")
	f.IntVar(&o.nginxTLSPort, "nginx-tls-port", 8843, "`port` of the private Nginx, in place of "+
		"production's port 443; 0 for a tree without TLS")
	f.StringVar(&o.envconfig, "envconfig", "", "`path` of the envconfig binary for images "+
		"(default: beside this program)")
	f.DurationVar(&o.coolDown, "cool-down", 0, "how long a returned VIP rests before the next "+
		"task gets it (default 130s)")
	f.DurationVar(&o.taskTTL, "task-ttl", 0, "how long a task lives after it was served when "+
		"last asked for (default 24h)")
	f.DurationVar(&o.drain, "drain", 0, "how long an instance that is replaced may finish its "+
		"requests (default 10s)")
	f.StringVar(&o.rules, "rules", "", "`file` with the rules of clusters and teams, YAML or "+
		"JSON: approvals, soak and freezes")
	f.StringVar(&o.breakers, "breakers", "", "`names` of those who may override gates, with "+
		"commas between them (default: nobody)")
	f.StringVar(&o.adopters, "adopters", "", "`names` of those who may say what runs, with "+
		"commas between them (default: nobody)")
	f.StringVar(&o.templates, "templates", "", "`directory` with a template a directory, name or "+
		"name@version; a new version is on offer without a restart (default: the templates of "+
		"package builder)")
	f.StringVar(&o.door.Ports, "door", "21000-21999", "`range` of ports: each task has a forward "+
		"proxy on one of them; empty for none")
	f.StringVar(&o.door.Host, "door-host", "127.0.0.1", "IP `address` that the ports of -door "+
		"listen on; others than this machine reach the versions under test through it")
	f.StringVar(&o.door.Shared, "door-shared", "127.0.0.1:8801", "`address` of the forward proxy "+
		"where the user names the task; empty for none")
	f.StringVar(&o.door.Client, "door-client", "", "`way` in which Nginx learns the address of a "+
		"tester behind the door: x-forwarded-for, or empty for none")
	f.IntVar(&o.builds, "builds", 0, "how many builds run at a time (default 2)")
	f.StringVar(&o.buildPolicy, "build-policy", "", "`rule` for the builds of one cluster: "+
		"parallel, serial or latestOnly (default parallel)")
	f.StringVar(&o.fetch, "fetch", "", "`kinds` of sources that builds may name for the server "+
		"to fetch, with commas between them: rsync, git, archive, artifact (default: none, "+
		"sources are uploaded)")
	f.BoolVar(&o.tlsProxy, "tls-proxy", false, "a proxy that ends TLS is the only way to "+
		"-listen: cookies are Secure, the client's address is the last one of X-Forwarded-For; "+
		"needs SLUICE_TOKEN")
	f.BoolVar(&o.keep, "keep", false, "leave instances and Nginx running at the end")
	f.BoolVar(&o.keepBaseline, "keep-baseline", false, "an address of -pool that no task has "+
		"answers as production does, in place of 410")
	f.BoolVar(&o.stop, "stop", false,
		"end what a killed server has left running on -data, and exit")
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (o options, err error) {
	o.token = getenv("SLUICE_TOKEN")
	f := flag.NewFlagSet("server", flag.ContinueOnError)
	f.SetOutput(stderr)
	o.define(f)
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: see -help", f.Arg(0))
	}
	if o.data == "" {
		return o, errors.New("-data: want the path of a directory")
	}
	if o.stop {
		return o, nil
	}
	if o.envconfig == "" {
		self, err := os.Executable()
		if err != nil {
			return o, err
		}
		o.envconfig = filepath.Join(filepath.Dir(self), "envconfig")
	}
	return o, o.check()
}

// flags are the flags that set the fields of platform.Config.
var flags = map[string]string{
	"Dir": "data", "Registry": "registry", "Nginx": "nginx", "NginxPort": "nginx-port",
	"NginxTLSPort": "nginx-tls-port",
	"Pool":         "pool",
	"CoolDown":     "cool-down", "Envconfig": "envconfig", "TaskTTL": "task-ttl", "Builds": "builds",
	"BuildPolicy": "build-policy", "Fetch": "fetch",
	"Door.Ports": "door", "Door.Host": "door-host",
	"Door.Shared": "door-shared", "Door.Client": "door-client",
	"Drain": "drain", "Rules": "rules", "Templates": "templates", "Breakers": "breakers",
	"Adopters": "adopters",
}

// check returns all problems of the options at once, each with the name of its flag.
func (o options) check() error {
	var errs []error
	if err := web.CheckListen(o.listen, o.token); err != nil {
		errs = append(errs, fmt.Errorf("-listen: %w", err))
	}
	if o.tlsProxy && o.token == "" {
		errs = append(errs, fmt.Errorf("-tls-proxy: %w", web.ErrTokenRequired))
	}
	if err := web.CheckListen(o.registry, "any"); err != nil {
		errs = append(errs, fmt.Errorf("-registry: %w", err))
	} else if !web.IsLoopback(o.registry) {
		errs = append(errs, fmt.Errorf("-registry %s: the registry asks nobody for a name, so it "+
			"listens on a loopback address only", o.registry))
	}
	for _, problem := range problems(o.config("127.0.0.1:5800", nil).Validate()) {
		err := fmt.Errorf("-%s: %s", flags[problem.Field], problem.Problem)
		switch problem.Field {
		case "Nginx":
			err = fmt.Errorf("-nginx %s: %s", o.nginx, problem.Problem)
		case "Envconfig":
			err = fmt.Errorf("%w: build it with: CGO_ENABLED=0 go build -o %s "+
				"./envconfig/cmd/envconfig", err, o.envconfig)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// problems are the errors that Config.Validate has joined.
func problems(err error) (list []*platform.ConfigError) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			list = append(list, err.(*platform.ConfigError))
		}
	}
	return list
}

func (o options) config(registry string, logger *slog.Logger) platform.Config {
	return platform.Config{
		Dir: o.data, Registry: registry, Nginx: o.tree(), NginxPort: o.nginxPort,
		NginxTLSPort: o.nginxTLSPort, Pool: o.pool,
		CoolDown: o.coolDown,
		TaskTTL:  o.taskTTL, Drain: o.drain, Builds: o.builds,
		BuildPolicy: o.buildPolicy, Fetch: people(o.fetch),
		Envconfig: o.envconfig,
		Instances: map[string]int{"stable": 2}, Rules: o.rules,
		Breakers: people(o.breakers), Adopters: people(o.adopters),
		Templates: o.templates, Logger: logger, Door: o.door, KeepBaseline: o.keepBaseline,
	}
}

// people are the names of a list with commas.
func people(list string) (names []string) {
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "browse" {
		return browse(ctx, args[1:], getenv, os.Stdout, stderr)
	}
	o, err := parse(args, getenv, stderr)
	if err != nil {
		return err
	}
	if o.stop {
		stopping, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return platform.StopAll(stopping, o.data)
	}
	logger := slog.New(slog.NewTextHandler(stderr, nil))
	s, err := open(ctx, o, logger)
	switch {
	case err != nil && ctx.Err() != nil:
		logger.Info("asked to end before it had started", "under way", err)
		return nil
	case err != nil:
		return err
	}
	defer s.close()
	return s.run(ctx)
}

// server holds the parts that open has opened: none of them works yet.
type server struct {
	options
	logger           *slog.Logger
	images           *registry.Registry
	imagesOn, pageOn net.Listener
	platform         *platform.Platform
	site             http.Handler
}

func open(ctx context.Context, o options, logger *slog.Logger) (*server, error) {
	s := &server{options: o, logger: logger}
	if err := s.open(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *server) open(ctx context.Context) (err error) {
	s.images, err = registry.Open(ctx, registry.Config{
		Dir: filepath.Join(s.data, "registry"),
		Used: func(ctx context.Context, repository, digest string) (string, error) {
			// asked only while the platform works
			return s.platform.Used(ctx, repository, digest)
		},
	})
	if err != nil {
		return fmt.Errorf("-data %s: %w", s.data, err)
	}
	if s.imagesOn, err = net.Listen("tcp", s.registry); err != nil {
		return fmt.Errorf("-registry: %w", err)
	}
	if s.pageOn, err = net.Listen("tcp", s.listen); err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if s.platform, err = platform.Open(ctx, s.config(s.imagesOn.Addr().String(),
		s.logger)); err != nil {
		return fmt.Errorf("-data %s: %w", s.data, err)
	}
	s.site, err = web.New(web.Config{Platform: s.platform, Listen: s.listen, Token: s.token,
		TLSProxy: s.tlsProxy, Logger: s.logger})
	return err
}

// close closes the parts that open has opened, also after open has failed.
func (s *server) close() {
	if s.platform != nil {
		_ = s.platform.Close()
	}
	for _, l := range []net.Listener{s.pageOn, s.imagesOn} {
		if l != nil {
			_ = l.Close()
		}
	}
	if s.images != nil {
		_ = s.images.Close()
	}
}

// run works until ctx is done, and then ends everything that it started, unless -keep is given.
func (s *server) run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	registryInUse, endRegistry := context.WithCancel(context.WithoutCancel(ctx))
	defer endRegistry()
	group.Go(func() error { return serve(registryInUse, s.imagesOn, web.LoopbackOnly(s.images)) })
	group.Go(func() error { return serve(running, s.pageOn, s.site) })
	group.Go(func() error {
		defer endRegistry() // changes in progress pull from it until Run returns
		return s.platform.Run(running)
	})
	s.logger.Info("the page is at http://" + s.pageOn.Addr().String())
	err := group.Wait()
	if ctx.Err() != nil {
		err = nil // asked to end
	}
	if s.keep {
		return err
	}
	stopping, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return errors.Join(err, s.platform.Stop(stopping))
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
