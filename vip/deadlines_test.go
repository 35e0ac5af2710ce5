package vip

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Dues are a list of entries that is sorted again for every question.
func TestDues(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		var d dues
		entries := make([]*entry, 40)
		for i := range entries {
			entries[i] = &entry{}
		}
		for range rapid.IntRange(1, 200).Draw(t, "changes") {
			e := rapid.SampledFrom(entries).Draw(t, "entry")
			e.deadline = time.Time{}
			if rapid.IntRange(0, 3).Draw(t, "none") > 0 {
				e.deadline = start.Add(time.Duration(rapid.IntRange(0, 100).Draw(t,
					"at")) * time.Second)
			}
			e.busy = rapid.Bool().Draw(t, "busy")
			d.set(e, dueClass(rapid.IntRange(0, int(dueClasses)-1).Draw(t, "class")))
		}
		var all []time.Time
		for class := range d {
			var times []time.Time
			var idle *entry
			for _, e := range entries {
				if e.deadline.IsZero() || e.dueClass != dueClass(class) {
					continue
				}
				if e.heapIndex != inChain {
					require.Same(t, e, d[class].heap[e.heapIndex-1])
				}
				times = append(times, e.deadline)
				if !e.busy && (idle == nil || e.deadline.Before(idle.deadline)) {
					idle = e
				}
			}
			require.Equal(t, len(times), d[class].len())
			slices.SortFunc(times, time.Time.Compare)
			n := rapid.IntRange(0, 50).Draw(t, "n")
			require.Equal(t, append([]time.Time{}, times[:min(n, len(times))]...),
				d[class].soonest(n))
			first := d[class].firstThat(func(e *entry) bool { return !e.busy })
			require.Equal(t, idle == nil, first == nil)
			if idle != nil {
				require.Equal(t, idle.deadline, first.deadline)
			}
			all = append(all, times...)
		}
		next := d.next()
		require.Equal(t, len(all) == 0, next == nil)
		if next != nil {
			require.Equal(t, slices.MinFunc(all, time.Time.Compare), next.deadline)
		}
	})
}
