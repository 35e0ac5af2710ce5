package cutoff

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/internal/check"
)

// Config configures a Driver. Driver is required.
type Config struct {
	// Driver is that of the Nginx, such as a luadriver.Driver.
	Driver nginxsync.Driver
	// After is how long the connections to an address stay that no route names any more. The
	// default is 10 minutes.
	After time.Duration
	// File keeps the addresses that left the routes, so that the next process ends the connections
	// to them in time. A file that cannot be read is replaced. Empty keeps them in memory alone.
	File string
	// Retry is the time until the next try when connections could not be ended, such as while Nginx
	// does not answer. The default is 10 seconds.
	Retry time.Duration
	// Logger logs each end of connections and each failure. The default discards.
	Logger *slog.Logger
	// Now is the clock of After and Observe. The default is time.Now.
	Now func() time.Time
	// Observe is called with "cut" after each attempt to end connections, how long it took and its
	// error. It must return soon and be safe for concurrent use. Nil means that there is none.
	Observe func(op string, took time.Duration, err error)
}

// Driver is an nginxsync.Driver, and a Drainer where the driver in it is one. It is safe for
// concurrent use.
type Driver struct {
	cfg  Config
	wake chan struct{} // for Run: an address has left; one waiting call is enough
	// turn has one value, which a push holds, and so does the end of connections: an address that
	// comes back in a push keeps the connections that it has from then on.
	turn chan struct{}

	mu     sync.Mutex
	ledger ledger
	status Status
	unable string // why this process may not end connections; empty when it may
	saved  []byte // the content of Config.File
}

// Status says how the ends of connections go.
type Status struct {
	// Waiting is the number of addresses that left the routes and whose time is not over.
	Waiting int `json:"waiting"`
	// Ended is the number of connections that were ended since the process began.
	Ended int `json:"ended"`
	// Error is why connections stay: of the last attempt, or the capability that is missing. Empty
	// when all is well.
	Error string `json:"error"`
	// FileError is that of the last write or read of Config.File; empty when it went well.
	FileError string `json:"fileError"`
}

// Status is safe to call at any time.
func (d *Driver) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.status
	out.Waiting, out.Error = len(d.ledger.gone), cmp.Or(out.Error, d.unable)
	return out
}

var (
	_ nginxsync.Driver  = (*Driver)(nil)
	_ nginxsync.Drainer = (*Driver)(nil)
)

// New makes a driver around another one. It does no I/O. A configuration that is not valid is an
// error with all its problems and nginxsync.ErrInvalid in its chain.
func New(cfg Config) (*Driver, error) {
	p := check.Problems{Package: "cutoff", Sentinel: nginxsync.ErrInvalid}
	p.Require("Driver", cfg.Driver != nil)
	p.Duration("After", &cfg.After, 10*time.Minute)
	p.Duration("Retry", &cfg.Retry, 10*time.Second)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	d := &Driver{cfg: cfg, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	d.turn <- struct{}{}
	return d, nil
}

// State implements nginxsync.Driver.
func (d *Driver) State(ctx context.Context) (nginxsync.DriverState, error) {
	return d.cfg.Driver.State(ctx)
}

// Routes implements nginxsync.Driver.
func (d *Driver) Routes(ctx context.Context) (nginxsync.Routes, error) {
	routes, err := d.cfg.Driver.Routes(ctx)
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.ledger.at == (nginxsync.Generation{}) {
			d.ledger.commit(routes.All(), d.cfg.Now())
			d.rouse()
		}
	}
	return routes, err
}

// InFlight implements nginxsync.Drainer. errors.ErrUnsupported: the driver in it is no Drainer.
func (d *Driver) InFlight(ctx context.Context, addrs []netip.AddrPort) (nginxsync.InFlight,
	error) {
	drainer, ok := d.cfg.Driver.(nginxsync.Drainer)
	if !ok {
		return nginxsync.InFlight{}, fmt.Errorf("count requests: %T: %w", d.cfg.Driver,
			errors.ErrUnsupported)
	}
	return drainer.InFlight(ctx, addrs)
}

