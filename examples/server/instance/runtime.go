package instance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Config configures a Runtime. Dir is required.
type Config struct {
	// Dir holds one directory an instance: its record, its log and its file system. Open makes it
	// if it is missing.
	Dir string
	// Ready bounds how long a started instance may take to accept connections. The default is 20 s.
	Ready time.Duration
	// Grace is how long an instance may take to end after SIGTERM before it is killed. The default
	// is 12 s.
	Grace time.Duration
	// Changed, if set, is called by Run after it started an instance again at another address.
	Changed func()
	// Logger logs the actions that Run takes by itself. The default discards.
	Logger *slog.Logger
}

// Runtime starts, watches and stops instances. It is safe for concurrent use.
type Runtime struct {
	config Config

	mu        sync.Mutex
	instances map[string]Instance
	// ids that are being started or stopped; closed at the end of it
	busy map[string]chan struct{}
	// ids of instances that did not run when Open looked, whose end nothing has seen
	down map[string]bool
	// start ticks of the process of an id that was seen ready
	ready map[string]uint64

	placing sync.Mutex // held from the choice of a port until it stands in instances
}

// ErrInvalid is returned by Open and Start for a Config or a Spec that cannot be right.
var ErrInvalid = errors.New("invalid")

// ErrStart is returned by Start for an image that does not become a service: it cannot be run,
// ends, or does not listen.
var ErrStart = errors.New("does not start")

// StartError says why an instance did not become a service. It wraps ErrStart unless the context
// had ended.
type StartError struct {
	Err error
	// Lines are the last ones of its log.
	Lines []string
}

func (e *StartError) Error() string {
	if len(e.Lines) == 0 {
		return fmt.Sprintf("%v; its log is empty", e.Err)
	}
	return fmt.Sprintf("%v; its log ends: %q", e.Err, strings.Join(e.Lines, "\n"))
}

// Unwrap returns Err.
func (e *StartError) Unwrap() error { return e.Err }

func (cfg Config) validate() error {
	var errs []error
	if cfg.Dir == "" {
		errs = append(errs, fmt.Errorf("instance: Config.Dir: want the path of a directory: %w",
			ErrInvalid))
	}
	for field, d := range map[string]time.Duration{"Ready": cfg.Ready, "Grace": cfg.Grace} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("instance: Config.%s: %s: want 0 for the default, or "+
				"more: %w", field, d, ErrInvalid))
		}
	}
	return errors.Join(errs...)
}

