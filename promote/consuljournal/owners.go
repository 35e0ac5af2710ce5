package consuljournal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/promote"
)

// The limits that Consul has for the TTL of a session.
const (
	defaultTTL  = 15 * time.Second
	shortestTTL = 10 * time.Second
	longestTTL  = 24 * time.Hour
)

// OwnersConfig configures [Owners]. Client is required.
type OwnersConfig struct {
	// Client talks to the Consul servers; it stays the caller's. It must not be nil.
	Client *api.Client
	// Prefix is that of the journal. The default is "promote/".
	Prefix string
	// TTL is how long an owner counts as living after the last sign of it: Consul waits for up to
	// twice as long. It is between 10 s and 24 h. The default is 15 s.
	TTL time.Duration
	// Patience is as in Config.
	Patience time.Duration
	// Logger receives the failures of requests that are sent again, and the ends of tenures
	// other than by Leave and Join. The default discards.
	Logger *slog.Logger
	// Now is the clock that measures the age of a session, and by which Observe gets its
	// durations. The default is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of every Join, Leave and Lives and of every renewal
	// of a session with "join", "leave", "lives" or "renew", how long it took, and its error. It
	// must be quick and safe for concurrent use.
	Observe func(op string, took time.Duration, err error)
}

func (c OwnersConfig) shared() Config {
	return Config{Client: c.Client, Prefix: c.Prefix, Patience: c.Patience, Logger: c.Logger,
		Now: c.Now, Observe: c.Observe}.withDefaults()
}

func (c OwnersConfig) validate() error {
	err := c.shared().validate("OwnersConfig")
	if c.TTL < shortestTTL || c.TTL > longestTTL {
		err = errors.Join(err, fmt.Errorf("consuljournal: OwnersConfig.TTL: %s: want 0 (default "+
			"%s) or %s to %s: %w", c.TTL, defaultTTL, shortestTTL, longestTTL, promote.ErrInvalid))
	}
	return err
}

// Owners is a promote.Owners by sessions of Consul: an owner lives while a session that is renewed
// holds its key. The tenure of an owner whose session cannot be renewed ends after three quarters
// of the TTL, before Consul ends the session.
type Owners struct {
	caller
	prefix string
	ttl    time.Duration

	mu      sync.Mutex
	tenures map[string]*tenure
}

var _ promote.Owners = (*Owners)(nil)

type tenure struct {
	session string
	ctx     context.Context
	end     context.CancelCauseFunc
	renewed time.Time // when the last renewal that succeeded was sent
}

// NewOwners returns owners, or every problem of cfg at once. It sends nothing.
func NewOwners(cfg OwnersConfig) (*Owners, error) {
	cfg.TTL = cmp.Or(cfg.TTL, defaultTTL)
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	shared := cfg.shared()
	return &Owners{caller: caller{shared}, prefix: shared.Prefix, ttl: cfg.TTL,
		tenures: map[string]*tenure{}}, nil
}

func (o *Owners) key(owner string) string { return o.prefix + "owners/" + escape(owner) }