// Apply implements nginxsync.Driver. It ends the connections to addresses that change hands; that
// it cannot is no error of the push.
func (d *Driver) Apply(ctx context.Context, delta nginxsync.Delta) error {
	if len(delta.Rows) == 0 && !delta.Full {
		return d.cfg.Driver.Apply(ctx, delta)
	}
	select {
	case <-d.turn:
		defer func() { d.turn <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.mu.Lock()
	at := d.ledger.at
	d.mu.Unlock()
	if !delta.Full && at != delta.From { // a push of before may have been in force after all
		d.forget()
		if _, err := d.Routes(ctx); err != nil && ctx.Err() != nil {
			return fmt.Errorf("routes of before: %w", context.Cause(ctx))
		}
	}
	d.mu.Lock()
	handed := d.ledger.handed(d.ledger.change(delta))
	d.mu.Unlock()
	var before []socket
	var err error
	start := d.cfg.Now()
	if len(handed) > 0 {
		before, err = d.sockets(ctx, handed)
	}
	if err := d.cfg.Driver.Apply(ctx, delta); err != nil {
		d.forget()
		return err
	}
	if err == nil && len(before) > 0 {
		err = destroy(before)
	}
	if len(handed) > 0 {
		d.tell("address has changed hands", handed, len(before), start, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ledger.at == delta.From || delta.Full {
		d.ledger.commit(delta, d.cfg.Now())
		d.rouse()
	}
	return nil
}

// forget has the routes read back before the next push. The rows of the ledger stay, to be compared
// with them.
func (d *Driver) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ledger.at = nginxsync.Generation{}
}

// rouse has Run look at the addresses that left. The caller holds mu.
func (d *Driver) rouse() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run ends the connections to addresses that left the routes, when their time is over, until ctx
// ends, and returns its cause. It must not be called twice.
func (d *Driver) Run(ctx context.Context) error {
	d.begin()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.wake:
		case <-timer.C:
		}
		if wait, waits := d.sweep(ctx); waits {
			timer.Reset(wait)
		}
		d.save()
	}
}

// begin looks whether this process may end connections, and reads the addresses that left before.
func (d *Driver) begin() {
	err := able()
	if err != nil {
		d.cfg.Logger.Warn("connections to instances that are gone will stay", "err", err)
	}
	gone, failed := readGone(d.cfg.File)
	if failed != nil {
		d.cfg.Logger.Warn("addresses that left before are not known", "err", failed)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unable, d.status.FileError = text(err), text(failed)
	d.ledger.recall(gone)
}

// save writes the addresses that left, when they are others than in the file.
func (d *Driver) save() {
	if d.cfg.File == "" {
		return
	}
	d.mu.Lock()
	next := writtenGone(d.ledger.gone)
	same := bytes.Equal(next, d.saved)
	known := d.ledger.rows != nil
	d.mu.Unlock()
	if same || !known {
		return
	}
	err := atomicfile.Write(d.cfg.File, next, 0o600)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.status.FileError != text(err) && err != nil {
		d.cfg.Logger.Warn("addresses that left would not be known after a restart", "err", err)
	}
	if d.status.FileError = text(err); err == nil {
		d.saved = next
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// sweep ends the connections that are due, and returns the time until the next look; false when
// nothing is left.
func (d *Driver) sweep(ctx context.Context) (wait time.Duration, waits bool) {
	select {
	case <-d.turn:
		defer func() { d.turn <- struct{}{} }()
	case <-ctx.Done():
		return 0, false
	}
	d.mu.Lock()
	addrs, next, waits := d.ledger.due(d.cfg.Now(), d.cfg.After)
	if d.ledger.rows == nil { // the addresses of before may be in the routes
		addrs, waits = nil, false
	}
	d.mu.Unlock()
	if waits {
		wait = max(min(next.Sub(d.cfg.Now()), d.cfg.After), time.Millisecond)
	}
	if len(addrs) == 0 {
		return wait, waits
	}
	start := d.cfg.Now()
	found, err := d.sockets(ctx, addrs)
	if err == nil {
		err = destroy(found)
	}
	if ctx.Err() != nil {
		return 0, false
	}
	d.tell("no route has the address", addrs, len(found), start, err)
	if err != nil {
		if !waits || wait > d.cfg.Retry {
			wait = d.cfg.Retry
		}
		return wait, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, addr := range addrs {
		delete(d.ledger.gone, addr)
	}
	return wait, waits
}

// tell logs an attempt; an error once until there is another one.
func (d *Driver) tell(why string, addrs []netip.AddrPort, n int, start time.Time, err error) {
	d.cfg.Observe("cut", d.cfg.Now().Sub(start), err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.status.Error, d.unable = "", ""
		d.status.Ended += n
		if n > 0 {
			d.cfg.Logger.Info("connections ended", "because", why, "addresses", addrs,
				"connections", n)
		}
		return
	}
	if d.status.Error != err.Error() {
		d.status.Error = err.Error()
		d.cfg.Logger.Warn("connections stay", "because", why, "addresses", addrs, "err", err)
	}
}

// sockets are the connections of all workers to the addresses.
func (d *Driver) sockets(ctx context.Context, addrs []netip.AddrPort) ([]socket, error) {
	state, err := d.cfg.Driver.State(ctx)
	if err != nil {
		return nil, err
	}
	wanted := make(map[netip.AddrPort]bool, len(addrs))
	for _, addr := range addrs {
		wanted[netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())] = true
	}
	pids := make([]int, len(state.Workers))
	for i, w := range state.Workers {
		pids[i] = w.PID
	}
	return connections(pids, wanted)
}
