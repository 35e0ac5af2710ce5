package consuljournal

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/promote"
)

const (
	// operations that Consul takes in one transaction
	atOnce          = 64
	defaultPrefix   = "promote/"
	defaultPatience = 30 * time.Second
	longestWatch    = 20 * time.Second // Consul adds up to a sixteenth
)

// Config configures a [Journal]. Client is required.
type Config struct {
	// Client talks to the Consul servers; it stays the caller's. It must not be nil.
	Client *api.Client
	// Prefix of all keys; it ends in "/". Promoters that share the journal have the same. The
	// default is "promote/".
	Prefix string
	// Patience is how long one call goes on while Consul has no leader, is not reached or limits
	// the rate of requests, unless its context ends before; one request may take up to 10 s. The
	// default is 30 s.
	Patience time.Duration
	// Logger receives the failures of requests that are sent again. The default discards.
	Logger *slog.Logger
	// Now is the clock by which Observe gets its durations. The default is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of every Append, Read, Wait and Trim with its name in
	// lower case, how long it took, and its error. It must be quick and safe for concurrent use.
	Observe func(op string, took time.Duration, err error)
}

func (c Config) withDefaults() Config {
	c.Prefix = cmp.Or(c.Prefix, defaultPrefix)
	c.Patience = cmp.Or(c.Patience, defaultPatience)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// validate names the fields as those of the type of.
func (c Config) validate(of string) error {
	var errs []error
	if c.Client == nil {
		errs = append(errs, fmt.Errorf("consuljournal: %s.Client: nil: want a client: %w",
			of, promote.ErrInvalid))
	}
	if strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/") {
		errs = append(errs, fmt.Errorf("consuljournal: %s.Prefix: %q: want a path that ends "+
			"in / and does not begin with it: %w", of, c.Prefix, promote.ErrInvalid))
	}
	if c.Patience < 0 {
		errs = append(errs, fmt.Errorf("consuljournal: %s.Patience: %s: want 0 (default %s) "+
			"or more: %w", of, c.Patience, defaultPatience, promote.ErrInvalid))
	}
	return errors.Join(errs...)
}

// Journal is a promote.Journal in Consul. It is safe for concurrent use, by any number of
// processes.
type Journal struct {
	caller
	prefix string

	mu    sync.Mutex
	heads map[string]head // of each cluster, as last seen
	read  map[string]seen // the newest entry of each cluster that Read has returned
}

var (
	_ promote.Journal = (*Journal)(nil)
	_ promote.Trimmer = (*Journal)(nil)
)

// head is the value of a cluster's head, and its index for a compare-and-set.
type head struct {
	seq   uint64
	chain string
	index uint64
}

type seen struct{ seq, at uint64 }

// New returns a journal, or every problem of cfg at once. It sends nothing.
func New(cfg Config) (*Journal, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate("Config"); err != nil {
		return nil, err
	}
	return &Journal{caller: caller{cfg}, prefix: cfg.Prefix,
		heads: map[string]head{}, read: map[string]seen{}}, nil
}

func (j *Journal) tail() string { return j.prefix + "tail" }

func (j *Journal) trimmedKey(cluster string) string {
	return j.prefix + "trimmed/" + escape(cluster)
}

func (j *Journal) headKey(cluster string) string { return j.prefix + "heads/" + escape(cluster) }

func (j *Journal) entryKey(cluster string, seq uint64) string {
	return fmt.Sprintf("%sentries/%s/%020d", j.prefix, escape(cluster), seq)
}

// escape makes one part of a key of any name: bytes other than letters, digits, "_", "-" and "."
// are "~" and two hexadecimal digits, and the empty name is "-".
func escape(cluster string) string {
	if cluster == "" {
		return "-"
	}
	var b strings.Builder
	for i, c := range []byte(cluster) {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' ||
			i > 0 && (c == '-' || c == '.')
		if plain {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "~%02X", c)
		}
	}
	return b.String()
}

func unescape(part string) (string, error) {
	if part == "-" {
		return "", nil
	}
	pieces := strings.Split(part, "~")
	var b strings.Builder
	b.WriteString(pieces[0])
	for _, piece := range pieces[1:] {
		c, err := hex.DecodeString(piece[:min(2, len(piece))])
		if err != nil || len(c) != 1 {
			return "", fmt.Errorf("%q: want two hexadecimal digits after ~: %w", part,
				promote.ErrDamaged)
		}
		b.Write(c)
		b.WriteString(piece[2:])
	}
	return b.String(), nil
}

// parseHead reads the value of a head.
func parseHead(pair *api.KVPair) (h head, err error) {
	if pair == nil || pair.ModifyIndex == 0 {
		return head{}, nil
	}
	h.index = pair.ModifyIndex
	if _, err := fmt.Sscanf(string(pair.Value), "%d %s", &h.seq, &h.chain); err != nil ||
		h.seq == 0 {
		return head{}, fmt.Errorf("consul: key %s: %q: want a number and a chain: %w", pair.Key,
			cut(pair.Value), promote.ErrDamaged)
	}
	return h, nil
}

func (h head) value() []byte { return fmt.Appendf(nil, "%d %s", h.seq, cmp.Or(h.chain, "-")) }

func cut(b []byte) []byte { return b[:min(len(b), 100)] }

// Wait implements promote.Journal by a blocking query for one key. An index that goes back, as it
// does when Consul is restored from a snapshot, begins the query at the beginning.
func (j *Journal) Wait(ctx context.Context, after uint64) (err error) {
	defer j.watched("wait", &err)()
	for index := uint64(0); ; {
		var pair *api.KVPair
		var meta *api.QueryMeta
		err := j.persist(ctx, longestWatch+longestWatch/16+requestLimit, func(ctx context.Context) (
			err error) {
			options := &api.QueryOptions{WaitIndex: index, WaitTime: longestWatch}
			pair, meta, err = j.cfg.Client.KV().Get(j.tail(), options.WithContext(ctx))
			return err
		})
		if err != nil {
			return fmt.Errorf("consul: wait for an entry after position %d: %w", after, err)
		}
		if pair != nil && pair.ModifyIndex > after {
			return nil
		}
		if meta.LastIndex < index {
			index = 0
			continue
		}
		index = max(meta.LastIndex, 1)
	}
}
