package promote_test

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
)

// BenchmarkPipeline is one digest through four environments with a deployer that does nothing: 8
// appends. The second figure is the cost of the durable journal's appends alone.
func BenchmarkPipeline(b *testing.B) {
	bolt := func(b *testing.B) *boltjournal.Journal {
		j, err := boltjournal.Open(b.Context(), boltjournal.Config{Path: filepath.Join(b.TempDir(),
			"journal")})
		require.NoError(b, err)
		b.Cleanup(func() { require.NoError(b, j.Close()) })
		return j
	}
	through := func(b *testing.B, j promote.Journal) {
		p, err := promote.New(promote.Config{Journal: j, Deployer: newWorld()})
		require.NoError(b, err)
		require.NoError(b, p.Bind(b.Context(), binding("v1", digest(1))))
		for b.Loop() {
			for _, environment := range promote.DefaultPipeline() {
				_, err := p.Promote(b.Context(), request(environment, "v1"))
				require.NoError(b, err)
			}
		}
	}
	b.Run("memory", func(b *testing.B) { through(b, promote.NewMemJournal()) })
	b.Run("bolt", func(b *testing.B) { through(b, bolt(b)) })
	b.Run("bolt appends alone", func(b *testing.B) {
		j := bolt(b)
		for seq := uint64(0); b.Loop(); {
			for range 8 {
				_, err := j.Append(b.Context(), promote.Entry{Seq: seq + 1})
				require.NoError(b, err)
				seq++
			}
		}
	})
}

// BenchmarkCheck asks all gates of this package about a cluster with 10,000 changes behind it.
func BenchmarkCheck(b *testing.B) {
	config := promote.Configuration{Environments: map[string][]string{"test": {"a"},
		"sandbox": {"a"}}, Required: []string{"a"}}
	p, err := promote.New(promote.Config{Journal: promote.NewMemJournal(), Deployer: newWorld(),
		Gates: []promote.Gate{
			promote.OrderGate{}, promote.ConfigGate{Source: carries{config: config}},
			promote.ApprovalGate{Rules: map[string]promote.ApprovalRule{"production": {Count: 2}}},
			promote.SoakGate{Times: map[string]time.Duration{"sandbox": 1}},
			promote.FreezeGate{Freezes: []promote.Freeze{{Reason: "weekend",
				Environments: []string{"production"}, Days: []time.Weekday{6, 0},
				Length: 24 * time.Hour}}},
		}})
	require.NoError(b, err)
	for n := range 100 {
		require.NoError(b, p.Bind(b.Context(), binding(fmt.Sprint("v", n), digest(n))))
	}
	for n := range 10_000 {
		_, err := p.Promote(b.Context(), request("test", fmt.Sprint("v", n%100)))
		require.NoError(b, err)
	}
	for b.Loop() {
		require.NoError(b, p.Check(b.Context(), request("sandbox", "v1")))
	}
}

// BenchmarkReplay reads a journal of 100,000 entries, as a new process does, and reports the memory
// that they take.
func BenchmarkReplay(b *testing.B) {
	const entries = 100_000
	j := promote.NewMemJournal()
	for n := range uint64(entries / 2) {
		seq := n/1000*2 + 1
		e := promote.Entry{Seq: seq, Time: time.Unix(int64(n), 0), Kind: promote.Started,
			Op: promote.OpPromote, Change: seq, Generation: seq,
			Target:  promote.Target{Cluster: fmt.Sprint("c", n%1000), Environment: "test"},
			Version: fmt.Sprint("v", n), Digest: digest(int(n % 100)), Actor: "a"}
		_, err := j.Append(b.Context(), e)
		require.NoError(b, err)
		e.Seq, e.Kind = seq+1, promote.Succeeded
		_, err = j.Append(b.Context(), e)
		require.NoError(b, err)
	}
	var before, after runtime.MemStats
	var kept *promote.Promoter
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		p, err := promote.New(promote.Config{Journal: j, Deployer: newWorld()})
		require.NoError(b, err)
		_, err = p.Open(b.Context())
		require.NoError(b, err)
		kept = p
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/entries, "B/entry")
	runtime.KeepAlive(kept)
}
