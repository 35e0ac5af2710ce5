package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Door forwards the requests of testers to the VIPs of their tasks. It is safe for concurrent use.
type Door struct {
	cfg    Config
	server *http.Server
	proxy  http.Handler
	idle   func() // closes the connections to VIPs that no request uses

	assign sync.Mutex // held while a port is assigned and written down

	mu        sync.Mutex
	table     table
	listeners map[int]net.Listener // by port
	shared    net.Listener         // nil for none
	waiting   []net.Listener       // that Run does not serve yet
	wake      chan struct{}        // has room for one
	closed    bool
	open      map[*exchange]struct{}
}

// exchange is one request or tunnel that is being forwarded.
type exchange struct {
	task, lease string
	end         context.CancelCauseFunc
}

var errEnded = errors.New("the task has ended")

// Open reads which task has which port and listens on these ports, so that each answers as soon as
// Run works, also for tasks that have ended. It returns all problems of cfg at once.
func Open(ctx context.Context, cfg Config) (*Door, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("door: %w", context.Cause(ctx))
	}
	d := &Door{cfg: cfg, listeners: map[int]net.Listener{}, wake: make(chan struct{}, 1),
		open: map[*exchange]struct{}{}}
	d.proxy, d.idle = d.forwarder()
	d.server = &http.Server{Handler: d, ReadHeaderTimeout: cfg.Header, IdleTimeout: cfg.Idle,
		MaxHeaderBytes: 64 << 10, ErrorLog: quiet}
	var err error
	if cfg.Last > 0 {
		d.table, err = readTable(cfg.State)
	}
	if err == nil && cfg.Shared != "" {
		d.shared, err = listen(ctx, cfg.Shared)
		d.waiting = append(d.waiting, d.shared)
	}
	if err != nil {
		return nil, fmt.Errorf("door: %w", err)
	}
	for _, a := range d.table.Ports {
		if err := d.listen(ctx, a.Port); err != nil {
			// a port that another program has meanwhile must not keep the others closed
			cfg.Logger.Warn("a port of a task cannot be opened", "task", a.Task, "err", err)
		}
	}
	return d, nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return l, err
}

