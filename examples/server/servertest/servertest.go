package servertest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/registry"
	"github.com/sluice-deploy/sluice/examples/server/web"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

// Config configures the server that Start starts. The zero value is a server on loopback that asks
// for no token.
type Config struct {
	// Dir is the server's directory. The default is a new one; that of an earlier server which was
	// left goes on with its state.
	Dir string
	// Pool is the range of VIPs. The default is 127.60.0.0/24; servers may share it, each has a
	// port of its own.
	Pool string
	// CoolDown, TaskTTL, Patience and Instances are those of platform.Config.
	CoolDown  time.Duration
	TaskTTL   time.Duration
	Patience  time.Duration
	Instances map[string]int
	// Rules, Breakers, Adopters and Templates go to platform.Config.
	Rules     string
	Breakers  []string
	Adopters  []string
	Templates string
	// Fetch goes to platform.Config.
	Fetch []string
	// Door is that of platform.Config. Doors are ports that the tests of a machine do not take
	// otherwise.
	Door platform.DoorConfig
	// Listen is the address that the web side believes it listens on; the default is the one it
	// does listen on, of 127.0.0.1.
	Listen string
	// Token is asked for on every request of the web side.
	Token string
	// Observe is that of web.Config.
	Observe func(op string, took time.Duration, err error)
}

// Doors is a range of ports above the ports that package testbed gives out and the ones of outgoing
// connections. A door passes over ports that another test has.
var Doors = platform.DoorConfig{Ports: "61000-65000", Shared: "127.0.0.1:0"}

// Server is a running example server.
type Server struct {
	// URL is the page's, without a slash at the end. The API is below URL + "/api/v1".
	URL string
	// Registry is host:port of the registry.
	Registry string
	// NginxPort is where the private Nginx listens, on every address of this machine.
	NginxPort int
	// NginxTLSPort is where it listens for TLS.
	NginxTLSPort int
	// Platform is the platform behind the API and the page.
	Platform *platform.Platform
	// Dir is the server's directory.
	Dir string
	// Token is that of Config; the methods of Server send it.
	Token string

	leave func()
}

// Start starts a server and waits until it works. The test's cleanup ends it with all its instances
// and its Nginx.
func Start(t testing.TB, config Config) *Server {
	t.Helper()
	if config.Dir == "" {
		config.Dir = t.TempDir()
	}
	Sweep(t, config.Dir)
	if config.Pool == "" {
		config.Pool = "127.60.0.0/24"
	}
	binary, err := envconfig()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: config.Dir, NginxPort: testbed.Port(t), NginxTLSPort: testbed.Port(t),
		Token: config.Token}
	imagesListener, pageListener := listen(t), listen(t)
	t.Cleanup(func() { s.end(t) })

	images, err := registry.Open(context.Background(), registry.Config{
		Dir: filepath.Join(config.Dir, "registry"),
		Used: func(ctx context.Context, repository, digest string) (string, error) {
			return s.Platform.Used(ctx, repository, digest)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Registry, s.URL = imagesListener.Addr().String(), "http://"+pageListener.Addr().String()
	if config.Listen == "" {
		config.Listen = pageListener.Addr().String()
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	s.Platform, err = platform.Open(t.Context(), platform.Config{
		Dir: config.Dir, Registry: s.Registry, Nginx: os.DirFS(filepath.Join(Examples(), "server",
			"nginx")), NginxPort: s.NginxPort, NginxTLSPort: s.NginxTLSPort,
		Pool: config.Pool, CoolDown: config.CoolDown, TaskTTL: config.TaskTTL,
		Patience: config.Patience, Envconfig: binary, Instances: config.Instances,
		Rules: config.Rules, Breakers: config.Breakers, Adopters: config.Adopters,
		Templates: config.Templates, Fetch: config.Fetch, Logger: logger, Door: config.Door,
	})
	if err != nil {
		t.Fatal(err)
	}
	site, err := web.New(web.Config{Platform: s.Platform, Listen: config.Listen,
		Token: config.Token, Logger: logger, Observe: config.Observe})
	if err != nil {
		t.Fatal(err)
	}
	s.run(t, map[net.Listener]http.Handler{imagesListener: images, pageListener: site},
		images.Close)
	select {
	case <-s.Platform.Ready():
	case <-time.After(3 * time.Minute):
		t.Fatal("the server was not ready after three minutes")
	}
	return s
}

// run serves in the background and sets the function that ends the serving.
func (s *Server) run(t testing.TB, handlers map[net.Listener]http.Handler,
	closers ...func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Platform.Run(running) })
	for listener, handler := range handlers {
		server := &http.Server{Handler: handler, BaseContext: func(net.Listener) context.Context {
			return running
		}}
		group.Go(func() error { return server.Serve(listener) })
		group.Go(func() error {
			<-running.Done() // streams end with it
			grace, stop := context.WithTimeout(context.Background(), 5*time.Second)
			defer stop()
			if server.Shutdown(grace) != nil {
				return server.Close()
			}
			return nil
		})
	}
	left := false
	s.leave = func() {
		if left {
			return
		}
		left = true
		cancel()
		if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) &&
			!errors.Is(err, http.ErrServerClosed) {
			t.Errorf("server: %v", err)
		}
		for _, closer := range append(closers, s.Platform.Close) {
			if err := closer(); err != nil {
				t.Errorf("server: %v", err)
			}
		}
	}
}

// Leave ends the server but neither its instances nor its Nginx. Start with the same Dir takes them
// over; the test's cleanup ends them in any case. Not safe for concurrent use.
func (s *Server) Leave() {
	if s.leave != nil {
		s.leave()
	}
}

func (s *Server) end(t testing.TB) {
	s.Leave()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := platform.StopAll(ctx, s.Dir); err != nil {
		t.Errorf("stop what the server has left: %v", err)
	}
	if !t.Failed() {
		return
	}
	if log, err := os.ReadFile(filepath.Join(s.Dir, "nginx", "logs", "error.log")); err == nil &&
		len(bytes.TrimSpace(log)) > 0 {
		t.Logf("Nginx: %s", log)
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}
