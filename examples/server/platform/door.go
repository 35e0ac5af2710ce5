package platform

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/nginxsync/door"
	"github.com/sluice-deploy/sluice/vip"
)

// DoorConfig says where testers reach the doors of their tasks. The zero value is no door.
type DoorConfig struct {
	// Ports is a range of ports, such as "21000-21999": a task has one of its own. The default is
	// none.
	Ports string
	// Host is the IP address that these ports listen on. The default is 127.0.0.1.
	Host string
	// Shared is host:port of the port that all tasks share, where the proxy user names the task.
	// The default is none.
	Shared string
	// Client says how Nginx learns the address of a tester: "x-forwarded-for" or nothing.
	Client string
}

// check calls bad for each field that cannot be right.
func (cfg DoorConfig) check(bad func(field, format string, args ...any)) {
	if cfg.Ports != "" {
		if _, _, err := door.ParseRange(cfg.Ports); err != nil {
			bad("Door.Ports", "%v", err)
		}
	}
	if cfg.Host != "" && net.ParseIP(cfg.Host) == nil {
		bad("Door.Host", "%q: want an IP address", cfg.Host)
	}
	if cfg.Shared != "" {
		if _, _, err := net.SplitHostPort(cfg.Shared); err != nil {
			bad("Door.Shared", "%v: want host:port", err)
		}
	}
	if cfg.Client != "" && cfg.Client != string(door.ForwardedFor) {
		bad("Door.Client", "%q: want %s or nothing", cfg.Client, door.ForwardedFor)
	}
}

// openDoor opens the ports of the tasks, unless none are configured.
func (p *Platform) openDoor(ctx context.Context) (err error) {
	from := p.config.Door
	if from.Ports == "" && from.Shared == "" {
		return nil
	}
	cfg := door.Config{Host: from.Host, Shared: from.Shared, Client: door.Client(from.Client)}
	if from.Ports != "" {
		if cfg.First, cfg.Last, err = door.ParseRange(from.Ports); err != nil {
			return err
		}
	}
	if p.doorSecret, err = secret(filepath.Join(p.config.Dir, "door.secret")); err != nil {
		return err
	}
	cfg.Task, cfg.Serves = p.doorTask, p.Edge.Routes.Serves
	cfg.Targets = p.Edge.Ports()
	if p.Edge.CA != nil {
		cfg.CA = p.Edge.CA.PEM()
	}
	cfg.State = filepath.Join(p.config.Dir, "door.json")
	cfg.Logger = p.config.Logger
	p.door, err = door.Open(ctx, cfg)
	return err
}

// secret reads the file, or makes it with 32 random bytes in hexadecimal digits.
func secret(name string) (string, error) {
	data, err := os.ReadFile(name)
	switch {
	case err == nil && len(data) >= 64:
		return string(data), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	random := make([]byte, 32)
	rand.Read(random)
	text := hex.EncodeToString(random)
	return text, atomicfile.Write(name, []byte(text), 0o600)
}

// renewCertificates has Nginx read new certificates before the old ones end. It returns the
// context's cause.
func (p *Platform) renewCertificates(ctx context.Context) error {
	tick := time.NewTicker(6 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if err := p.Edge.Renew(ctx); err != nil {
				p.config.Logger.Warn("certificates are not renewed", "err", err)
			}
		}
	}
}

// doorTask is a task as the door sees it. One whose lease nothing knows any more is
// door.ErrNotFound.
func (p *Platform) doorTask(_ context.Context, name string) (door.Task, error) {
	lease, err := p.lastLease(name)
	if errors.Is(err, ErrNotFound) {
		return door.Task{}, fmt.Errorf("task %q: %w", name, door.ErrNotFound)
	} else if err != nil {
		return door.Task{}, err
	}
	task := door.Task{Name: name, Lease: lease.ID, VIP: lease.Addr,
		Versions: lease.Owner.Overrides, Expires: lease.Expires}
	if lease.State != vip.Leased {
		task.Ended = lease.Ended
	}
	return task, nil
}