// listen opens a port of the range, unless it is open.
func (d *Door) listen(ctx context.Context, port int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("door: port %d: %w", port, http.ErrServerClosed)
	}
	if d.listeners[port] != nil {
		return nil
	}
	l, err := listen(ctx, net.JoinHostPort(d.cfg.Host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	d.listeners[port] = l
	d.waiting = append(d.waiting, l)
	select {
	case d.wake <- struct{}{}:
	default: // Run will see this one, too
	}
	return nil
}

// Port returns the port of the task, and gives it one when it has none. It is written down before
// Port returns. A task that is started again under its name has its port again while no other task
// got it. A range without a port to give is ErrExhausted; a Door that is closed is
// http.ErrServerClosed.
func (d *Door) Port(ctx context.Context, task string) (int, error) {
	if d.cfg.Last == 0 {
		return 0, fmt.Errorf("door: port of task %q: no range of ports is configured: %w", task,
			ErrExhausted)
	}
	d.assign.Lock()
	defer d.assign.Unlock()
	d.mu.Lock()
	now := d.table
	d.mu.Unlock()
	if at := now.of(task); at >= 0 && now.Ports[at].Ended.IsZero() {
		return now.Ports[at].Port, d.listen(ctx, now.Ports[at].Port)
	} else if at >= 0 {
		port := now.Ports[at].Port
		return port, d.take(ctx, now.with(port, task, d.cfg.Now()), port)
	}
	taken := map[int]bool{}
	asked := false // about the tasks of all ports: only where one of these has to be taken
	var last error
	for {
		port, ok := now.unused(d.cfg.First, d.cfg.Last, taken)
		if !ok {
			if !asked {
				now, asked = d.ended(ctx, now), true
			}
			port, ok = now.rested(d.cfg.First, d.cfg.Last, d.cfg.Now(), d.cfg.Rest, taken)
		}
		if !ok {
			return 0, errors.Join(fmt.Errorf("door: port of task %q: each of %d to %d has a task, "+
				"or had one less than %s ago: name the task as the proxy user, or widen the "+
				"range: %w", task, d.cfg.First, d.cfg.Last, d.cfg.Rest, ErrExhausted), last)
		}
		err := d.take(ctx, now.with(port, task, d.cfg.Now()), port)
		if err == nil {
			return port, nil
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		var busy *net.OpError
		if !errors.As(err, &busy) {
			return 0, err
		}
		taken[port], last = true, err // another program has it
	}
}

// PortOf returns the port that the task has, or had last.
func (d *Door) PortOf(task string) (port int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.table.of(task)
	if at < 0 {
		return 0, false
	}
	return d.table.Ports[at].Port, true
}

// take opens the port and puts the table in force, once it is written down.
func (d *Door) take(ctx context.Context, next table, port int) error {
	if err := d.listen(ctx, port); err != nil {
		return err
	}
	if err := next.write(d.cfg.State); err != nil {
		return fmt.Errorf("door: %w", err)
	}
	d.mu.Lock()
	d.table = next
	d.mu.Unlock()
	return nil
}

// ended returns the table with the ends of the tasks that have ended since. A task that cannot be
// asked about stays.
func (d *Door) ended(ctx context.Context, now table) table {
	now.Ports = slices.Clone(now.Ports)
	for i := range now.Ports {
		a := &now.Ports[i]
		if !a.Ended.IsZero() {
			continue
		}
		switch task, err := d.cfg.Task(ctx, a.Task); {
		case errors.Is(err, ErrNotFound):
			a.Ended = d.cfg.Now()
		case err == nil:
			a.Ended, a.Versions = task.Ended, strings.Join(versions(task), ", ")
		}
	}
	return now
}

// writeEnds writes down which tasks have ended: a port rests from then on.
func (d *Door) writeEnds(ctx context.Context) error {
	d.assign.Lock()
	defer d.assign.Unlock()
	d.mu.Lock()
	before := d.table
	d.mu.Unlock()
	next := d.ended(ctx, before)
	if slices.Equal(next.Ports, before.Ports) {
		return nil
	}
	if err := next.write(d.cfg.State); err != nil {
		return err
	}
	d.mu.Lock()
	d.table = next
	d.mu.Unlock()
	return nil
}

// taskOf returns the task of a port, or reports false for the shared one.
func (d *Door) taskOf(addr net.Addr) (name string, ok bool) {
	tcp, isTCP := addr.(*net.TCPAddr)
	if !isTCP {
		return "", false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shared != nil && d.shared.Addr().(*net.TCPAddr).Port == tcp.Port {
		return "", false
	}
	return d.table.on(tcp.Port)
}

// Shared is host:port of the port that all tasks share, or "" for none.
func (d *Door) Shared() string {
	if d.shared == nil {
		return ""
	}
	return d.shared.Addr().String()
}

// Run serves until ctx ends, lets requests end for Config.Grace, closes the others and every port,
// and returns the cause. It is called once.
func (d *Door) Run(ctx context.Context) error {
	var serving sync.WaitGroup
	failed := make(chan error, 1) // the first is enough
	tick := time.NewTicker(d.cfg.Recheck)
	defer tick.Stop()
	ends := time.NewTicker(time.Minute)
	defer ends.Stop()
	var err error
	for err == nil {
		d.mu.Lock()
		waiting := d.waiting
		d.waiting = nil
		d.mu.Unlock()
		for _, l := range waiting {
			serving.Go(func() {
				if err := d.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
					select {
					case failed <- fmt.Errorf("door: %s: %w", l.Addr(), err):
					default:
					}
				}
			})
		}
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case err = <-failed:
		case <-d.wake:
		case <-tick.C:
			d.check(ctx)
		case <-ends.C:
			if err := d.Check(ctx); err != nil {
				d.cfg.Logger.Warn("ends of tasks are not written down", "err", err)
			}
		}
	}
	d.shut(context.WithoutCancel(ctx))
	serving.Wait()
	return err
}

// shut lets requests end and closes the rest. Tunnels do not end by themselves.
func (d *Door) shut(ctx context.Context) {
	grace, cancel := context.WithTimeout(ctx, d.cfg.Grace)
	defer cancel()
	d.mu.Lock()
	d.closed = true
	waiting := d.waiting
	d.mu.Unlock()
	if d.server.Shutdown(grace) != nil {
		_ = d.server.Close()
	}
	for _, l := range waiting {
		_ = l.Close()
	}
	d.endAll(func(*exchange) bool { return true }, http.ErrServerClosed)
	d.idle()
}

// Close closes the ports of a Door that Run was never called on.
func (d *Door) Close() { d.shut(context.Background()) }

// Check closes the tunnels and the requests of tasks that have ended since these were opened, or
// whose VIP is under another lease, and writes down which tasks have ended. A task that cannot be
// asked about keeps its own. Run does the first at each Config.Recheck, the second each minute: a
// caller that knows of an end is faster.
func (d *Door) Check(ctx context.Context) error {
	d.check(ctx)
	if d.cfg.Last == 0 {
		return nil
	}
	return d.writeEnds(ctx)
}

func (d *Door) check(ctx context.Context) {
	d.mu.Lock()
	tasks := map[string]string{}
	for e := range d.open {
		tasks[e.task] = ""
	}
	d.mu.Unlock()
	for name := range tasks {
		switch task, err := d.cfg.Task(ctx, name); {
		case errors.Is(err, ErrNotFound) || err == nil && !task.Ended.IsZero():
		case err != nil:
			delete(tasks, name)
		default:
			tasks[name] = task.Lease
		}
	}
	d.endAll(func(e *exchange) bool {
		lease, known := tasks[e.task]
		return known && e.lease != lease
	}, errEnded)
}

func (d *Door) endAll(which func(*exchange) bool, cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for e := range d.open {
		if which(e) {
			e.end(cause)
		}
	}
}

// begin notes an exchange. done ends it. It reports false when the door is being closed.
func (d *Door) begin(ctx context.Context, task Task) (_ context.Context, done func(), ok bool) {
	ctx, end := context.WithCancelCause(ctx)
	e := &exchange{task.Name, task.Lease, end}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		end(http.ErrServerClosed)
		return ctx, func() {}, false
	}
	d.open[e] = struct{}{}
	return ctx, func() {
		d.mu.Lock()
		delete(d.open, e)
		d.mu.Unlock()
		end(context.Canceled)
	}, true
}
