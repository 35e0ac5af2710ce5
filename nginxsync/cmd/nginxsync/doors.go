package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync/agenthttp"
)

// doors are the places where the agent listens. They stay open while the configuration changes.
type doors struct {
	private, public, remote, relay *door
}

// door is one listener with the handler of the assembly that runs.
type door struct {
	at      string
	server  *http.Server
	handler atomic.Pointer[http.Handler]
	tls     atomic.Pointer[tls.Config] // nil for plain HTTP
}

// open opens the doors of an assembly that are not open yet. One of another address gives way.
func (d *doors) open(a *assembly) error {
	var remote, relay string
	if a.file.Remote != nil {
		remote = a.file.Remote.Listen
	}
	if a.file.Relay != nil {
		relay = a.file.Relay.Listen
	}
	for _, p := range []struct {
		door **door
		at   string
		tls  *tls.Config
	}{{&d.private, a.file.Listen, nil}, {&d.public, a.file.Public, nil},
		{&d.remote, remote, a.tls.remote}, {&d.relay, relay, a.tls.relay}} {
		if p.at != "" && *p.door != nil && (*p.door).at == p.at {
			(*p.door).tls.Store(p.tls)
		}
		if p.at == "" || *p.door != nil && (*p.door).at == p.at {
			continue
		}
		opened, err := openDoor(p.at, p.tls, a.log)
		if err != nil {
			return err
		}
		if *p.door != nil {
			opened.handler.Store((*p.door).handler.Load())
			(*p.door).server.Close()
		}
		*p.door = opened
	}
	return nil
}

// serve has the doors answer for an assembly.
func (d *doors) serve(a *assembly) {
	all, few := http.Handler(a.handler), a.handler.Public()
	d.private.handler.Store(&all)
	if a.file.Public == "" {
		few = nil
	}
	for _, p := range []struct {
		door    **door
		handler http.Handler
	}{{&d.public, few}, {&d.remote, a.remote}, {&d.relay, a.relay}} {
		switch {
		case *p.door != nil && p.handler == nil:
			(*p.door).server.Close()
			*p.door = nil
		case *p.door != nil:
			(*p.door).handler.Store(&p.handler)
		}
	}
}

func (d *doors) close() {
	for _, door := range []*door{d.private, d.public, d.remote, d.relay} {
		if door != nil {
			door.server.Close()
		}
	}
}

// openDoor listens and serves. A unix socket is for its owner and group.
func openDoor(at string, config *tls.Config, log *slog.Logger) (*door, error) {
	network, addr, err := agenthttp.ParseListen(at)
	if err != nil { // not loopback: the public one
		network, addr = "tcp", at
	}
	if network == "unix" {
		if err := removeStale(addr); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen(network, addr)
	if err == nil && network == "unix" {
		if err = os.Chmod(addr, 0o660); err != nil {
			l.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", at, err)
	}
	d := &door{at: at}
	d.tls.Store(config)
	d.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if h := d.handler.Load(); h != nil {
				(*h).ServeHTTP(w, r)
				return
			}
			http.Error(w, "the agent is starting", http.StatusServiceUnavailable)
		})}
	go func() {
		if err := d.server.Serve(&tlsListener{l, &d.tls}); !errors.Is(err, http.ErrServerClosed) {
			log.Error("listener", "at", at, "err", err)
		}
	}()
	return d, nil
}

// tlsListener speaks TLS on the connections that it takes while there is a configuration.
type tlsListener struct {
	net.Listener
	config *atomic.Pointer[tls.Config]
}

func (l *tlsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if config := l.config.Load(); err == nil && config != nil {
		return tls.Server(conn, config), nil
	}
	return conn, err
}

// removeStale removes a socket that a killed agent has left.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen at %s: the file is not a socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return cmp.Or(conn.Close(), fmt.Errorf("listen at %s: another agent listens there", path))
	}
	return os.Remove(path)
}
