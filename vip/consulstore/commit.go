package consulstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/vip"
)

// Commit implements vip.Store. It is sent again only when Consul has certainly not made it;
// otherwise it is read back.
func (s *Store) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	mark := rand.Uint64()
	ops, witness := s.ops(changes, mark)
	var revision uint64
	err := s.persist(ctx, func(ctx context.Context) (err error) {
		if revision, err = s.send(ctx, ops, witness); err != nil && !unmade(err) {
			return &unclear{err}
		}
		return err
	})
	if lost := (*unclear)(nil); errors.As(err, &lost) {
		if revision = s.readBack(ctx, witness, mark); revision != 0 {
			return revision, nil
		}
		return 0, fmt.Errorf("consul: commit of %s: no answer, and it is not there yet: %w",
			changes[0].Key, lost.error)
	}
	if err != nil {
		return 0, fmt.Errorf("consul: commit of %s: %w", changes[0].Key, err)
	}
	return revision, nil
}

// ops are the changes as Consul makes them, and the key whose mark shows afterwards that they were
// made.
func (s *Store) ops(changes []vip.Change, mark uint64) (ops api.TxnOps, witness string) {
	add := func(verb api.KVOp, key string, c vip.Change) {
		o := op(verb, key)
		o.KV.Value, o.KV.Index, o.KV.Flags = c.Value, c.Revision, mark
		ops = append(ops, o)
	}
	for _, c := range changes {
		key := s.records() + c.Key
		switch {
		case c.Value != nil && c.Revision == vip.AnyRevision:
			add(api.KVSet, key, vip.Change{Value: c.Value})
		case c.Value != nil:
			add(api.KVCAS, key, c)
		case c.Revision == vip.AnyRevision:
			add(api.KVDelete, key, vip.Change{})
		case c.Revision == 0:
			add(api.KVCheckNotExists, key, vip.Change{})
		default: // a deletion that compares succeeds on a key that is not there
			add(api.KVCheckIndex, key, c)
			add(api.KVDelete, key, vip.Change{})
		}
		if c.Value != nil && witness == "" {
			witness = key
		}
	}
	if witness == "" { // nothing is left of the changes that could have an index
		witness = s.prefix + "deleted"
		add(api.KVSet, witness, vip.Change{})
	}
	return ops, witness
}

func op(verb api.KVOp, key string) *api.TxnOp {
	return &api.TxnOp{KV: &api.KVTxnOp{Verb: verb, Key: key}}
}

// send makes one attempt. The plain request returns the status, which the client's Txn does not.
func (s *Store) send(ctx context.Context, ops api.TxnOps, witness string) (uint64, error) {
	var answer api.TxnResponse
	_, err := s.client.Raw().Write("/v1/txn", ops, &answer, (&api.WriteOptions{}).WithContext(ctx))
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusConflict {
		if err := json.Unmarshal([]byte(status.Body), &answer); err != nil {
			return 0, fmt.Errorf("answer of a conflict: %w", err)
		}
		return 0, failures(answer.Errors)
	}
	if errors.As(err, &status) && status.Code == http.StatusRequestEntityTooLarge {
		return 0, fmt.Errorf("%s: %w", status.Body, vip.ErrTooLarge)
	}
	if err != nil {
		return 0, err
	}
	for _, r := range answer.Results {
		if r.KV != nil && r.KV.Key == witness {
			return r.KV.ModifyIndex, nil
		}
	}
	return 0, fmt.Errorf("answer has no result for %s", witness)
}

// readBack returns the revision of the commit that has left its mark on the witness; 0 when the
// mark is not there or cannot be read.
func (s *Store) readBack(ctx context.Context, witness string, mark uint64) uint64 {
	pairs, err := s.read(ctx, api.TxnOps{op(api.KVGetOrEmpty, witness)})
	if err != nil || pairs[0] == nil || pairs[0].Flags != mark {
		return 0
	}
	return pairs[0].ModifyIndex
}

// unclear is an error after which the commit may have been made.
type unclear struct{ error }

func (u *unclear) Unwrap() error { return u.error }

// unmade says whether a commit that failed with err was certainly not made: it did not arrive, or
// was sent away at the door.
func unmade(err error) bool {
	var dial *net.OpError
	var status api.StatusError
	return final(err) || errors.As(err, &dial) && dial.Op == "dial" ||
		errors.As(err, &status) && status.Code == http.StatusTooManyRequests
}

// refused is a request that Consul has understood and will not answer otherwise the next time.
type refused struct{ error }

// final says whether a request that failed with err is not to be sent again.
func final(err error) bool {
	var status api.StatusError
	var no *refused
	var lost *unclear
	switch {
	case errors.As(err, &no) || errors.As(err, &lost) || errors.Is(err, vip.ErrRevision) ||
		errors.Is(err, vip.ErrTooLarge):
		return true
	case errors.As(err, &status):
		return status.Code >= 400 && status.Code < 500 && status.Code != http.StatusTooManyRequests
	}
	return strings.Contains(err.Error(), "Permission denied") || strings.Contains(err.Error(),
		"ACL not found")
}

// failures are the reasons for which Consul has rolled back a transaction.
func failures(all api.TxnErrors) error {
	for _, e := range all {
		stale := strings.Contains(e.What, "index is stale") ||
			strings.Contains(e.What, "current modify index") ||
			strings.HasSuffix(e.What, "doesn't exist") || strings.HasSuffix(e.What, "exists")
		if !stale {
			return &refused{fmt.Errorf("operation %d: %s", e.OpIndex, e.What)}
		}
	}
	if len(all) == 0 {
		return &refused{errors.New("rolled back without a reason")}
	}
	return fmt.Errorf("%s: %w", all[0].What, vip.ErrRevision)
}
