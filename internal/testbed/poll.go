package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

// Poll tries until f is content, for at most a minute. An error that lasts fails the test, with what was waited for.
func Poll(t testing.TB, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := wait(ctx, f); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// final is an error that no further try will mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// wait tries until f is content, ctx is done or the error is final.
func wait(ctx context.Context, f func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := f()
		if err == nil || errors.As(err, new(final)) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("in vain: %w", err)
		case <-time.After(pause):
		}
	}
}

// listens is nil once somebody accepts connections at an address.
func listens(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