// Open finds the instances that lie in cfg.Dir. Instances that no longer live are started again by
// Run. It returns all problems of cfg at once.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("instances: %w", context.Cause(ctx))
	}
	cfg.Ready = cmp.Or(cfg.Ready, 20*time.Second)
	cfg.Grace = cmp.Or(cfg.Grace, 12*time.Second)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	r := &Runtime{config: cfg, instances: map[string]Instance{}, busy: map[string]chan struct{}{},
		down: map[string]bool{}, ready: map[string]uint64{}}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("instances: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("instances: %w", err)
	}
	for _, entry := range entries {
		i, err := load(filepath.Join(dir, entry.Name()))
		if errors.Is(err, os.ErrNotExist) { // a start that was cut off before anything ran
			err = os.RemoveAll(filepath.Join(dir, entry.Name()))
			if err != nil {
				return nil, fmt.Errorf("instances: %w", err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("instances: %w", err)
		}
		r.instances[i.ID], r.down[i.ID] = i, !i.Alive()
	}
	return r, nil
}

// List returns the instances, sorted by id.
func (r *Runtime) List() []Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Instance, 0, len(r.instances))
	for _, i := range r.instances {
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Start unpacks the image, starts the instance and waits until it accepts connections. An instance
// of the same id and digest that runs already is returned once it is ready, wherever its image was
// pulled from; one of another digest is an error. On an error nothing is left running; the end of
// the instance's log is part of it.
func (r *Runtime) Start(ctx context.Context, spec Spec) (Instance, error) {
	if err := spec.validate(); err != nil {
		return Instance{}, err
	}
	release, err := r.claim(ctx, spec.ID)
	if err != nil {
		return Instance{}, err
	}
	defer release()
	if i, found := r.get(spec.ID); found && i.Alive() {
		if digest(i.Image) != digest(spec.Image) {
			return Instance{}, fmt.Errorf("instance %s runs %s already, asked for %s", spec.ID,
				i.Image, spec.Image)
		}
		if err = r.waitReady(ctx, i); err == nil {
			return i, nil
		}
		if ctx.Err() != nil {
			return Instance{}, fmt.Errorf("instance %s: %w", spec.ID, err)
		}
	}
	dir := r.dir(spec.ID)
	i := Instance{Spec: spec}
	if err == nil {
		err = r.unpack(ctx, spec, dir)
	} else {
		i, _ = r.get(spec.ID)
	}
	if err == nil {
		i, err = r.start(ctx, i)
	}
	if err == nil {
		return i, nil
	}
	err = errors.Join(fmt.Errorf("instance %s: %w", spec.ID, err), r.end(context.WithoutCancel(ctx),
		i), os.RemoveAll(dir))
	r.forget(spec.ID)
	return Instance{}, err
}

// digest returns the digest of an image reference, without the registry and the repository.
func digest(image string) string {
	_, digest, _ := strings.Cut(image, "@")
	return digest
}

// Stop ends the instance, by SIGTERM and after the grace time by SIGKILL, and removes its
// directory.
func (r *Runtime) Stop(ctx context.Context, id string) error {
	release, err := r.claim(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	i, found := r.get(id)
	if !found {
		return fmt.Errorf("instance %s: %w", id, ErrNotFound)
	}
	if err := r.end(ctx, i); err != nil {
		return err
	}
	err = os.RemoveAll(r.dir(id))
	r.forget(id)
	return err
}

// End ends the instance like Stop and keeps its directory: Run starts it again.
func (r *Runtime) End(ctx context.Context, id string) error {
	release, err := r.claim(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	i, found := r.get(id)
	if !found {
		return fmt.Errorf("instance %s: %w", id, ErrNotFound)
	}
	return r.end(ctx, i)
}

// Log returns the path of the instance's output.
func (r *Runtime) Log(id string) string { return filepath.Join(r.dir(id), "log") }

func (r *Runtime) dir(id string) string { return filepath.Join(r.config.Dir, id) }

func (r *Runtime) get(id string) (Instance, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, found := r.instances[id]
	return i, found
}

func (r *Runtime) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, id)
	delete(r.down, id)
	delete(r.ready, id)
}

// wasDown reports whether the instance did not run when Open looked. It reports so once.
func (r *Runtime) wasDown(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.down[id]
	delete(r.down, id)
	return was
}

// claim waits until no other call works on the id, and keeps other calls away until release is
// called. A context that has ended claims nothing.
func (r *Runtime) claim(ctx context.Context, id string) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("instance %s: %w", id, context.Cause(ctx))
	}
	for {
		release, busy := r.tryClaim(id)
		if release != nil {
			return release, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, fmt.Errorf("instance %s is being started or stopped: %w", id,
				context.Cause(ctx))
		}
	}
}

// tryClaim returns nil and a channel to wait for while another call works on the id.
func (r *Runtime) tryClaim(id string) (release func(), busy <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if busy := r.busy[id]; busy != nil {
		return nil, busy
	}
	done := make(chan struct{})
	r.busy[id] = done
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, id)
		close(done)
	}, nil
}

func (r *Runtime) unpack(ctx context.Context, spec Spec, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	config, err := unpack(ctx, spec.Image, filepath.Join(dir, "rootfs"))
	if err != nil {
		return err
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "image.json"), data, 0o644)
}

// start runs the unpacked image on a free port. The record is on disk before the process gets its
// order to go on.
func (r *Runtime) start(ctx context.Context, i Instance) (Instance, error) {
	dir := r.dir(i.ID)
	order, err := r.launchOrder(dir)
	if err != nil {
		return i, fmt.Errorf("%w: %w", err, ErrStart)
	}
	i, pipe, err := r.place(i)
	if err != nil {
		return i, err
	}
	order.Env = override(order.Env, append(slices.Clone(i.Env), "PORT="+
		strconv.Itoa(int(i.Addr.Port()))))
	err = send(pipe, order)
	if err == nil {
		err = r.waitReady(ctx, i)
	}
	if err == nil {
		return i, nil
	}
	if ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", err, ErrStart)
	}
	return i, &StartError{err, tail(r.Log(i.ID))}
}

