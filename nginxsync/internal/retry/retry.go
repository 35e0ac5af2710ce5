// Package retry has the waits of loops that try again.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff counts the tries of one loop. The zero value is ready to use. It is not safe for
// concurrent use.
type Backoff struct{ tries int }

// Next returns how long to wait before the next try: it doubles with each try from first up to
// most, and a random part of the last half is left out, so that many agents do not try in step.
func (b *Backoff) Next(first, most time.Duration) time.Duration {
	d := min(first<<min(b.tries, 20), most)
	b.tries++
	return d/2 + rand.N(d/2+1)
}

// Sleep waits for d. When ctx ends earlier, it returns the context's cause.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
