package consulsource

import (
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"
)

// The rules for an answer of Consul, from its documentation of blocking queries and from the
// failures of its clients.

// nextIndex returns the index for the next blocking query after an answer with an index. One that
// is lower than the last one says that the servers were restored or replaced: the next query must
// not wait. So does the same index before the time of the wait is over, with which Consul ends the
// queries that a restore overtakes. 0 would never wait.
func nextIndex(last, answered uint64, early bool) uint64 {
	answered = max(answered, 1)
	if answered < last || answered == last && early {
		return 0
	}
	return answered
}

// believable returns an error for an answer that may lack instances: the server had no leader, was
// behind by more than maxStale, or left out instances that the token may not read.
func believable(meta *api.QueryMeta, maxStale time.Duration) error {
	switch {
	case !meta.KnownLeader:
		return fmt.Errorf("the server knows no leader, so its answer is not used")
	case meta.LastContact > maxStale:
		return fmt.Errorf("the server heard from the leader %s ago, so its answer is not used: "+
			"want at most %s", meta.LastContact, maxStale)
	case meta.ResultsFilteredByACLs:
		return fmt.Errorf("the token may not read every instance, so the answer is not used: " +
			"want service:read on the service and node:read")
	}
	return nil
}

// bucket bounds how often something is done: twice at once, then once in each period.
type bucket struct {
	every  time.Duration
	filled time.Time // when it is full again
	last   time.Time // of the last take
}

// take returns how long to wait before the next time. A clock that was set back makes it full.
func (b *bucket) take(now time.Time) time.Duration {
	if b.filled.Before(now) || now.Before(b.last) {
		b.filled = now
	}
	b.last = now
	wait := b.filled.Sub(now) - b.every
	b.filled = b.filled.Add(b.every)
	return max(wait, 0)
}
