package consulstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/vip"
)

const (
	// operations that Consul takes in one transaction
	atOnce = 64
	// of one request: above the 7 s for which Consul itself waits for a leader
	requestLimit    = 10 * time.Second
	defaultPrefix   = "vip/"
	defaultPatience = 30 * time.Second
	firstPause      = 25 * time.Millisecond
	longestPause    = 2 * time.Second
	longestWatch    = 20 * time.Second // Consul adds up to a sixteenth
)

// Config tunes a Store. The zero value works.
type Config struct {
	// Prefix of all keys. The default is "vip/". Allocators that share pools have the same.
	Prefix string
	// Patience is how long one call goes on while Consul has no leader, is not reached or limits
	// the rate of requests, unless its context ends before. The default is 30 s.
	Patience time.Duration
}

// Store is a vip.Store in Consul. It is safe for concurrent use, by any number of processes.
type Store struct {
	client   *api.Client
	prefix   string
	patience time.Duration
}

var _ vip.Watcher = (*Store)(nil)

// New returns a store; it sends nothing. The client stays the caller's.
func New(client *api.Client, cfg Config) (*Store, error) {
	prefix := cmp.Or(cfg.Prefix, defaultPrefix)
	if strings.HasPrefix(prefix, "/") || !strings.HasSuffix(prefix, "/") {
		return nil, fmt.Errorf("consul prefix %q: want a path that ends in / and does not begin "+
			"with it", prefix)
	}
	return &Store{client, prefix, cmp.Or(cfg.Patience, defaultPatience)}, nil
}

// List implements vip.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]vip.Record, error) {
	var pairs api.KVPairs
	err := s.persist(ctx, func(ctx context.Context) (err error) {
		pairs, _, err = s.client.KV().List(s.records()+prefix, consistent(ctx))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("consul: list %s%s: %w", s.records(), prefix, err)
	}
	found := make([]vip.Record, len(pairs))
	for i, p := range pairs {
		found[i] = s.record(p)
	}
	return found, nil
}

// Watch implements vip.Watcher by a blocking query for the parts of the keys up to the first slash:
// its answer is small however many records there are. It reports every change below prefix up to
// its last slash, deletions included. When the servers are restored from a snapshot Consul ends the
// query early with the index of before; one that is sent after that is answered with a lower index,
// after 20 s at the latest.
func (s *Store) Watch(ctx context.Context, after uint64, prefix string) (uint64, error) {
	begun := time.Now()
	now, err := s.index(ctx, prefix, after)
	if err == nil && now == after && time.Since(begun) < longestWatch {
		if now, err = s.index(ctx, prefix, 0); now == after && now > 1 {
			now--
		}
	}
	if err != nil {
		return 0, fmt.Errorf("consul: watch %s%s: %w", s.records(), prefix, err)
	}
	return now, nil
}

// index returns Consul's index of the records, as soon as it is above after or has to be asked for
// again.
func (s *Store) index(ctx context.Context, prefix string, after uint64) (uint64, error) {
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	attempt, end := context.WithTimeout(ctx, longestWatch+longestWatch/16+requestLimit)
	defer end()
	query := consistent(attempt)
	query.WaitIndex, query.WaitTime = after, longestWatch
	_, meta, err := s.client.KV().Keys(s.records()+strings.TrimSuffix(prefix, "/"), "/", query)
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, err
	}
	return max(meta.LastIndex, 1), nil
}

// Get implements vip.Store. Up to 64 keys are read at one moment.
func (s *Store) Get(ctx context.Context, keys ...string) ([]vip.Record, error) {
	found := make([]vip.Record, len(keys))
	for from := 0; from < len(keys); from += atOnce {
		some := keys[from:min(from+atOnce, len(keys))]
		ops := make(api.TxnOps, len(some))
		for i, key := range some {
			ops[i] = op(api.KVGetOrEmpty, s.records()+key)
		}
		pairs, err := s.read(ctx, ops)
		if err != nil {
			return nil, fmt.Errorf("consul: get %s%s: %w", s.records(), some[0], err)
		}
		for i, key := range some {
			found[from+i] = vip.Record{Key: key}
			if pairs[i] != nil && pairs[i].ModifyIndex != 0 {
				found[from+i] = s.record(pairs[i])
			}
		}
	}
	return found, nil
}

// read answers a transaction of reads: one pair for each.
func (s *Store) read(ctx context.Context, ops api.TxnOps) ([]*api.KVPair, error) {
	pairs := make([]*api.KVPair, len(ops))
	err := s.persist(ctx, func(ctx context.Context) error {
		ok, answer, _, err := s.client.Txn().Txn(ops, consistent(ctx))
		switch {
		case err != nil:
			return err
		case !ok:
			return failures(answer.Errors)
		case len(answer.Results) != len(ops):
			return fmt.Errorf("%d results of %d reads: want Consul 1.10 or later",
				len(answer.Results), len(ops))
		}
		for i, r := range answer.Results {
			pairs[i] = r.KV
		}
		return nil
	})
	return pairs, err
}

// records is the prefix of the records; beside it are the store's own keys.
func (s *Store) records() string { return s.prefix + "records/" }

func (s *Store) record(p *api.KVPair) vip.Record {
	return vip.Record{Key: strings.TrimPrefix(p.Key, s.records()), Value: p.Value,
		Revision: p.ModifyIndex}
}

func consistent(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

// persist calls once until it succeeds, fails for good, or patience or ctx end. A request that gets
// no answer is given up: the connection may be dead without any error.
func (s *Store) persist(ctx context.Context, once func(context.Context) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		attempt, end := context.WithTimeout(patience, requestLimit)
		err := once(attempt)
		end()
		switch {
		case err == nil || ctx.Err() == nil && final(err):
			return err
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), err)
		}
		select {
		case <-patience.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pause/2 + rand.N(pause)):
			// apart from the others that have been sent away
		}
	}
}
