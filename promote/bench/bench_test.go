//go:build linux

// Package bench measures promote beside its peers: see README.md.
package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/internal/testbed/consul"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/promote/boltjournal"
	"github.com/sluice-deploy/sluice/promote/consuljournal"
)

// deployer is a Deployer that does everything at once, or holds its calls until they are cancelled.
type deployer struct{ hold bool }

func (d deployer) Deploy(ctx context.Context, _ promote.Deployment) error {
	if d.hold {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func (deployer) Remove(context.Context, promote.Deployment) error { return nil }

func digest(n int) promote.Digest { return promote.Digest(fmt.Sprintf("sha256:%064x", n)) }

func target(cluster, environment string) promote.Target {
	return promote.Target{Cluster: cluster, Environment: environment}
}

func request(t promote.Target) promote.Request {
	return promote.Request{Target: t, Version: "v1", Expect: promote.Any, Actor: "ann",
		Reason: "the release of the week"}
}

func promoter(b *testing.B, cfg promote.Config) *promote.Promoter {
	b.Helper()
	p, err := promote.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			b.Error(err)
		}
	})
	return p
}

func bolt(b *testing.B) *boltjournal.Journal {
	b.Helper()
	j, err := boltjournal.Open(b.Context(), boltjournal.Config{Path: filepath.Join(b.TempDir(),
		"journal")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = j.Close() })
	return j
}

// client of a server that keeps as many connections as calls run at once.
func client(b *testing.B) func() *api.Client {
	server := consul.Start(b)
	return func() *api.Client {
		cfg := api.DefaultConfig()
		cfg.Address = server.Addr
		cfg.Transport.MaxIdleConnsPerHost = 64
		c, err := api.NewClient(cfg)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
}

func journal(b *testing.B, c *api.Client, prefix string) *consuljournal.Journal {
	j, err := consuljournal.New(consuljournal.Config{Client: c, Prefix: prefix})
	if err != nil {
		b.Fatal(err)
	}
	return j
}

// export is the export of a journal with 1,000,000 entries of 1,000 clusters.
var export = sync.OnceValue(func() []byte {
	j := promote.NewMemJournal()
	p, err := promote.New(promote.Config{Journal: j, Deployer: deployer{}})
	if err != nil {
		panic(err)
	}
	for n := range 1000 {
		err := p.Bind(context.Background(), promote.Binding{Cluster: fmt.Sprint("c", n),
			Version: "v1", Digest: digest(n), Repository: "registry:5000/web", Actor: "ci"})
		if err != nil {
			panic(err)
		}
	}
	for n := range 499_500 {
		if _, err := p.Promote(context.Background(), request(target(fmt.Sprint("c", n%1000),
			"test"))); err != nil {
			panic(err)
		}
	}
	var text bytes.Buffer
	if err := promote.Export(context.Background(), &text, j); err != nil {
		panic(err)
	}
	return text.Bytes()
})

// BenchmarkAudit verifies a million entries, hashes their lines, and decodes them.
func BenchmarkAudit(b *testing.B) {
	text := export()
	runtime.GC()
	var took [3]time.Duration
	for b.Loop() {
		start := processor(b)
		heads, err := promote.Verify(bytes.NewReader(text))
		if err != nil || len(heads) != 1000 {
			b.Fatal(len(heads), err)
		}
		took[0] += processor(b) - start
		start = processor(b)
		for line := range bytes.Lines(text) {
			sha256.Sum256(line)
		}
		took[1] += processor(b) - start
		start = processor(b)
		for line := range bytes.Lines(text) {
			var e promote.Entry
			if err := json.Unmarshal(line, &e); err != nil {
				b.Fatal(err)
			}
		}
		took[2] += processor(b) - start
	}
	for i, who := range []string{"verify", "sha256", "json"} {
		figure(b, who, "entries/cpu-s", float64(b.N)*1e6/took[i].Seconds())
	}
}

// entry is of the size of a promotion's.
func entry(cluster string, seq uint64) promote.Entry {
	return promote.Entry{Seq: seq, Time: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC),
		Kind: promote.Started, Op: promote.OpPromote, Target: target(cluster, "test"),
		Version: "v1", Digest: digest(int(seq)), Repository: "registry:5000/web", Actor: "ann",
		Reason: "the release of the week", Chain: fmt.Sprintf("%064x", seq)}
}

// median of the durations in microseconds.
func median(all []time.Duration) float64 { return quantile(all, 0.5) }

func quantile(all []time.Duration, q float64) float64 {
	slices.Sort(all)
	return float64(all[int(q*float64(len(all)-1))].Nanoseconds()) / 1000
}

// BenchmarkAppend appends to one cluster, and sends bare transactions of the same keys and sizes,
// in turn.
func BenchmarkAppend(b *testing.B) {
	c := client(b)()
	j, file := journal(b, c, "bench/"), bolt(b)
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	took := map[string][]time.Duration{}
	timed := func(who string, f func() error) {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(who, err)
		}
		took[who] = append(took[who], time.Since(start))
	}
	var index, seq uint64
	for b.Loop() {
		for range 50 {
			seq++
			e := entry("web", seq)
			record, err := e.Record()
			if err != nil {
				b.Fatal(err)
			}
			timed("consul", func() error { _, err := j.Append(b.Context(), e); return err })
			timed("bare-txn", func() (err error) { index, err = bare(c, "web", seq, index, record); return })
			timed("bbolt", func() error { _, err := file.Append(b.Context(), e); return err })
			timed("bare-bbolt", func() error {
				return db.Update(func(tx *bbolt.Tx) error {
					bucket, err := tx.CreateBucketIfNotExists([]byte("bare"))
					if err != nil {
						return err
					}
					return bucket.Put(fmt.Appendf(nil, "%020d", seq), record)
				})
			})
		}
	}
	for _, who := range []string{"consul", "bare-txn", "bbolt", "bare-bbolt"} {
		figure(b, who, "µs", median(took[who]))
	}
}

