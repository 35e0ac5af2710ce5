package platform

import (
	"context"
	"fmt"
	"sync"
)

// locks is a mutex for each name; a name without a holder or a waiter costs nothing. The zero value
// is ready to use.
type locks struct {
	mu   sync.Mutex
	held map[string]*nameLock
}

type nameLock struct {
	taken chan struct{} // holds one value while the name is held
	users int           // that hold it or wait for it
}

// lock waits for the name and returns the function that frees it.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*nameLock{}
	}
	n := l.held[name]
	if n == nil {
		n = &nameLock{taken: make(chan struct{}, 1)}
		l.held[name] = n
	}
	n.users++
	l.mu.Unlock()
	select {
	case n.taken <- struct{}{}:
		return func() { <-n.taken; l.leave(name, n) }, nil
	case <-ctx.Done():
		l.leave(name, n)
		return nil, fmt.Errorf("%s: another change of it is under way: %w", name,
			context.Cause(ctx))
	}
}

func (l *locks) leave(name string, n *nameLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(l.held, name)
	}
}