// Reach says how testers reach a task.
type Reach struct {
	Task Task `json:"task"`
	// Hosts are the host names that the tree serves on port 80, as its server blocks write them.
	Hosts []string `json:"hosts"`
	// Host is one of them, for examples; empty when there is none without a regular expression.
	Host string `json:"host"`
	// NginxPort is where Nginx listens in place of port 80.
	NginxPort int `json:"nginxPort"`
	// NginxTLSPort is where it listens in place of port 443; 0 for nowhere.
	NginxTLSPort int `json:"nginxTLSPort,omitempty"`
	// Secure is a host that the tree serves on port 443, for examples; empty for none.
	Secure string `json:"secure,omitempty"`
	// Pin is the SHA-256 of the public key of the authority that signs the certificates, base64, as
	// Chromium takes it; empty for none.
	Pin string `json:"pin,omitempty"`
	// Door is host:port of the task's own proxy; empty for none.
	Door string `json:"door,omitempty"`
	// Shared is host:port of the proxy that all tasks share; empty for none.
	Shared string `json:"shared,omitempty"`
	// Why is the reason why the task has no Door.
	Why string `json:"why,omitempty"`
}

// Reach says how testers reach a live task, and gives it a port when it has none. A task that is
// unknown or has ended is ErrNotFound.
func (p *Platform) Reach(ctx context.Context, name string) (Reach, error) {
	task, err := p.Task(ctx, name)
	if err != nil {
		return Reach{}, err
	}
	r := Reach{Task: task, Hosts: p.Edge.Routes.Hosts(80), NginxPort: p.config.NginxPort}
	r.Host = example(r.Hosts)
	if p.Edge.CA != nil {
		r.NginxTLSPort, r.Pin = p.config.NginxTLSPort, p.Edge.CA.Pin()
		r.Secure = example(p.Edge.Routes.Hosts(443))
	}
	if r.Hosts == nil {
		r.Hosts = []string{}
	}
	if p.door == nil {
		r.Why = "the server has no doors: see its flag -door"
		return r, nil
	}
	r.Shared = p.door.Shared()
	port, err := p.door.Port(ctx, name)
	if err != nil {
		r.Why = err.Error()
		return r, nil
	}
	r.Door = p.doorAt(port)
	return r, nil
}

func (p *Platform) doorAt(port int) string {
	host := p.config.Door.Host
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// example returns a host that the names stand for; exact names come first.
func example(hosts []string) (host string) {
	for _, name := range hosts {
		switch {
		case strings.HasPrefix(name, "~") || strings.HasSuffix(name, ".*"):
		case strings.HasPrefix(name, "*.") && host == "":
			host = "www" + name[1:]
		case strings.HasPrefix(name, ".") && host == "":
			host = name[1:]
		case !strings.Contains(name, "*") && !strings.HasPrefix(name, "."):
			return name
		}
	}
	return host
}

// PAC is the proxy auto-configuration file of a task. That of a task without a port sends its hosts
// to a port where nothing listens: they must never be production's.
func (p *Platform) PAC(name string) string {
	proxy := "127.0.0.1:1"
	if p.door != nil {
		if port, ok := p.door.PortOf(name); ok {
			proxy = p.doorAt(port)
		}
	}
	var hosts []string
	for port := range p.Edge.Ports() {
		hosts = append(hosts, p.Edge.Routes.Hosts(port)...)
	}
	return door.PAC(proxy, hosts)
}

// DoorSecret is a random text that outlives the process, for addresses that cannot be guessed;
// empty without a door.
func (p *Platform) DoorSecret() string { return p.doorSecret }

// openTaskDoor gives a task that starts its port. A task without one can be reached in other ways.
func (p *Platform) openTaskDoor(ctx context.Context, name string) {
	if p.door == nil || p.config.Door.Ports == "" {
		return
	}
	if _, err := p.door.Port(ctx, name); err != nil {
		p.config.Logger.Warn("no door for a task", "task", name, "err", err)
	}
}

// checkDoors closes the connections to tasks that have ended.
func (p *Platform) checkDoors(ctx context.Context) {
	if p.door == nil {
		return
	}
	if err := p.door.Check(ctx); err != nil {
		p.config.Logger.Warn("the doors of ended tasks are not written down", "err", err)
	}
}
