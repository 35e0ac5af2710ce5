package consuljournal

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/promote"
)

// Trim implements promote.Trimmer: it writes down how far the entries go that it removes, and then
// removes them, the oldest first, as many as Consul takes in one transaction.
func (j *Journal) Trim(ctx context.Context, cluster string, through uint64) (err error) {
	defer j.watched("trim", &err)()
	h, err := j.headOf(ctx, cluster, head{})
	if err == nil && through >= h.seq {
		err = fmt.Errorf("its last one is %d: %w", h.seq, promote.ErrInvalid)
	}
	if err == nil {
		err = j.mark(ctx, cluster, through)
	}
	if err == nil {
		err = j.remove(ctx, cluster, through)
	}
	if err != nil {
		return fmt.Errorf("consul: trim cluster %q through entry %d: %w", cluster, through, err)
	}
	return nil
}

// mark raises the number of the last entry that is removed.
func (j *Journal) mark(ctx context.Context, cluster string, through uint64) error {
	return j.persist(ctx, requestLimit, func(ctx context.Context) error {
		pair, _, err := j.cfg.Client.KV().Get(j.trimmedKey(cluster), consistent(ctx))
		if err != nil {
			return err
		}
		next := &api.KVPair{Key: j.trimmedKey(cluster), Value: fmt.Append(nil, through)}
		if pair != nil {
			if before, err := parseTrimmed(pair); err != nil || before >= through {
				return err
			}
			next.ModifyIndex = pair.ModifyIndex
		}
		ok, _, err := j.cfg.Client.KV().CAS(next, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil && !ok {
			err = errMoved
		}
		return err
	})
}

// remove deletes the entries.
func (j *Journal) remove(ctx context.Context, cluster string, through uint64) error {
	prefix := j.entryKey(cluster, 0)
	prefix = prefix[:strings.LastIndexByte(prefix, '/')+1]
	var keys []string
	err := j.persist(ctx, j.cfg.Patience, func(ctx context.Context) (err error) {
		keys, _, err = j.cfg.Client.KV().Keys(prefix, "", consistent(ctx))
		return err
	})
	if err != nil {
		return err
	}
	last := j.entryKey(cluster, through)
	keys = slices.DeleteFunc(keys, func(key string) bool { return key > last })
	slices.Sort(keys)
	for batch := range slices.Chunk(keys, atOnce) {
		ops := make(api.TxnOps, len(batch))
		for i, key := range batch {
			ops[i] = &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: key}}
		}
		err := j.persist(ctx, requestLimit, func(ctx context.Context) error {
			var answer api.TxnResponse
			_, err := j.cfg.Client.Raw().Write("/v1/txn", ops, &answer,
				(&api.WriteOptions{}).WithContext(ctx))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// trimmed returns the number of the last entry of a cluster that was removed; 0 for none.
func (j *Journal) trimmed(ctx context.Context, cluster string) (uint64, error) {
	pair, _, err := j.cfg.Client.KV().Get(j.trimmedKey(cluster), consistent(ctx))
	if err != nil || pair == nil {
		return 0, err
	}
	return parseTrimmed(pair)
}

func parseTrimmed(pair *api.KVPair) (uint64, error) {
	n, err := strconv.ParseUint(string(pair.Value), 10, 64)
	if err != nil {
		return 0, &final{fmt.Errorf("key %s: %q: want a number: %w", pair.Key, cut(pair.Value),
			promote.ErrDamaged)}
	}
	return n, nil
}
