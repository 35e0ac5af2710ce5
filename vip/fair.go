package vip

import (
	"sync"
	"sync/atomic"
)

// fairMutex is handed on in the order of arrival. A goroutine that runs may take a sync.Mutex again
// and again; of 64 callers on two processors the slowest hundredth then waits five times as long as
// here. One caller pays nothing for the order, many pay a change of goroutines for each turn.
type fairMutex struct {
	state       atomic.Int32
	mu          sync.Mutex // guards the fields below
	first, last *waiting   // in the order of arrival
	spare       *waiting
}

// The states of a fairMutex. Only an awaited mutex has waiters.
const (
	unlocked int32 = iota
	locked
	awaited // locked, too
)

type waiting struct {
	turn chan struct{} // of capacity 1: the mutex is handed over through it
	next *waiting
}

func (m *fairMutex) Lock() {
	if m.state.CompareAndSwap(unlocked, locked) {
		return
	}
	m.mu.Lock()
	for m.state.Load() != awaited && !m.state.CompareAndSwap(locked, awaited) {
		if m.state.CompareAndSwap(unlocked, locked) {
			m.mu.Unlock()
			return
		}
	}
	w := m.spare
	if w == nil {
		w = &waiting{turn: make(chan struct{}, 1)}
	} else {
		m.spare, w.next = w.next, nil
	}
	if m.first == nil {
		m.first = w
	} else {
		m.last.next = w
	}
	m.last = w
	m.mu.Unlock()
	<-w.turn
	m.mu.Lock()
	m.spare, w.next = w, m.spare
	m.mu.Unlock()
}

func (m *fairMutex) Unlock() {
	if m.state.CompareAndSwap(locked, unlocked) {
		return
	}
	m.mu.Lock()
	w := m.first
	if w == nil {
		m.mu.Unlock()
		panic("vip: unlock of an unlocked mutex")
	}
	if m.first = w.next; m.first == nil {
		m.state.Store(locked)
	}
	m.mu.Unlock()
	w.turn <- struct{}{}
}