// place gives the instance a port and a process, which waits for its order, and writes both down.
func (r *Runtime) place(i Instance) (_ Instance, order *os.File, err error) {
	r.placing.Lock()
	defer r.placing.Unlock()
	if i.Addr, err = r.freeAddr(i.ID, i.Addr); err != nil {
		return i, nil, err
	}
	log, err := os.OpenFile(r.Log(i.ID), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return i, nil, err
	}
	defer log.Close()
	pid, order, err := process(log)
	if err != nil {
		return i, nil, err
	}
	i.PID, i.Started = pid, time.Now().UTC()
	i.Ticks, _ = startTicks(pid)
	if err := i.save(r.dir(i.ID)); err != nil {
		return i, nil, errors.Join(err, order.Close())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances[i.ID] = i
	return i, order, nil
}

func (r *Runtime) launchOrder(dir string) (launch, error) {
	data, err := os.ReadFile(filepath.Join(dir, "image.json"))
	if err != nil {
		return launch{}, err
	}
	var config v1.Config
	if err := json.Unmarshal(data, &config); err != nil {
		return launch{}, err
	}
	l := launch{
		Root: filepath.Join(dir, "rootfs"), Dir: config.WorkingDir,
		Args: slices.Concat(config.Entrypoint, config.Cmd), Env: slices.Clone(config.Env),
	}
	if len(l.Args) == 0 {
		return launch{}, errors.New("the image has neither ENTRYPOINT nor CMD")
	}
	if os.Geteuid() != 0 {
		return l, nil // the user namespace has one user only
	}
	root, err := os.OpenRoot(l.Root)
	if err != nil {
		return launch{}, err
	}
	defer root.Close()
	l.UID, l.GID, err = lookupUser(root, config.User)
	return l, err
}

// override is env with the variables of over in place of those of the same name.
func override(env, over []string) []string {
	name := func(kv string) string {
		n, _, _ := strings.Cut(kv, "=")
		return n
	}
	kept := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return slices.ContainsFunc(over, func(o string) bool { return name(o) == name(kv) })
	})
	return append(kept, over...)
}

func (r *Runtime) waitReady(ctx context.Context, i Instance) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.config.Ready,
		fmt.Errorf("does not accept connections on %s after %s", i.Addr, r.config.Ready))
	defer cancel()
	for dialer := (net.Dialer{}); ; {
		conn, err := dialer.DialContext(ctx, "tcp", i.Addr.String())
		if err == nil {
			err = conn.Close()
		}
		if !i.Alive() { // another process answered then
			return errors.New("ended before it accepted connections")
		}
		if err == nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ready[i.ID] = i.Ticks
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Ready reports whether the instance lives and has accepted connections since it started.
func (r *Runtime) Ready(i Instance) bool {
	r.mu.Lock()
	ready := r.ready[i.ID] == i.Ticks
	r.mu.Unlock()
	if !ready && i.Alive() {
		conn, err := net.DialTimeout("tcp", i.Addr.String(), time.Second)
		if err != nil {
			return false
		}
		_ = conn.Close()
		r.mu.Lock()
		r.ready[i.ID] = i.Ticks
		r.mu.Unlock()
	}
	return i.Alive()
}

// end stops the process and waits until it is gone.
func (r *Runtime) end(ctx context.Context, i Instance) error {
	// by pidfd: a signal after Alive cannot hit another process
	process, err := os.FindProcess(i.PID)
	if err != nil || !i.Alive() {
		return nil
	}
	defer process.Release()
	if err := process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop instance %s: %w", i.ID, err)
	}
	grace := time.After(r.config.Grace)
	for i.Alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop instance %s: %w", i.ID, context.Cause(ctx))
		case <-grace:
			_ = process.Kill()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// freeAddr returns the wanted address if no process listens there, else one with another port. No
// other instance has it, also none that is down just now.
func (r *Runtime) freeAddr(id string, wanted netip.AddrPort) (netip.AddrPort, error) {
	taken := map[netip.AddrPort]bool{}
	for _, i := range r.List() {
		taken[i.Addr] = i.ID != id
	}
	listen := cmp.Or(wanted, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0))
	for {
		l, err := net.Listen("tcp", listen.String())
		if err != nil && listen.Port() == 0 {
			return netip.AddrPort{}, err
		}
		if err == nil {
			addr := l.Addr().(*net.TCPAddr).AddrPort()
			if err := l.Close(); err != nil || !taken[addr] {
				return addr, err
			}
		}
		listen = netip.AddrPortFrom(listen.Addr(), 0)
	}
}

// tail returns the last lines of a log, short enough for an error message.
func tail(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(data[max(0, len(data)-500):])), "\n")
}
