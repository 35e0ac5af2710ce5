package luadriver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Driver.
type Config struct {
	// Socket is that of SnippetConfig. It is required.
	Socket string
	// Timeout is for one question to Nginx. The default is 5 seconds.
	Timeout time.Duration
	// Now is the clock of Observe. The default is time.Now.
	Now func() time.Time
	// Observe is called after each call of Apply, State and Routes with "apply", "state" or
	// "routes", how long it took and its error. It must return soon. Nil means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Driver is an nginxsync.Driver that talks to the admin socket. It is safe for concurrent use.
type Driver struct {
	cfg    Config
	client *http.Client
}

var _ nginxsync.Driver = (*Driver)(nil)

// New is a driver for the Nginx behind the socket. Nginx need not run yet. A configuration that is
// not valid is an error with all its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Driver, error) {
	p := check.Problems{Package: "luadriver", Sentinel: nginxsync.ErrInvalid}
	if p.Require("Socket", cfg.Socket != ""); cfg.Socket != "" && !filepath.IsAbs(cfg.Socket) {
		p.Add("Socket", "%q: want an absolute path", cfg.Socket)
	}
	p.Duration("Timeout", &cfg.Timeout, 5*time.Second)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", cfg.Socket)
	}
	// A connection that is kept would stay with a worker that a reload has retired.
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	return &Driver{cfg: cfg, client: &http.Client{Transport: transport}}, nil
}

// Apply implements nginxsync.Driver.
func (d *Driver) Apply(ctx context.Context, delta nginxsync.Delta) (err error) {
	defer d.observe("apply", d.cfg.Now(), &err)
	text, err := delta.AppendText(nil)
	if err != nil {
		return err
	}
	status, answer, err := d.do(ctx, http.MethodPut, "/v1/routes", text)
	if err != nil {
		return err
	}
	at := fmt.Sprintf("nginx at %s: generation %s", d.cfg.Socket, delta.To)
	word, detail, _ := strings.Cut(answer, ": ")
	reasons := map[string]error{"fenced": nginxsync.ErrFenced, "gap": nginxsync.ErrGap,
		"conflict": nginxsync.ErrConflict}
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusConflict && reasons[word] != nil:
		return fmt.Errorf("%s: %s: %w", at, detail, reasons[word])
	case status == http.StatusInsufficientStorage:
		large := &nginxsync.TooLargeError{}
		if _, err := fmt.Sscan(answer, &large.Need, &large.Have); err == nil {
			return fmt.Errorf("%s: give the shared dictionary more memory: %w", at, large)
		}
		fallthrough
	case status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%s: %d bytes: %s: %w", at, len(text), answer, nginxsync.ErrTooLarge)
	}
	return fmt.Errorf("%s: status %d: %s", at, status, answer)
}

// State implements nginxsync.Driver. While an upgrade of Nginx's program has two masters, the
// workers of the one that did not answer are among Workers, without a generation.
func (d *Driver) State(ctx context.Context) (state nginxsync.DriverState, err error) {
	defer d.observe("state", d.cfg.Now(), &err)
	status, answer, err := d.do(ctx, http.MethodGet, "/v1/state", nil)
	if err != nil {
		return state, err
	}
	if status != http.StatusOK {
		return state, fmt.Errorf("nginx at %s: state: status %d: %s", d.cfg.Socket, status, answer)
	}
	var master int
	for line := range strings.Lines(answer) {
		f := strings.Fields(line)
		var w nginxsync.Worker
		switch {
		case len(f) == 2 && f[0] == "generation":
			state.Applied, err = parseGeneration(f[1])
		case len(f) == 3 && f[0] == "epoch":
			_, err = fmt.Sscan(f[1], &state.Epoch)
			state.Writer = strings.TrimPrefix(f[2], "-")
		case len(f) == 2 && f[0] == "master":
			_, err = fmt.Sscan(f[1], &master)
		case len(f) == 3 && f[0] == "memory":
			_, err = fmt.Sscan(f[1]+" "+f[2], &state.Memory, &state.Free)
		case len(f) == 5 && f[0] == "worker":
			w.Tree = f[4]
			_, err = fmt.Sscan(f[1]+" "+f[2], &w.Slot, &w.PID)
			if err == nil {
				w.Applied, err = parseGeneration(f[3])
			}
			state.Workers = append(state.Workers, w)
		default:
			err = fmt.Errorf("unknown line %q", line)
		}
		if err != nil {
			return nginxsync.DriverState{}, fmt.Errorf("nginx at %s: state: %w", d.cfg.Socket, err)
		}
	}
	state.Workers = append(state.Workers, otherWorkers(master)...)
	return state, nil
}

func parseGeneration(s string) (nginxsync.Generation, error) {
	if s == "-" {
		return nginxsync.Generation{}, nil
	}
	return nginxsync.ParseGeneration(s)
}

// Routes implements nginxsync.Driver.
func (d *Driver) Routes(ctx context.Context) (r nginxsync.Routes, err error) {
	defer d.observe("routes", d.cfg.Now(), &err)
	status, answer, err := d.do(ctx, http.MethodGet, "/v1/routes", nil)
	switch {
	case err != nil:
		return r, err
	case status == http.StatusNotFound:
		return r, nil
	case status != http.StatusOK:
		return r, fmt.Errorf("nginx at %s: routes: status %d: %s", d.cfg.Socket, status, answer)
	}
	if err := r.UnmarshalText([]byte(answer)); err != nil {
		return r, fmt.Errorf("nginx at %s: %w", d.cfg.Socket, err)
	}
	return r, nil
}

func (d *Driver) observe(op string, start time.Time, err *error) {
	d.cfg.Observe(op, d.cfg.Now().Sub(start), *err)
}

func (d *Driver) do(ctx context.Context, method, path string, body []byte) (status int,
	answer string, err error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(caller, d.cfg.Timeout)
	defer cancel()
	defer func() {
		if err != nil && caller.Err() != nil {
			err = fmt.Errorf("nginx at %s: %w", d.cfg.Socket, context.Cause(caller))
		}
	}()
	req, err := http.NewRequestWithContext(ctx, method, "http://nginx"+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("nginx at %s: %w", d.cfg.Socket, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 512<<20))
	if err != nil {
		return 0, "", fmt.Errorf("nginx at %s: %w", d.cfg.Socket, err)
	}
	if resp.StatusCode != http.StatusOK {
		text = bytes.TrimSpace(text[:min(len(text), 512)])
	}
	return resp.StatusCode, string(text), nil
}

// RemoveStaleSockets removes the files of the sockets that Snippets made, unless a process listens
// there: Nginx does not remove them when it crashes, and refuses to start over them.
func RemoveStaleSockets(cfg SnippetConfig) error {
	paths := []string{cfg.Socket, cfg.Unavailable}
	if cfg.Unavailable == "" {
		paths[1] = cfg.Socket + ".503"
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("stale socket: %w", err)
		}
		if info.Mode().Type() != fs.ModeSocket {
			return fmt.Errorf("stale socket %s: not a socket", path)
		}
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return fmt.Errorf("stale socket %s: an Nginx listens there", path)
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("stale socket: %w", err)
		}
	}
	return nil
}
