package bench
import ("testing";"time";"sync";"fmt";"slices";"context";"github.com/sluice-deploy/sluice/vip")
func BenchmarkSteady(b *testing.B) {
	a := newAllocator(b, vip.NewMemStore(), "10.0.0.0/18")
	pair := func(task string) time.Duration {
				start := time.Now()
				l := lease(b, a, task)
				d := time.Since(start)
				_, _ = a.Release(context.Background(), l.ID, l.Generation, "")
				return d
	}
	for i := range size*17 { pair(fmt.Sprint("w", i%(size*3))) }
	took := make([][]time.Duration, 64)
	var wg sync.WaitGroup
	each := max(b.N/64, 1)
	b.ResetTimer()
	for g := range took {
		wg.Go(func() {
			for i := range each {
				took[g] = append(took[g], pair(fmt.Sprint(g, "-", i)))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	figure(b, "p50-µs", float64(all[len(all)*50/100].Nanoseconds())/1e3)
	figure(b, "p99-µs", float64(all[len(all)*99/100].Nanoseconds())/1e3)
}
