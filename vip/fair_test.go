package vip

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFairMutexOrder(t *testing.T) {
	t.Parallel()
	var m fairMutex
	m.Lock()
	var order []int
	var wg sync.WaitGroup
	waits := func() (n int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for w := m.first; w != nil; w = w.next {
			n++
		}
		return n
	}
	for i := range 20 {
		wg.Go(func() {
			m.Lock()
			order = append(order, i)
			m.Unlock()
		})
		for waits() <= i {
			runtime.Gosched()
		}
	}
	m.Unlock()
	wg.Wait()
	require.True(t, slices.IsSorted(order), order)
	require.Len(t, order, 20)
}

func TestFairMutexExcludes(t *testing.T) {
	t.Parallel()
	var m fairMutex
	var wg sync.WaitGroup
	count := 0
	for range 16 {
		wg.Go(func() {
			for range 2000 {
				m.Lock()
				count++
				m.Unlock()
			}
		})
	}
	wg.Wait()
	require.Equal(t, 32000, count)
	require.Equal(t, unlocked, m.state.Load())
	require.PanicsWithValue(t, "vip: unlock of an unlocked mutex", m.Unlock)
}