// bare is the transaction of an append, and returns the index of its head.
func bare(c *api.Client, cluster string, seq, index uint64, record []byte) (uint64, error) {
	key := fmt.Sprintf("bare/entries/%s/%020d", cluster, seq)
	ok, answer, _, err := c.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: "bare/heads/" + cluster, Value: make([]byte, 66),
			Index: index}},
		{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: key, Value: record}},
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "bare/tail", Value: []byte(key)}},
	}, nil)
	if err != nil || !ok {
		return 0, errors.Join(err, errors.New("rolled back"))
	}
	return answer.Results[0].KV.ModifyIndex, nil
}

// BenchmarkThousand appends to 1,000 clusters at once, and sends as many bare transactions at once,
// in turn.
func BenchmarkThousand(b *testing.B) {
	c := client(b)()
	j := journal(b, c, "bench/")
	indexes := make([]uint64, 1000)
	var took [2]time.Duration
	seq := uint64(0)
	for b.Loop() {
		seq++
		for way := range took {
			var all sync.WaitGroup
			start := time.Now()
			for n := range indexes {
				all.Go(func() {
					e := entry(fmt.Sprint("c", n), seq)
					record, err := e.Record()
					switch {
					case err != nil:
					case way == 0:
						_, err = j.Append(b.Context(), e)
					default:
						indexes[n], err = bare(c, e.Cluster, seq, indexes[n], record)
					}
					if err != nil {
						b.Error(err)
					}
				})
			}
			all.Wait()
			took[way] += time.Since(start)
		}
	}
	for way, who := range []string{"consul", "bare-txn"} {
		figure(b, who, "appends/s", float64(seq)*1000/took[way].Seconds())
	}
}

// BenchmarkOneTarget asks three promoters for one target, 1,000 times at once: one wins, and the
// others hear of it.
func BenchmarkOneTarget(b *testing.B) {
	b.Run("bbolt", func(b *testing.B) {
		j := bolt(b)
		race(b, func() promote.Journal { return j })
	})
	b.Run("consul", func(b *testing.B) {
		c := client(b)
		race(b, func() promote.Journal { return journal(b, c(), "bench/") })
	})
}

func race(b *testing.B, open func() promote.Journal) {
	const requests = 1000
	owners := promote.NewMemOwners()
	var all [3]*promote.Promoter
	for i := range all {
		all[i] = promoter(b, promote.Config{Journal: open(), Deployer: deployer{hold: true},
			Owner: fmt.Sprint("p", i), Owners: owners})
	}
	var told []time.Duration
	round := 0
	for b.Loop() {
		round++
		t := target(fmt.Sprint("c", round), "test")
		if err := all[0].Bind(b.Context(), promote.Binding{Cluster: t.Cluster, Version: "v1",
			Digest: digest(1), Repository: "registry:5000/web", Actor: "ci"}); err != nil {
			b.Fatal(err)
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		begin := make(chan struct{})
		won := 0
		for n := range requests {
			wg.Go(func() {
				<-begin
				start := time.Now()
				_, err := all[n%len(all)].Start(b.Context(), request(t))
				took := time.Since(start)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case errors.Is(err, promote.ErrConflict):
					told = append(told, took)
				default:
					b.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if won != 1 {
			b.Fatalf("%d of %d requests won", won, requests)
		}
	}
	for name, q := range map[string]float64{"p50": 0.5, "p95": 0.95, "p99": 0.99} {
		figure(b, "told", name+"-ms", quantile(told, q)/1000)
	}
}

// BenchmarkIdle has 500 clusters that run in four environments each, and looks for 10 s at a
// promoter that calls Recover each second.
func BenchmarkIdle(b *testing.B) {
	j := bolt(b)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := promoter(b, promote.Config{Journal: j, Deployer: deployer{}})
	for n := range 500 {
		cluster := fmt.Sprint("c", n)
		if err := p.Bind(b.Context(), promote.Binding{Cluster: cluster, Version: "v1",
			Digest: digest(n), Repository: "registry:5000/web", Actor: "ci"}); err != nil {
			b.Fatal(err)
		}
		for _, environment := range promote.DefaultPipeline() {
			if _, err := p.Promote(b.Context(), request(target(cluster, environment))); err != nil {
				b.Fatal(err)
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	var cpu, wall time.Duration
	for b.Loop() {
		start, used := time.Now(), processor(b)
		for range 10 {
			if _, err := p.Recover(b.Context()); err != nil {
				b.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		cpu, wall = cpu+processor(b)-used, wall+time.Since(start)
	}
	figure(b, "500x4", "MB", float64(after.HeapAlloc-before.HeapAlloc)/1e6)
	figure(b, "500x4", "%-of-a-core", 100*cpu.Seconds()/wall.Seconds())
	runtime.KeepAlive(p)
}

// processor is the time that this process has used.
func processor(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
