package consuljournal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/promote"
)

// errMoved is for a transaction that Consul has rolled back because a key is not as it was.
var errMoved = errors.New("a key is not as it was")

// Append implements promote.Journal by one transaction. Where its answer is lost, the entry is
// looked for, and sent again when it is not there: the head lets it in once.
func (j *Journal) Append(ctx context.Context, e promote.Entry) (at uint64, err error) {
	defer j.watched("append", &err)()
	record, err := e.Record()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		at, err = j.append(ctx, e, record)
	}
	if err != nil {
		return 0, fmt.Errorf("consul: append entry %d of cluster %q: %w", e.Seq, e.Cluster, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.heads[e.Cluster] = head{e.Seq, e.Chain, at}
	return at, nil
}

func (j *Journal) append(ctx context.Context, e promote.Entry, record []byte) (at uint64,
	err error) {
	j.mu.Lock()
	h := j.heads[e.Cluster]
	j.mu.Unlock()
	mark, sent, known := rand.Uint64(), false, h.index != 0 && h.seq+1 == e.Seq
	if !known {
		if h, err = j.headOf(ctx, e.Cluster, h); err != nil {
			return 0, err
		}
	}
	err = j.persist(ctx, requestLimit, func(ctx context.Context) error {
		if sent { // the answer was lost
			at, err = j.find(ctx, e, mark)
			if err != nil || at != 0 {
				return err
			}
			if h, err = j.headNow(ctx, e.Cluster); err != nil {
				return err
			}
		}
		if h.seq+1 != e.Seq {
			return &final{conflict(h)}
		}
		sent = true
		at, err = j.send(ctx, e, h, record, mark)
		if errors.Is(err, errMoved) && known { // the head that this Journal had seen is an old one
			known = false
			if h, err = j.headOf(ctx, e.Cluster, h); err != nil {
				return err
			}
			if h.seq+1 != e.Seq {
				return &final{conflict(h)}
			}
			at, err = j.send(ctx, e, h, record, mark)
		}
		if errors.Is(err, errMoved) {
			found, findErr := j.find(ctx, e, mark)
			if at = found; findErr != nil || at != 0 {
				return findErr
			}
			return &final{fmt.Errorf("another one was faster: %w", promote.ErrConflict)}
		}
		return err
	})
	return at, err
}

func conflict(h head) error {
	return fmt.Errorf("its last one is %d: %w", h.seq, promote.ErrConflict)
}

// send makes one attempt: it moves the head, creates the entry, and touches the key that Wait and
// Read look at.
func (j *Journal) send(ctx context.Context, e promote.Entry, h head, record []byte,
	mark uint64) (uint64, error) {
	next, key := head{seq: e.Seq, chain: e.Chain}.value(), j.entryKey(e.Cluster, e.Seq)
	ops := api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: j.headKey(e.Cluster), Value: next, Index: h.index}},
		{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: key, Value: record, Flags: mark}},
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: j.tail(), Value: []byte(key)}},
	}
	var answer api.TxnResponse
	// The plain request returns the status, which the client's Txn does not.
	_, err := j.cfg.Client.Raw().Write("/v1/txn", ops, &answer,
		(&api.WriteOptions{}).WithContext(ctx))
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusConflict {
		if err := json.Unmarshal([]byte(status.Body), &answer); err != nil {
			return 0, fmt.Errorf("answer of a conflict: %w", err)
		}
		return 0, moved(answer.Errors)
	}
	if errors.As(err, &status) && status.Code == http.StatusRequestEntityTooLarge {
		return 0, &final{fmt.Errorf("%d bytes: %s: %w", len(record), cut([]byte(status.Body)),
			promote.ErrTooLarge)}
	}
	if err != nil {
		return 0, err
	}
	for _, r := range answer.Results {
		if r.KV != nil && r.KV.Key == key {
			return r.KV.ModifyIndex, nil
		}
	}
	return 0, fmt.Errorf("the answer has no result for %s", key)
}

// moved is the reason for which Consul has rolled back a transaction.
func moved(all api.TxnErrors) error {
	for _, e := range all {
		if !strings.Contains(e.What, "index is stale") &&
			!strings.Contains(e.What, "current modify index") &&
			!strings.HasSuffix(e.What, "doesn't exist") && !strings.HasSuffix(e.What, "exists") {
			return &final{fmt.Errorf("operation %d: %s", e.OpIndex, e.What)}
		}
	}
	return errMoved
}

// find returns the place of the entry that this call has written with its mark; 0 when there is
// none.
func (j *Journal) find(ctx context.Context, e promote.Entry, mark uint64) (uint64, error) {
	pair, _, err := j.cfg.Client.KV().Get(j.entryKey(e.Cluster, e.Seq), consistent(ctx))
	if err != nil || pair == nil || pair.Flags != mark {
		return 0, err
	}
	return pair.ModifyIndex, nil
}

func (j *Journal) headNow(ctx context.Context, cluster string) (head, error) {
	pair, _, err := j.cfg.Client.KV().Get(j.headKey(cluster), consistent(ctx))
	if err != nil {
		return head{}, err
	}
	return parseHead(pair)
}

// headOf reads a head again. One that has the number of before and another chain is a conflict: the
// journal was set back, and has grown since.
func (j *Journal) headOf(ctx context.Context, cluster string, before head) (h head, err error) {
	err = j.persist(ctx, requestLimit, func(ctx context.Context) (err error) {
		h, err = j.headNow(ctx, cluster)
		return err
	})
	if err == nil && h.seq == before.seq && h.chain != before.chain {
		err = &final{fmt.Errorf("the journal was set back to an older copy, and entry %d is "+
			"another one since: %w", h.seq, promote.ErrConflict)}
	}
	return h, err
}
