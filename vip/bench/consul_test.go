//go:build linux

package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-deploy/sluice/internal/testbed/tools"
	"github.com/sluice-deploy/sluice/vip"
	"github.com/sluice-deploy/sluice/vip/consulstore"
)

// consul starts one server with its data on disk, and returns a client.
func consul(b *testing.B) *api.Client {
	path, err := tools.Path("consul")
	if err != nil {
		b.Skip(err) // the table says that it was not measured
	}
	var ports [3]string
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		ports[i] = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		_ = l.Close()
	}
	cmd := exec.Command(path, "agent", "-server", "-bootstrap-expect", "1", "-data-dir",
		b.TempDir(), "-bind", "127.0.0.1", "-dns-port", "-1",
		"-grpc-port", "-1", "-grpc-tls-port", "-1", "-serf-wan-port", "-1", "-http-port", ports[0],
		"-serf-lan-port", ports[1], "-server-port", ports[2],
		"-hcl", "performance { raft_multiplier = 1 }", "-hcl",
		"limits { http_max_conns_per_client = 2000 }")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	cfg := api.DefaultConfig()
	cfg.Address = "127.0.0.1:" + ports[0]
	cfg.Transport.MaxIdleConnsPerHost = 64
	client, err := api.NewClient(cfg)
	if err != nil {
		b.Fatal(err)
	}
	for range 600 {
		if _, err = client.KV().Put(&api.KVPair{Key: "ready"}, nil); err == nil {
			return client
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.Fatal(err)
	return nil
}

// counted counts the commits that another allocator got in the way of.
type counted struct {
	vip.Store
	lost *atomic.Int64
}

func (c counted) Commit(ctx context.Context, changes ...vip.Change) (uint64, error) {
	rev, err := c.Store.Commit(ctx, changes...)
	if errors.Is(err, vip.ErrRevision) {
		c.lost.Add(1)
	}
	return rev, err
}

// BenchmarkConsul: so many allocators, each with one caller, on one pool of a /18, beside as many
// callers of bare transactions: two for each pair, which compare and set one key of their own.
func BenchmarkConsul(b *testing.B) {
	client := consul(b)
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprintf("vip/allocators=%d", n), func(b *testing.B) {
			prefix := rand.Text() + "/"
			var lost atomic.Int64
			all := make([]*vip.Allocator, n)
			for i := range all {
				s, err := consulstore.New(client, consulstore.Config{Prefix: prefix})
				if err != nil {
					b.Fatal(err)
				}
				all[i] = newAllocator(b, counted{s, &lost}, "10.0.0.0/18")
			}
			lost.Store(0)
			callers(b, n, func(g, i int) {
				l := lease(b, all[g], fmt.Sprint(g, "-", i))
				if _, err := all[g].Release(context.Background(), l.ID,
					""); err != nil {
					b.Error(err)
				}
			})
			figure(b, "retries/allocation", float64(lost.Load())/float64(b.N))
		})
		b.Run(fmt.Sprintf("bare-txn/callers=%d", n), func(b *testing.B) {
			prefix := rand.Text() + "/"
			index := make([]uint64, n)
			value := make([]byte, 120)
			callers(b, n, func(g, i int) {
				for range 2 {
					ops := api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVCAS, Key: fmt.Sprint(prefix, g),
						Value: value, Index: index[g]}}}
					value[0]++
					ok, answer, _, err := client.Txn().Txn(ops, nil)
					if err != nil || !ok {
						b.Error(err, ok)
						return
					}
					index[g] = answer.Results[0].KV.ModifyIndex
				}
			})
		})
	}
}

// callers makes b.N pairs in n goroutines.
func callers(b *testing.B, n int, pair func(g, i int)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	b.ResetTimer()
	start := cpu()
	for g := range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				pair(g, int(i))
			}
		})
	}
	wg.Wait()
	figure(b, "pairs/s", float64(b.N)/b.Elapsed().Seconds())
	figure(b, "pairs/cpu-s", float64(b.N)/(cpu()-start).Seconds())
}
