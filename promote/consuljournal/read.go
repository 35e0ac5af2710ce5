package consuljournal

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/promote"
)

// Read implements promote.Journal, by Consul's consistent reads: it returns all entries after the
// place. It asks for one small key where there are none.
func (j *Journal) Read(ctx context.Context, after uint64) (entries []promote.Entry, err error) {
	defer j.watched("read", &err)()
	err = j.persist(ctx, j.cfg.Patience, func(ctx context.Context) (err error) {
		tail, _, err := j.cfg.Client.KV().Get(j.tail(), consistent(ctx))
		if err != nil || tail == nil || tail.ModifyIndex <= after {
			return err
		}
		if after == 0 {
			entries, err = j.all(ctx)
			return err
		}
		entries, err = j.changed(ctx, after)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("consul: read after position %d: %w", after, err)
	}
	slices.SortStableFunc(entries, func(a, b promote.Entry) int { return cmp.Compare(a.At, b.At) })
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range entries {
		if e.Damage == "" {
			j.read[e.Cluster] = seen{e.Seq, e.At}
		}
	}
	return entries, nil
}

// all lists every entry.
func (j *Journal) all(ctx context.Context) ([]promote.Entry, error) {
	pairs, _, err := j.cfg.Client.KV().List(j.prefix+"entries/", consistent(ctx))
	if err != nil {
		return nil, err
	}
	entries := make([]promote.Entry, 0, len(pairs))
	for _, pair := range pairs {
		part, number, _ := strings.Cut(strings.TrimPrefix(pair.Key, j.prefix+"entries/"), "/")
		cluster, err := unescape(part)
		seq, parseErr := strconv.ParseUint(number, 10, 64)
		if err != nil || parseErr != nil {
			return nil, &final{fmt.Errorf("key %q is none of a journal: %w", pair.Key,
				promote.ErrDamaged)}
		}
		entries = append(entries, parse(pair, cluster, seq))
	}
	return entries, nil
}

// changed reads the entries after the place of the clusters whose head has moved since.
func (j *Journal) changed(ctx context.Context, after uint64) (entries []promote.Entry, err error) {
	pairs, _, err := j.cfg.Client.KV().List(j.prefix+"heads/", consistent(ctx))
	if err != nil {
		return nil, err
	}
	var spans []span
	for _, pair := range pairs {
		if pair.ModifyIndex <= after {
			continue
		}
		cluster, err := unescape(strings.TrimPrefix(pair.Key, j.prefix+"heads/"))
		if err != nil {
			return nil, &final{fmt.Errorf("key %q is none of a journal: %w", pair.Key,
				promote.ErrDamaged)}
		}
		h, err := parseHead(pair)
		if err != nil {
			entries = append(entries, promote.Entry{At: pair.ModifyIndex, Damage: err.Error(),
				Target: promote.Target{Cluster: cluster}})
			continue
		}
		s := span{cluster: cluster, last: h.seq, first: h.seq, at: pair.ModifyIndex}
		j.mu.Lock()
		if k := j.read[cluster]; k.at <= after && k.seq < h.seq && k.seq > 0 {
			s.first = k.seq // the one that was read last shows whether the journal was set back
		}
		j.mu.Unlock()
		spans = append(spans, s)
	}
	for width := uint64(4); len(spans) > 0; width *= 4 {
		got, err := j.fetch(ctx, spans)
		if err != nil {
			return nil, err
		}
		next := spans[:0]
		for i, s := range spans {
			reached := s.first == 1
			gone, err := j.gone(ctx, got[i])
			if err != nil {
				return nil, err
			}
			for _, e := range got[i] {
				if e.At <= after || e.Seq <= gone {
					reached = true
					continue
				}
				entries = append(entries, e)
			}
			if !reached {
				next = append(next, span{cluster: s.cluster, last: s.first - 1, at: s.at,
					first: s.first - min(width, s.first-1)})
			}
		}
		spans = next
	}
	return entries, nil
}

// gone returns how far Trim has removed the entries of a cluster, when one of these is missing.
func (j *Journal) gone(ctx context.Context, of []promote.Entry) (uint64, error) {
	for _, e := range of {
		if e.Damage == missing {
			return j.trimmed(ctx, e.Cluster)
		}
	}
	return 0, nil
}

// missing is the damage of an entry without a record.
const missing = "there is no record"

// span are entries of a cluster, both ends included; at is the place of its head.
type span struct {
	cluster     string
	first, last uint64
	at          uint64
}

// fetch reads the entries of the spans, as many as Consul gives at once.
func (j *Journal) fetch(ctx context.Context, spans []span) ([][]promote.Entry, error) {
	type wanted struct {
		span int
		seq  uint64
	}
	got := make([][]promote.Entry, len(spans))
	var batch []wanted
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		ops := make(api.TxnOps, len(batch))
		for i, w := range batch {
			ops[i] = &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVGetOrEmpty,
				Key: j.entryKey(spans[w.span].cluster, w.seq)}}
		}
		ok, answer, _, err := j.cfg.Client.Txn().Txn(ops, consistent(ctx))
		switch {
		case err != nil:
			return err
		case !ok:
			return &final{fmt.Errorf("read of %d keys: %v", len(ops), answer.Errors)}
		case len(answer.Results) != len(ops):
			return &final{fmt.Errorf("%d results of %d reads: want Consul 1.10 or later",
				len(answer.Results), len(ops))}
		}
		for i, w := range batch {
			s := spans[w.span]
			e := parse(answer.Results[i].KV, s.cluster, w.seq)
			if e.At == 0 {
				e.At = s.at
			}
			got[w.span] = append(got[w.span], e)
		}
		batch = batch[:0]
		return nil
	}
	for i, s := range spans {
		for seq := s.first; seq <= s.last; seq++ {
			if batch = append(batch, wanted{i, seq}); len(batch) == atOnce {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	return got, flush()
}

// parse returns the entry of a key, with a Damage where its record is none of that place.
func parse(pair *api.KVPair, cluster string, seq uint64) promote.Entry {
	damaged := promote.Entry{Seq: seq, Target: promote.Target{Cluster: cluster},
		Damage: missing}
	if pair == nil || pair.ModifyIndex == 0 {
		return damaged
	}
	damaged.At = pair.ModifyIndex
	e, err := promote.ParseRecord(pair.Value)
	if err != nil {
		damaged.Damage = err.Error()
		return damaged
	}
	if e.Cluster != cluster || e.Seq != seq {
		damaged.Damage = fmt.Sprintf("the record is entry %d of cluster %q", e.Seq, e.Cluster)
		return damaged
	}
	e.At = pair.ModifyIndex
	return e
}
