//go:build linux

package luadriver_test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync"
)

// large are 5,000 clusters of the baseline with two instances each, and 10,000 of overlays.
func large() nginxsync.Snapshot {
	s := nginxsync.Snapshot{Baseline: map[string][]nginxsync.Instance{},
		Overlays: map[netip.Addr]map[string][]nginxsync.Instance{}}
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 8080)
	}
	for i := range 5000 {
		name := fmt.Sprint("cluster-", i)
		s.Baseline[name] = append(one(name+"-1", "v1", at(i)), one(name+"-2", "v1", at(i+1))...)
	}
	for i := range 10_000 {
		vip := netip.AddrFrom4([4]byte{127, 60, byte(i >> 8), byte(i)})
		name := fmt.Sprint("cluster-", i%5000)
		s.Overlays[vip] = map[string][]nginxsync.Instance{name: one(name, "v2", at(i))}
	}
	return s
}

// changed is s with another instance on vipA.
func changed(s nginxsync.Snapshot, n int) nginxsync.Snapshot {
	s.Overlays = maps.Clone(s.Overlays)
	s.Overlays[vipA] = map[string][]nginxsync.Instance{"a": one(fmt.Sprint("i", n), "v3",
		netip.MustParseAddrPort("127.0.0.1:9"))}
	return s
}

// spent is the processor time of the workers. The clock says little on a machine that has other
// work.
func (b *bed) spent(t testing.TB) (total time.Duration) {
	t.Helper()
	for _, pid := range b.Workers() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		require.NoError(t, err)
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		require.NoError(t, err)
		total += time.Duration(ns)
	}
	return total
}

// status is the sum of a number that the kernel keeps of each worker, by its name in proc(5).
func (b *bed) status(t testing.TB, name string) (total int) {
	t.Helper()
	for _, pid := range b.Workers() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(text), "\n"+name+":")
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		require.NoError(t, err)
		total += n
	}
	return total
}

// report gives the processor time of the workers since before, for each iteration.
func (b *bed) report(t *testing.B, before time.Duration) {
	t.ReportMetric(float64((b.spent(t)-before).Microseconds())/1000/float64(t.N), "worker-ms/op")
}

// BenchmarkFirst pushes 15,000 rows to an Nginx that has none.
func BenchmarkFirst(b *testing.B) {
	all := nginxsync.NewRoutes(1, large()).All()
	var spent time.Duration
	for b.Loop() {
		b.StopTimer()
		bed := start(b, 32<<20)
		before := bed.spent(b)
		b.StartTimer()
		require.NoError(b, bed.driver.Apply(b.Context(), all))
		spent += bed.spent(b) - before
	}
	b.ReportMetric(float64(spent.Microseconds())/1000/float64(b.N), "worker-ms/op")
}

// BenchmarkFull pushes 15,000 rows over as many others.
func BenchmarkFull(b *testing.B) {
	bed := start(b, 32<<20)
	s := large()
	n, before := 0, bed.spent(b)
	for b.Loop() {
		n++
		all := nginxsync.NewRoutes(uint64(n), changed(s, n)).All()
		require.NoError(b, bed.driver.Apply(b.Context(), all))
	}
	bed.report(b, before)
}

// BenchmarkDelta pushes one row and waits until every worker answers with it.
func BenchmarkDelta(b *testing.B) {
	bed := start(b, 32<<20)
	s := large()
	first := nginxsync.NewRoutes(1, s)
	require.NoError(b, bed.driver.Apply(b.Context(), first.All()))
	with := nginxsync.NewRoutes(2, changed(s, 1))
	there, back := nginxsync.NewDelta(first, with), nginxsync.NewDelta(with, first)
	n, before, memory := uint64(1), bed.spent(b), 0
	var took []time.Duration
	for b.Loop() {
		if n == 1000 {
			memory = bed.status(b, "VmRSS")
		}
		delta := there
		if n%2 == 0 {
			delta = back
		}
		delta.From.Number, delta.To.Number = n, n+1
		n++
		begin := time.Now()
		require.NoError(b, bed.driver.Apply(b.Context(), delta))
		for {
			state, err := bed.driver.State(b.Context())
			require.NoError(b, err)
			if state.Verified(delta.To) {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		took = append(took, time.Since(begin))
	}
	bed.report(b, before)
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	if memory > 0 { // kB that the two workers have grown by after 1,000 pushes
		b.ReportMetric(float64(bed.status(b, "VmRSS")-memory), "kB-grown")
	}
}

// BenchmarkIdle counts how often a worker wakes up that has nothing to do.
func BenchmarkIdle(b *testing.B) {
	bed := start(b, 1<<20)
	before, begin := bed.status(b, "voluntary_ctxt_switches"), time.Now()
	for b.Loop() {
		time.Sleep(5 * time.Second)
	}
	woken := bed.status(b, "voluntary_ctxt_switches") - before
	b.ReportMetric(float64(woken)/2/time.Since(begin).Seconds(), "wake-ups/s/worker")
}

// BenchmarkSetVerified gives an agent with 15,000 rows one change and waits until it is verified.
func BenchmarkSetVerified(b *testing.B) {
	bed := start(b, 32<<20)
	s := large()
	source := nginxsync.NewStaticSource(s)
	agent, err := nginxsync.OpenAgent(b.Context(), nginxsync.Config{Source: source,
		Driver: bed.driver})
	require.NoError(b, err)
	go agent.Run(b.Context())
	require.NoError(b, agent.WaitVerified(b.Context(), 1))
	b.ReportAllocs()
	n, before, own := 0, bed.spent(b), spentHere(b)
	for b.Loop() {
		n++
		require.NoError(b, agent.WaitVerified(b.Context(), source.Set(changed(s, n))))
	}
	bed.report(b, before)
	b.ReportMetric(float64((spentHere(b)-own).Microseconds())/1000/float64(b.N), "agent-ms/op")
}

// spentHere is the processor time of this process.
func spentHere(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
