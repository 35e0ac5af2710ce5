package consuljournal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/promote"
)

const (
	// of one request: above the 7 s for which Consul itself waits for a leader
	requestLimit = 10 * time.Second
	firstPause   = 25 * time.Millisecond
	longestPause = 2 * time.Second
)

// caller sends requests, again while Consul cannot answer.
type caller struct{ cfg Config }

// watched returns the function to defer that reports a call to Config.Observe.
func (c caller) watched(op string, err *error) func() {
	if c.cfg.Observe == nil {
		return func() {}
	}
	start := c.cfg.Now()
	return func() { c.cfg.Observe(op, c.cfg.Now().Sub(start), *err) }
}

// final is an error that another try does not mend.
type final struct{ error }

func (f *final) Unwrap() error { return f.error }

// persist calls once until it succeeds, fails for good, or patience or ctx end. A request that gets
// no answer within limit is given up: the connection may be dead without any error. Where Consul
// cannot be asked, or does not let the token ask, the error wraps promote.ErrUnavailable.
func (c caller) persist(ctx context.Context, limit time.Duration,
	once func(context.Context) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, max(c.cfg.Patience, limit))
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		attempt, end := context.WithTimeout(patience, limit)
		err := once(attempt)
		end()
		switch {
		case err == nil:
			return nil
		case ctx.Err() == nil && denied(err):
			return fmt.Errorf("%w: give the token its rights: %w", err, promote.ErrUnavailable)
		case ctx.Err() == nil && lasting(err):
			return err
		case ctx.Err() != nil:
			return errors.Join(err, context.Cause(ctx))
		}
		c.cfg.Logger.Warn("request to Consul is sent again", "err", err)
		timer := time.NewTimer(pause/2 + rand.N(pause)) // apart from the others that were refused
		select {
		case <-patience.Done():
			timer.Stop()
			if ctx.Err() == nil {
				return fmt.Errorf("%w: %w", err, promote.ErrUnavailable)
			}
			return errors.Join(err, context.Cause(ctx))
		case <-timer.C:
		}
	}
}

// lasting reports whether a request that failed with err is not to be sent again.
func lasting(err error) bool {
	var status api.StatusError
	var last *final
	switch {
	case errors.As(err, &last) || errors.Is(err, promote.ErrDamaged):
		return true
	case errors.As(err, &status):
		return status.Code >= 400 && status.Code < 500 && status.Code != http.StatusTooManyRequests
	}
	return denied(err)
}

// denied reports whether Consul refused the token.
func denied(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusForbidden ||
		strings.Contains(err.Error(), "Permission denied") ||
		strings.Contains(err.Error(), "ACL not found")
}

func consistent(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}
