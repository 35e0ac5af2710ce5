package promote

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// Config configures a [Promoter]. Journal and Deployer are required.
type Config struct {
	// Pipeline is the order of environments. The default, for nil, is DefaultPipeline().
	Pipeline Pipeline
	// Journal holds the entries of all changes. It must not be nil.
	Journal Journal
	// Archive has the entries that Promoter.Archive has moved out of the journal, which has to be a
	// Trimmer then. The default, for nil, is that there are none.
	Archive Archive
	// Deployer makes a target run a digest. It must not be nil.
	Deployer Deployer
	// Gates are all asked before a promotion or rollback starts. The default, for nil, is OrderGate
	// alone; an empty slice means no gate.
	Gates []Gate
	// Rollback says how far a rollback may go back without the judgement that a promotion needs.
	Rollback RollbackRule
	// Breakers are the actors with the right to override gates: see Request.Override. The default
	// is nobody.
	Breakers []string
	// Adopters are the actors that may declare the running version: see Adopt. The default is
	// nobody.
	Adopters []string
	// Owner names this Promoter among those that share the journal; no two have the same. A process
	// that is started again may have the one that it had. The default is a random name.
	Owner string
	// Owners says which of the Promoters that share the journal are alive: Recover takes over only
	// the changes of those that are not. The default, for nil, is that this one alone is, as with
	// a journal that one process locks.
	Owners Owners
	// Deadlines are, by environment, how long the deployer may take to carry a change out, the time
	// included during which it cannot be asked (ErrUnavailable). After that the earlier deployment
	// is restored. It counts from the start of the change, and anew from each Recover that takes
	// the change over. The default of an environment is one hour.
	Deadlines map[string]time.Duration
	// Grace is how long one call of the deployer may take to restore the earlier deployment, and
	// how long a call whose context has ended may take to return. A call that takes longer is left
	// alone: its late effects are fenced off by the next generation. The default is one minute.
	Grace time.Duration
	// Retry is how long the Promoter waits before it asks again a deployer or a journal that could
	// not be asked: this long the first time, twice as long each further time, up to 32 times as
	// long. The default is one second.
	Retry time.Duration
	// MaxSkew is how far the clock may be behind the newest entry of the journal: an entry gets the
	// newest one's time then. Further behind, nothing is appended: gates that compare times would
	// open too early or too late (ErrClock). The default is one minute.
	MaxSkew time.Duration
	// Logger receives one line for each entry that this Promoter appends to the journal. Errors
	// that a method returns are not logged. The default, for nil, is to log nothing.
	Logger *slog.Logger
	// Now is the clock: of the entries, of the question to the gates, and of Observe. The default
	// is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of each Bind, Start, Wait, Promote, Check, Rollback,
	// Review, Retire, Adopt, InUse, Progress, Abort, Archive and Recover with its name in lower case; of
	// each call of the deployer, as "deployer.deploy" and "deployer.remove"; and of each gate, as
	// "gate." and its name. It gets the duration and the error of the call. It is called
	// concurrently and has to return quickly. The default is none.
	Observe func(op string, took time.Duration, err error)
}

// The defaults of Config.
const (
	defaultDeadline = time.Hour
	defaultGrace    = time.Minute
	defaultRetry    = time.Second
	defaultMaxSkew  = time.Minute
)

// withDefaults returns the configuration with every default filled in.
func (c Config) withDefaults() Config {
	if c.Pipeline == nil {
		c.Pipeline = DefaultPipeline()
	}
	if c.Gates == nil {
		c.Gates = []Gate{OrderGate{}}
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Owner == "" {
		c.Owner = rand.Text()
	}
	if c.Retry == 0 {
		c.Retry = defaultRetry
	}
	if c.MaxSkew == 0 {
		c.MaxSkew = defaultMaxSkew
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// validate returns every problem of a configuration that has its defaults.
func (c Config) validate() error {
	var list problems
	list = append(list, c.Pipeline.problems().prefix("Config.Pipeline")...)
	if c.Journal == nil {
		list.add("Config.Journal: nil: want a journal")
	}
	if _, ok := c.Journal.(Trimmer); c.Archive != nil && c.Journal != nil && !ok {
		list.add("Config.Archive: Config.Journal cannot let go of entries: want a Trimmer")
	}
	if c.Deployer == nil {
		list.add("Config.Deployer: nil: want a deployer")
	}
	for i, gate := range c.Gates {
		if gate == nil {
			list.add("Config.Gates[%d]: nil: want a gate", i)
			continue
		}
		if v, ok := gate.(interface{ Validate(Pipeline) error }); ok {
			list.within(fmt.Sprintf("Config.Gates[%d] (%s)", i, gate.Name()),
				v.Validate(c.Pipeline))
		}
	}
	list = append(list, c.Rollback.problems().prefix("Config.Rollback")...)
	list.actors("Config.Breakers", c.Breakers)
	list.actors("Config.Adopters", c.Adopters)
	if err := names.Actor(c.Owner); err != nil {
		list.add("Config.Owner: %w", err)
	}
	environments := slices.Sorted(maps.Keys(c.Deadlines))
	var unknown problems
	unknown.environments(c.Pipeline, environments)
	list = append(list, unknown.prefix("Config.Deadlines")...)
	for _, environment := range environments {
		if d := c.Deadlines[environment]; d <= 0 {
			list.add("Config.Deadlines[%q]: %s: want a positive time, or leave it out (default %s)",
				environment, d, defaultDeadline)
		}
	}
	if c.Grace < 0 {
		list.add("Config.Grace: %s: want 0 (default %s) or more", c.Grace, defaultGrace)
	}
	if c.Retry < 0 {
		list.add("Config.Retry: %s: want 0 (default %s) or more", c.Retry, defaultRetry)
	}
	if c.MaxSkew < 0 {
		list.add("Config.MaxSkew: %s: want 0 (default %s) or more", c.MaxSkew, defaultMaxSkew)
	}
	return list.err("promote")
}

// New returns a Promoter, or every problem of cfg at once, each wrapping ErrInvalid and naming its
// field. New does no I/O: every method reads the journal up to its end. Call Recover before the
// first change, and Close at the end.
func New(cfg Config) (*Promoter, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Promoter{
		pipeline: cfg.Pipeline, journal: cfg.Journal, deployer: cfg.Deployer, gates: cfg.Gates,
		deadlines: maps.Clone(cfg.Deadlines), grace: cfg.Grace, retry: cfg.Retry,
		now: cfg.Now, log: cfg.Logger, observe: cfg.Observe,
		rollback: cfg.Rollback, maxSkew: cfg.MaxSkew, breakers: slices.Clone(cfg.Breakers),
		adopters: slices.Clone(cfg.Adopters),
		owner:    cfg.Owner, owners: cfg.Owners, joining: make(chan struct{}, 1),
		lock: make(chan struct{}, 1), state: newState(cfg.Pipeline), works: map[ChangeID]*work{},
		appending: map[string]*pending{},
	}
	if cfg.Archive != nil {
		p.journal = &archived{cfg.Journal.(Trimmer), cfg.Archive}
	}
	p.living, p.close = context.WithCancelCause(context.Background())
	return p, nil
}