// Join implements promote.Owners. It ends the session of an earlier tenure of the same owner,
// wherever that is.
func (o *Owners) Join(ctx context.Context, owner string) (_ context.Context, err error) {
	defer o.watched("join", &err)()
	t := &tenure{}
	err = o.persist(ctx, requestLimit, func(ctx context.Context) (err error) {
		t.renewed = o.cfg.Now()
		t.session, _, err = o.cfg.Client.Session().CreateNoChecks(&api.SessionEntry{
			Name: "sluice promote " + owner, TTL: o.ttl.String(), LockDelay: time.Millisecond,
			Behavior: api.SessionBehaviorDelete}, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
	if err == nil {
		err = o.persist(ctx, requestLimit, func(ctx context.Context) error {
			return o.acquire(ctx, owner, t.session)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("consul: owner %s: %w", owner, err)
	}
	t.ctx, t.end = context.WithCancelCause(context.Background())
	o.mu.Lock()
	defer o.mu.Unlock()
	if before := o.tenures[owner]; before != nil {
		before.end(fmt.Errorf("owner %s has joined again: %w", owner, promote.ErrFenced))
	}
	o.tenures[owner] = t
	go o.renew(owner, t)
	return t.ctx, nil
}

// acquire takes the key of the owner for the session.
func (o *Owners) acquire(ctx context.Context, owner, session string) error {
	write := (&api.WriteOptions{}).WithContext(ctx)
	ok, _, err := o.cfg.Client.KV().Acquire(&api.KVPair{Key: o.key(owner), Session: session}, write)
	if err != nil || ok {
		return err
	}
	pair, _, err := o.cfg.Client.KV().Get(o.key(owner), consistent(ctx))
	if err != nil {
		return err
	}
	if pair != nil && pair.Session != "" {
		if _, err := o.cfg.Client.Session().Destroy(pair.Session, write); err != nil {
			return err
		}
	}
	return errors.New("its earlier session has just ended")
}

// renew renews the session until the tenure ends, and ends it when that fails for too long.
func (o *Owners) renew(owner string, t *tenure) {
	for pause := o.ttl / 4; ; {
		timer := time.NewTimer(pause)
		select {
		case <-t.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		left := t.renewed.Add(o.ttl * 3 / 4).Sub(o.cfg.Now())
		if left <= 0 {
			o.lose(t, fmt.Errorf("owner %s: Consul has not renewed its session for %s: %w", owner,
				o.ttl*3/4, promote.ErrUnavailable))
			return
		}
		sent := o.cfg.Now()
		known, err := o.renewOnce(t, left)
		switch {
		case t.ctx.Err() != nil:
			return
		case err != nil:
			o.cfg.Logger.Warn("session of an owner was not renewed", "owner", owner, "err", err)
			pause = o.ttl / 16
		case !known:
			o.lose(t, fmt.Errorf("owner %s: its session has ended: %w", owner, promote.ErrFenced))
			return
		default:
			t.renewed, pause = sent, o.ttl/4
		}
	}
}

// renewOnce reports whether Consul knows the session still.
func (o *Owners) renewOnce(t *tenure, limit time.Duration) (known bool, err error) {
	defer o.watched("renew", &err)()
	ctx, cancel := context.WithTimeout(t.ctx, limit)
	defer cancel()
	entry, _, err := o.cfg.Client.Session().Renew(t.session, (&api.WriteOptions{}).WithContext(ctx))
	return entry != nil, err
}

// lose ends a tenure for a cause that did not come from its owner.
func (o *Owners) lose(t *tenure, cause error) {
	o.cfg.Logger.Error("tenure has ended", "err", cause)
	t.end(cause)
}

// Leave implements promote.Owners.
func (o *Owners) Leave(ctx context.Context, owner string) (err error) {
	defer o.watched("leave", &err)()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o.mu.Lock()
	t := o.tenures[owner]
	delete(o.tenures, owner)
	o.mu.Unlock()
	if t == nil {
		return nil
	}
	t.end(fmt.Errorf("owner %s has left: %w", owner, promote.ErrClosed))
	err = o.persist(ctx, requestLimit, func(ctx context.Context) error {
		_, err := o.cfg.Client.Session().Destroy(t.session, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
	if err != nil {
		return fmt.Errorf("consul: owner %s: leave: %w", owner, err)
	}
	return nil
}

// Lives implements promote.Owners.
func (o *Owners) Lives(ctx context.Context, owner string) (lives bool, err error) {
	defer o.watched("lives", &err)()
	err = o.persist(ctx, requestLimit, func(ctx context.Context) error {
		pair, _, err := o.cfg.Client.KV().Get(o.key(owner), consistent(ctx))
		lives = pair != nil && pair.Session != ""
		return err
	})
	if err != nil {
		return false, fmt.Errorf("consul: does owner %s live? %w", owner, err)
	}
	return lives, nil
}
