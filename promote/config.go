package promote

import (
	"fmt"
	"log/slog"
	"time"
)

// Config configures a [Promoter]. Journal and Deployer are required.
type Config struct {
	// Pipeline is the order of environments. The default, for nil, is DefaultPipeline().
	Pipeline Pipeline
	// Journal holds the entries of all changes. It must not be nil.
	Journal Journal
	// Deployer makes a target run a digest. It must not be nil.
	Deployer Deployer
	// Gates are all asked before a promotion or rollback starts. The default, for nil, is OrderGate
	// alone; an empty slice means no gate.
	Gates []Gate
	// Grace is how long a change that failed or was cancelled may take to restore the earlier
	// deployment and to record the outcome. The default is one minute.
	Grace time.Duration
	// Logger receives one line for each entry that this Promoter appends to the journal. Errors
	// that a method returns are not logged. The default, for nil, is to log nothing.
	Logger *slog.Logger
	// Now is the clock: of the entries, of the question to the gates, and of Observe. The default
	// is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of each Bind, Promote, Check, Rollback, Review,
	// Retire and Recover with its name in lower case; of each call of the deployer, as
	// "deployer.deploy" and "deployer.remove"; and of each gate, as "gate." and its name. It gets
	// the duration and the error of the call. It is called concurrently and has to return
	// quickly. The default is none.
	Observe func(op string, took time.Duration, err error)
}

// defaultGrace is the default of Config.Grace.
const defaultGrace = time.Minute

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
	if c.Grace < 0 {
		list.add("Config.Grace: %s: want 0 (default %s) or more", c.Grace, defaultGrace)
	}
	return list.err("promote")
}

// New returns a Promoter, or every problem of cfg at once, each wrapping ErrInvalid and naming its
// field. New does no I/O: every method reads the journal up to its end. Call Recover before the
// first change.
func New(cfg Config) (*Promoter, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Promoter{
		pipeline: cfg.Pipeline, journal: cfg.Journal, deployer: cfg.Deployer, gates: cfg.Gates,
		grace: cfg.Grace, now: cfg.Now, log: cfg.Logger, observe: cfg.Observe,
		lock: make(chan struct{}, 1), state: newState(),
	}, nil
}
