package vip

import "time"

// allocatorLock is the lock of an Allocator, which tells Config.Observe how long each call waited
// for it and held it.
type allocatorLock struct {
	fairMutex
	now     func() time.Time                               // nil when observe is
	observe func(op string, took time.Duration, err error) // nil for none

	since  time.Time     // of the holder; guarded by the lock
	waited time.Duration // by the holder, likewise
}

func (l *allocatorLock) Lock() {
	if l.observe == nil {
		l.fairMutex.Lock()
		return
	}
	began := l.now()
	l.fairMutex.Lock()
	l.since = l.now()
	l.waited = l.since.Sub(began)
}

func (l *allocatorLock) Unlock() {
	if l.observe == nil {
		l.fairMutex.Unlock()
		return
	}
	waited, held := l.waited, l.now().Sub(l.since)
	l.fairMutex.Unlock()
	l.observe("lock wait", waited, nil)
	l.observe("lock hold", held, nil)
}
